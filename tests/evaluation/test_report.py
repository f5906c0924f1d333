"""Tables line up and say percent; the plot is a picture."""

import struct

import pytest

from embed.evaluation import report


def scores(value: float) -> dict:
    return {"ndcg_at_10": value, "mrr_at_10": value / 2, "recall_at_1": 0.1, "recall_at_10": 0.2, "recall_at_100": 1.0}


RESULTS = {
    "suite": "mine",
    "models": {
        "small": {
            "results": {
                "foxes": {"128": scores(0.5), "64": scores(0.45), "8": scores(0.0625)},
                "pairs": {d: {"cosine_spearman": 0.81234, "cosine_pearson": -0.05} for d in ("128", "64", "8")},
            }
        },
        "a longer name": {"results": {"foxes": {"128": scores(0.6)}}},
        "bm25": {"results": {"foxes": {"all": scores(0.4)}}},
    },
}


def test_rows_go_task_by_task():
    found = [(task, model, dim) for task, model, dim, _ in report.rows(RESULTS)]
    assert found == [
        ("foxes", "small", "128"),
        ("foxes", "small", "64"),
        ("foxes", "small", "8"),
        ("foxes", "a longer name", "128"),
        ("foxes", "bm25", "all"),
        ("pairs", "small", "128"),
        ("pairs", "small", "64"),
        ("pairs", "small", "8"),
    ]


def test_align_pads_words_to_the_right_and_numbers_to_the_left():
    found = report.align([["model", "dims", "nDCG@10"], ["a", "128", "5.00"], ["longer name", "all", "-10.25"]])
    assert found.splitlines() == [
        "| model       | dims | nDCG@10 |",
        "|-------------|-----:|--------:|",
        "| a           |  128 |    5.00 |",
        "| longer name |  all |  -10.25 |",
    ]


def test_align_takes_a_header_alone():
    assert len(report.align([["model", "dims"]]).splitlines()) == 2


def test_a_table_per_task_in_percent():
    foxes, pairs = report.table(RESULTS).split("\n\npairs ")
    assert foxes.startswith("foxes (5 metrics, percent)\n\n| model ")
    lines = foxes.splitlines()[2:]
    assert len({len(line) for line in lines}) == 1 and len(lines) == 7
    header, rule, first = ([c.strip() for c in line.strip("|").split("|")] for line in lines[:3])
    assert header == ["model", "dims", "nDCG@10", "MRR@10", "Recall@1", "Recall@10", "Recall@100"]
    assert [r.endswith(":") for r in rule] == [False] + [True] * 6
    assert first == ["small", "128", "50.00", "25.00", "10.00", "20.00", "100.00"]
    assert lines[4].split("|")[3].strip() == "6.25" and "|  all |" in lines[6]
    assert "Spearman" in pairs and "81.23" in pairs and "-5.00" in pairs
    assert report.table(RESULTS).endswith("|\n")


def picture_size(path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) > 5000
    return struct.unpack(">II", content[16:24])


def test_the_plot_is_a_picture_as_wide_as_it_has_tasks(tmp_path):
    pytest.importorskip("matplotlib")
    report.plot_dimensions(RESULTS, tmp_path / "two.png")
    one = {"models": {"small": {"results": {"foxes": RESULTS["models"]["small"]["results"]["foxes"]}}}}
    report.plot_dimensions(one, tmp_path / "one.png")
    assert picture_size(tmp_path / "two.png")[0] > 1.5 * picture_size(tmp_path / "one.png")[0]


@pytest.mark.parametrize(
    "results",
    [
        {"m": {"128": {"ndcg_at_10": 0.5}}},
        {"bm25": {"all": {"ndcg_at_10": 0.5}}},
        {"m": {"128": {"cosine_spearman": float("nan")}, "64": {"cosine_spearman": float("nan")}}},
    ],
)
def test_a_plot_of_one_point_or_none_is_drawn_too(tmp_path, results):
    pytest.importorskip("matplotlib")
    models = {name: {"results": {"t": values}} for name, values in results.items()}
    report.plot_dimensions({"models": models}, str(tmp_path / "x.png"))
    picture_size(tmp_path / "x.png")


def test_the_plot_shows_scores_in_percent_at_each_dimension(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot

    drawn = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    report.plot_dimensions(RESULTS, tmp_path / "x.png")
    monkeypatch.undo()
    foxes, pairs = drawn[0].axes
    lines = {line.get_label().rsplit(" ", 1)[0]: line for line in foxes.get_lines()}
    assert list(lines["small"].get_xdata()) == [8, 64, 128]
    assert list(lines["small"].get_ydata()) == [6.25, 45.0, 50.0]
    assert list(lines["a longer name"].get_ydata()) == [60.0]
    assert set(lines["bm25"].get_ydata()) == {40.0}
    assert (foxes.get_title(), pairs.get_title()) == ("foxes", "pairs")
    assert list(pairs.get_lines()[0].get_ydata()) == pytest.approx([81.234] * 3)
    pyplot.close(drawn[0])
