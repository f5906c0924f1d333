"""Tables line up, say percent, and show a dash for what is missing."""

import math

import pytest

from embed.evaluation import report


def cells(table: str) -> list[list[str]]:
    """Returns the cells of a markdown table without its rule, after a look at its shape."""
    lines = table.splitlines()
    assert len({len(line) for line in lines}) == 1, "the lines are of different length"
    assert set(lines[1]) <= set("|-:")
    places = [i for i, c in enumerate(lines[1]) if c == "|"]
    assert all(line[i] == "|" for line in lines for i in places), "the columns do not stand under each other"
    return [[line[a + 1 : b].strip() for a, b in zip(places, places[1:])] for line in lines[:1] + lines[2:]]


# rows


def test_rows_go_model_by_model_and_view_by_view(results):
    found = report.rows(results)
    assert [(model, view) for model, view, _ in found] == [
        ("small", "128"),
        ("small", "64"),
        ("small", "128 int8"),
        ("small", "64 int8"),
        ("a longer name", "128"),
        ("bm25", "all"),
    ]
    assert found[1][2]["foxes"]["ndcg_at_10"] == 0.45 and set(found[4][2]) == {"foxes"}


def test_the_main_score_of_each_task_stands_for_it(results):
    found = {(model, view): scores for model, view, scores in report.main_scores(results)}
    assert found["small", "128"] == {"foxes": 0.5, "pairs": 0.81234} and found["bm25", "all"] == {"foxes": 0.4}


# tables


def test_means_by_type_in_percent(results):
    assert cells(report.means_table(results)) == [
        ["model", "view", "mean of the types", "mean of the tasks", "retrieval", "sts"],
        ["small", "128", "65.62", "65.62", "50.00", "81.23"],
        ["small", "64", "62.50", "62.50", "45.00", "80.00"],
        ["small", "128 int8", "22.38", "22.38", "49.75", "-5.00"],
        ["small", "64 int8", "57.00", "57.00", "44.00", "70.00"],
        ["a longer name", "128", "60.00", "60.00", "60.00", "-"],
        ["bm25", "all", "-", "-", "40.00", "-"],
    ]


def test_one_type_alone_has_no_means_of_types(results):
    del results["tasks"]["pairs"]
    assert cells(report.means_table(results))[0] == ["model", "view", "retrieval"]


def test_every_task_with_its_interval_at_the_first_view(results):
    assert cells(report.tasks_table(results)) == [
        ["task", "score", "small 128", "a longer name 128", "bm25 all"],
        ["foxes", "nDCG@10", "50.00 [40.00, 60.00]", "60.00 [50.00, 70.00]", "40.00"],
        ["pairs", "Spearman", "81.23 [75.00, 86.00]", "-", "-"],
    ]


def test_every_task_at_every_view(results):
    head, foxes, pairs = cells(report.tasks_table(results, all_views=True))
    assert head[2:] == ["small 128", "small 64", "small 128 int8", "small 64 int8", "a longer name 128", "bm25 all"]
    assert foxes[3:6] == ["45.00", "49.75", "44.00"] and pairs[3:] == ["80.00", "-5.00", "70.00", "-", "-"]


def test_a_score_without_a_short_name_is_called_by_its_own(results):
    results["tasks"]["pairs"]["main"] = "cosine_pearson"
    assert cells(report.tasks_table(results))[2][1:3] == ["cosine_pearson", "30.00 [75.00, 86.00]"]


def with_differences(results) -> dict:
    rows = [
        {"task": "foxes", "model": "a longer name", "view": "128", "difference": 0.1, "interval": [0.05, 0.15]},
        {"task": "foxes", "model": "bm25", "view": "all", "difference": -0.1, "interval": [-0.2, -0.0001]},
        {"task": "pairs", "model": "x", "view": "128", "difference": 0.0, "interval": [-0.01, 0.02]},
        {"task": "pairs", "model": "y", "view": "128", "difference": math.nan, "interval": [math.nan, math.nan]},
    ]
    return {**results, "differences": {"against": "small", "rows": rows}}


def test_a_star_marks_differences_whose_interval_leaves_out_zero(results):
    assert cells(report.differences_table(with_differences(results))) == [
        ["task", "model", "view", "difference", "95 % interval", ""],
        ["foxes", "a longer name", "128", "+10.00", "+5.00 to +15.00", "*"],
        ["foxes", "bm25", "all", "-10.00", "-20.00 to -0.01", "*"],
        ["pairs", "x", "128", "+0.00", "-1.00 to +2.00", ""],
        ["pairs", "y", "128", "-", "-", ""],
    ]


def test_the_page_holds_all_tables_and_notes(results):
    assert "Difference" not in report.table(results) and report.table(results).endswith("|\n")
    results["tasks"]["foxes"]["notes"] = ["2 queries without a relevant document are left out"]
    text = report.table(with_differences(results))
    for part in (
        report.means_table(results),
        report.tasks_table(results),
        report.differences_table(with_differences(results)),
    ):
        assert part in text
    assert "Difference to small, points" in text and "percent" in text
    assert text.endswith("foxes: 2 queries without a relevant document are left out\n")


def test_published_scores_stand_beside_ours(results):
    assert report.references_table(results) == "" and "Published" not in report.table(results)
    results["tasks"]["foxes"]["references"] = {"One": 0.7, "Two": 0.8}
    assert cells(report.references_table(results)) == [
        ["task", "small 128", "a longer name 128", "bm25 all", "One", "Two"],
        ["foxes", "50.00", "60.00", "40.00", "70.00", "80.00"],
    ]
    results["tasks"]["pairs"]["references"] = {"Two": 0.5}
    assert cells(report.references_table(results))[2] == ["pairs", "81.23", "-", "-", "-", "50.00"]
    assert report.references_table(results) in report.table(results)


def test_what_the_views_keep_of_the_first(results):
    assert cells(report.loss_table(results)) == [
        ["model", "view", "bytes", "mean", "kept"],
        ["small", "128", "512", "65.62", "100.0 %"],
        ["small", "64", "256", "62.50", "95.2 %"],
        ["small", "128 int8", "132", "22.38", "34.1 %"],
        ["small", "64 int8", "68", "57.00", "86.9 %"],
    ]


def test_a_mean_that_is_nothing_keeps_nothing(results):
    for first in (0.0, math.nan):
        results["models"]["small"]["means"]["128"]["mean of the types"] = first
        assert [row[-1] for row in cells(report.loss_table(results))[1:]] == ["-"] * 4


def test_models_of_one_view_have_nothing_to_keep(results):
    del results["models"]["small"]
    assert report.loss_table(results) == ""


def test_a_sweep_goes_from_the_base_to_the_tuned_model():
    scores = {"0": {"foxes": 0.4, "pairs": 0.8}, "0.5": {"foxes": 0.6, "pairs": 0.7}, "1": {"foxes": 0.5, "pairs": 0.1}}
    found = {"best": 0.5, "suite": "mine", "scores": scores, "means": {"0": 0.6, "0.5": 0.65, "1": 0.3}}
    title, table = report.sweep_table(found).split("\n\n")
    assert "best at alpha 0.5" in title and table.endswith("|\n")
    assert cells(table) == [
        ["alpha", "mean of the types", "foxes", "pairs"],
        ["0", "60.00", "40.00", "80.00"],
        ["0.5", "65.00", "60.00", "70.00"],
        ["1", "30.00", "50.00", "10.00"],
    ]


# words and numbers


@pytest.mark.parametrize(
    "value, wanted", [(0.5, "50.00"), (1, "100.00"), (-0.05, "-5.00"), (0.123456, "12.35"), (0, "0.00"), (None, "-")]
)
def test_scores_are_percent_and_a_dash_where_there_is_none(value, wanted):
    assert report.percent(value) == wanted


@pytest.mark.parametrize("value, wanted", [(0.1, "+10.00"), (-0.025, "-2.50"), (0.0, "+0.00"), (math.nan, "-")])
def test_differences_have_their_sign(value, wanted):
    assert report.signed(value) == wanted


def test_align_pads_words_to_the_right_and_numbers_to_the_left():
    found = report.align(
        [
            ["model", "view", "nDCG@10"],
            ["a", "128", "5.00 [1.00, 6.00]"],
            ["longer name", "all", "-10.25"],
            ["b", "-", "-"],
        ]
    )
    assert found.splitlines() == [
        "| model       | view |           nDCG@10 |",
        "|-------------|-----:|------------------:|",
        "| a           |  128 | 5.00 [1.00, 6.00] |",
        "| longer name |  all |            -10.25 |",
        "| b           |    - |                 - |",
    ]


def test_align_knows_a_number_from_words_that_begin_with_one():
    found = report.align([["comparison", "difference", "interval"], ["128 > 32", "+0.41 ± 0.30", "-0.34 to +1.15"]])
    assert found.splitlines()[1] == "|------------|-------------:|---------------:|"


def test_align_takes_a_header_alone():
    assert len(report.align([["model", "view"]]).splitlines()) == 2


def test_a_bar_in_a_name_does_not_begin_a_new_column(results):
    results["models"]["x|y"] = results["models"].pop("small")
    # As GitHub reads it: a bar with a backslash before it is a letter.
    for table in (report.means_table(results), report.tasks_table(results)):
        assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1


def test_sets_of_one_task_of_mteb_are_one_row_with_their_mean(results):
    for task in ("foxes", "pairs"):
        results["tasks"][task] |= {"references": {"One": 0.7}, "mteb_task": "Known"}
    assert cells(report.references_table(results))[1:] == [["Known, mean of 2", "65.62", "-", "-", "70.00"]]
    results["tasks"]["pairs"]["mteb_task"] = "Known/de"
    assert [row[0] for row in cells(report.references_table(results))[1:]] == ["foxes", "pairs"]
