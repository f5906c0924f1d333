"""Tables of a task's other scores: what mixed queries are read by beside its ceilings, parts of the queries, and domains."""

from embed.evaluation.part_scores import tables


def results(kind, scores, **facts):
    models = {name: {"results": {"t": {"8": values, "4": {}}, "other": {"8": {}}}} for name, values in scores.items()}
    others = {"other": {"type": "sts"}}
    return {"tasks": {"t": {"type": kind, **facts}, **others}, "models": {**models, "bm25": {"results": {}}}}


def test_mixed_queries_stand_beside_their_ceilings():
    scores = {"r1": 0.5, "r5": 0.75, "r10": 1.0, "mrr": 0.625, "images/r1": 0.25, "r1/1 image": 0.4, "r1/kind a": 0.6}
    scores |= {"images/r1/1 image": 0.125, "unfiltered/r1": 0.375}
    (first, cells), (second, parts) = tables(results("mixed_retrieval", {"m": scores}, ceilings={"images/r1": 0.3}))
    assert first == "Scores by input of t" and second == "R@1 by subset of the queries of t"
    assert cells == [
        ["model", "input", "R@1", "R@5", "R@10", "MRR", "upper bound of R@1"],
        ["m", "text and images", "50.00", "75.00", "100.00", "62.50", "-"],
        ["m", "images alone", "25.00", "-", "-", "-", "30.00"],
        ["m", "text and images, nothing excluded", "37.50", "-", "-", "-", "-"],
    ]
    assert parts == [
        ["model", "queries", "text and images", "images alone", "upper bound: images alone"],
        ["m", "1 image", "40.00", "12.50", "-"],
        ["m", "kind a", "60.00", "-", "-"],
    ]


def test_without_ceilings_and_parts_there_is_no_column_and_no_table():
    ((_, cells),) = tables(results("mixed_retrieval", {"m": {"r1": 1.0}}))
    assert cells[0][-1] == "MRR" and len(cells) == 2


def test_domains_of_universal_retrieval():
    scores = {"r1": 0.5, "mmp_at_5": 0.25, "map_at_1000": 0.125, "r1_separate": 1.0, "r1/cars": 0.75}
    ((title, cells),) = tables(results("universal_retrieval", {"a": scores, "b": {"r1": 0.0}}))
    assert title == "Domains of t"
    assert cells[0] == [
        "model",
        "domain",
        "R@1",
        "mMP@5",
        "MAP",
        "R@1, separate index",
        "mMP@5, separate index",
        "MAP, separate index",
    ]
    assert cells[1] == ["a", "mean", "50.00", "25.00", "12.50", "100.00", "-", "-"]
    assert cells[2] == ["a", "cars", "75.00", "-", "-", "-", "-", "-"]
    assert cells[3][:3] == ["b", "mean", "0.00"] and len(cells) == 5


def test_other_types_have_none():
    assert tables(results("sts", {"m": {"r1": 1.0}})) == []
