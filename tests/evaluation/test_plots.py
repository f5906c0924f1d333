"""Plots are pictures of the right panels, and their lines stand at the scores in percent."""

import copy
import math
import struct

import pytest

pytest.importorskip("matplotlib").use("Agg")

from matplotlib import figure, pyplot  # noqa: E402

from embed.evaluation import plots  # noqa: E402


def size(content: bytes) -> tuple[int, int]:
    """Returns width and height of a PNG that is more than an empty canvas."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and content[12:16] == b"IHDR" and content[-8:-4] == b"IEND"
    assert len(content) > 5000
    return struct.unpack(">II", content[16:24])


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made and no pictures of them, for time."""
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, file, **options: file.write(b"a picture"))


@pytest.fixture
def figures(monkeypatch, undrawn):
    """The figures that are made, which are kept open until the test ends."""
    drawn = []
    close = pyplot.close
    monkeypatch.setattr(pyplot, "close", drawn.append)
    yield drawn
    for one in drawn:
        close(one)


def panels(of) -> dict:
    return {axis.get_title(): axis for axis in of.axes if axis.get_visible()}


def lines(axis) -> dict:
    return {line.get_label(): line for line in axis.get_lines()}


def test_pictures_leave_no_figure_open(results, undrawn):
    before = pyplot.get_fignums()
    plots.dimensions(results)
    plots.bars(results)
    assert pyplot.get_fignums() == before


def test_the_curves_stand_at_the_scores_of_each_dimension(results, figures):
    plots.dimensions(results)
    figure_panels = panels(figures[0])
    assert list(figure_panels) == ["retrieval", "sts", "mean of the types"]
    drawn_lines = lines(figure_panels["retrieval"])
    assert list(drawn_lines) == ["small", "small int8", "a longer name", "bm25"]
    assert list(drawn_lines["small"].get_xdata()) == [64, 128] and list(drawn_lines["small"].get_ydata()) == [
        45.0,
        50.0,
    ]
    assert list(drawn_lines["small int8"].get_ydata()) == [44.0, 49.75]
    assert list(drawn_lines["a longer name"].get_xdata()) == [128] and list(
        drawn_lines["a longer name"].get_ydata()
    ) == [60.0]
    assert set(drawn_lines["bm25"].get_ydata()) == {40.0}  # a level line
    assert list(lines(figure_panels["sts"])["small"].get_ydata()) == pytest.approx([80.0, 81.234])
    assert "a longer name" not in lines(figure_panels["sts"]) and "bm25" not in lines(
        figure_panels["mean of the types"]
    )
    low, high = figure_panels["retrieval"].get_ylim()
    assert low < 40 and high > 60


def test_lines_differ_in_colour_and_marker(results, figures):
    plots.dimensions(results)
    drawn = [line for name, line in lines(panels(figures[0])["retrieval"]).items() if name != "bm25"]
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == len(drawn)


def test_bytes_of_a_vector_are_the_other_axis(results, figures):
    plots.sizes(results)
    drawn_lines = lines(panels(figures[0])["retrieval"])
    assert list(drawn_lines["small"].get_xdata()) == [256, 512] and list(drawn_lines["small int8"].get_xdata()) == [
        68,
        132,
    ]
    assert figures[0].axes[0].get_xscale() == "log"
    assert [t.get_text() for t in figures[0].axes[0].get_xticklabels()] == ["68", "132", "256", "512"]


def test_the_legend_names_every_line_whichever_panel_it_is_in(results, figures):
    # With sts first, neither BM25 nor the other model has a line in the first panel.
    turned = {**results, "tasks": dict(reversed(results["tasks"].items()))}
    for draw in (plots.dimensions, plots.sizes):
        draw(turned)
        (legend,) = figures[-1].legends
        assert {t.get_text() for t in legend.get_texts()} == {"small", "small int8", "a longer name", "bm25"}


def test_one_size_alone_has_no_curve(results):
    del results["models"]["small"]
    assert plots.dimensions(results) is None and plots.sizes(results) is None


def test_one_precision_alone_has_no_curve_over_bytes(results, undrawn):
    small = results["models"]["small"]
    small["views"] = [v for v in small["views"] if v["precision"] == "float32"]
    assert plots.sizes(results) is None and plots.dimensions(results) is not None


def test_one_type_alone_has_one_panel_and_four_have_two_rows(results, figures):
    one = copy.deepcopy(results)
    del one["tasks"]["pairs"]
    plots.dimensions(one)
    assert list(panels(figures[0])) == ["retrieval"]
    for n in range(2):
        results["tasks"][f"more{n}"] = {**results["tasks"]["pairs"], "group": f"type{n}"}
        for means in results["models"]["small"]["means"].values():
            means[f"type{n}"] = 0.5
    plots.dimensions(results)
    assert list(panels(figures[1])) == ["retrieval", "sts", "type0", "type1", "mean of the types"]
    assert figures[1].get_figheight() > 1.5 * figures[0].get_figheight()


def without_sts(results):
    for means in results["models"]["small"]["means"].values():
        means["sts"] = means["mean of the types"] = math.nan
    return results


def test_scores_that_are_not_defined_are_left_out(results, figures):
    plots.dimensions(without_sts(results))
    assert not lines(panels(figures[0])["sts"])


def test_scores_that_are_not_defined_can_be_drawn(results):
    size(plots.dimensions(without_sts(results)))
    size(plots.bars(results))


def test_bars_stand_for_each_model_at_its_first_view(results, figures):
    plots.bars(results)
    (axis,) = figures[0].axes
    heights = {c.get_label(): [bar.get_height() for bar in c] for c in axis.containers if hasattr(c, "patches")}
    assert list(heights) == ["small (128)", "a longer name (128)", "bm25 (all)"]
    assert heights["small (128)"] == pytest.approx([50.0, 81.234])
    assert heights["bm25 (all)"][0] == 40.0 and math.isnan(heights["bm25 (all)"][1])
    assert [t.get_text() for t in axis.get_xticklabels()] == ["retrieval", "sts"]


def test_bars_do_not_lie_on_each_other(results, figures):
    plots.bars(results)
    spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for c in figures[0].axes[0].containers for bar in c)
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:]))


def test_every_kind_is_written_as_a_picture(results, tmp_path):
    assert plots.available()
    assert plots.write_all(results, tmp_path) == ["dimensions.png", "bytes.png", "types.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bytes.png", "dimensions.png", "types.png"]
    for path in tmp_path.iterdir():
        width, height = size(path.read_bytes())
        assert 500 < width < 5000 and 300 < height < 5000


def test_the_pictures_that_make_sense_are_written(results, tmp_path, undrawn):
    del results["models"]["small"]
    assert plots.write_all(results, tmp_path) == ["types.png"]
    assert [p.name for p in tmp_path.iterdir()] == ["types.png"]


def test_a_sweep_shows_the_change_against_the_base(figures):
    scores = {"0": {"foxes": 0.4, "pairs": 0.8}, "0.5": {"foxes": 0.6, "pairs": 0.7}, "1": {"foxes": 0.5, "pairs": 0.1}}
    figure_panels = {"best": 0.5, "suite": "mine", "scores": scores, "means": {"0": 0.6, "0.5": 0.65, "1": 0.3}}
    plots.sweep(figure_panels)
    drawn_lines = lines(figures[0].axes[0])
    assert list(drawn_lines["foxes"].get_xdata()) == [0, 0.5, 1]
    assert list(drawn_lines["foxes"].get_ydata()) == pytest.approx([0, 20, 10])
    assert list(drawn_lines["pairs"].get_ydata()) == pytest.approx([0, -10, -70])
    assert list(drawn_lines["mean of the types"].get_ydata()) == pytest.approx([0, 5, -30])
    assert set(drawn_lines["best mean: 0.5"].get_xdata()) == {0.5}


def test_a_sweep_is_a_picture():
    size(
        plots.sweep(
            {"best": 1.0, "suite": "s", "scores": {"0": {"a": 0.4}, "1": {"a": 0.5}}, "means": {"0": 0.4, "1": 0.5}}
        )
    )


def test_a_sweep_without_matplotlib_has_no_picture(monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)
    assert plots.sweep({}) is None


def mixture_search(**changes) -> dict:
    """The record of a search of six mixtures, one of which failed; three are seeds."""
    scores = [0.50, 0.52, None, 0.51, 0.56, 0.55]
    kinds = ["grid", "Dirichlet", "Dirichlet", "exploit", "explore", "exploit"]
    trials = [{"number": n, "kind": k, "score": s} for n, (k, s) in enumerate(zip(kinds, scores), 1)]
    chosen = [
        {"name": "mixture-1", "for": "mean of the types", "rates": {"faq": 0.3, "code": 0.7}},
        {"name": "mixture-2", "for": "sts", "rates": {"faq": 0.8, "code": 0.2}},
    ]
    record = {"metric": "mean of the types", "higher_is_better": True, "suite": "dev.json", "seeds": 3}
    return {**record, "trials": trials, "chosen": chosen, "best_seed": {"faq": 0.5, "code": 0.5}, **changes}


def test_a_mixture_search_shows_each_trial_and_the_best_so_far(figures):
    plots.search_progress(mixture_search())
    drawn_lines = lines(figures[0].axes[0])
    assert list(drawn_lines["exploit"].get_xdata()) == [4, 6] and list(
        drawn_lines["exploit"].get_ydata()
    ) == pytest.approx([51, 55])
    assert list(drawn_lines["best so far"].get_xdata()) == [1, 2, 4, 5, 6]
    assert list(drawn_lines["best so far"].get_ydata()) == pytest.approx([50, 52, 52, 56, 56])
    assert list(drawn_lines["best seed"].get_ydata()) == pytest.approx([52, 52])
    assert list(drawn_lines["failed"].get_xdata()) == [3]


def test_less_of_a_loss_is_better_in_a_mixture_search(figures):
    plots.search_progress(mixture_search(metric="validation/loss", higher_is_better=False))
    drawn_lines = lines(figures[0].axes[0])
    assert list(drawn_lines["best so far"].get_ydata()) == pytest.approx([0.5] * 5)
    assert figures[0].axes[0].get_ylabel() == "validation/loss"


def test_the_rates_of_chosen_mixtures_are_bars_by_task(figures):
    plots.search_rates(mixture_search())
    (axis,) = figures[0].axes
    widths = {c.get_label(): [bar.get_width() for bar in c] for c in axis.containers}
    assert widths["mixture-1: mean of the types"] == pytest.approx([30, 70])
    assert widths["mixture-2: sts"] == pytest.approx([80, 20]) and widths["best seed"] == pytest.approx([50, 50])
    assert [t.get_text() for t in axis.get_yticklabels()] == ["faq", "code"]


def test_a_mixture_search_is_a_picture():
    size(plots.search_progress(mixture_search()))
    size(plots.search_rates(mixture_search()))


def test_a_mixture_search_without_matplotlib_has_no_picture(monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)
    assert plots.search_progress({}) is None and plots.search_rates({}) is None
