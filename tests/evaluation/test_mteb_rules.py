"""The rules of MTEB's tasks that a suite's entry is given by `mteb_task`, and what a suite cannot state."""

import json

import pytest

from embed.errors import DataError
from embed.evaluation import mteb_rules, readers, references, suites


def applied(kind, name, **fields):
    return mteb_rules.apply({"name": "t", "type": kind, "path": "x", "mteb_task": name, **fields}, "s.json: task 't'")


def refused(kind, name, *parts, **fields):
    with pytest.raises(DataError) as caught:
        applied(kind, name, **fields)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("s.json: task 't': ")
    for part in parts:
        assert part in str(caught.value)


def test_an_entry_without_a_task_of_mteb_stays():
    assert mteb_rules.apply({"name": "t", "type": "sts"}, "t") == ({"name": "t", "type": "sts"}, [])


@pytest.mark.parametrize(
    "kind, name, rules",
    [
        ("retrieval", "ArguAna", {"ignore_identical_ids": True}),
        ("retrieval", "SciFact", {}),
        ("retrieval", "InstructIR", {"main": "robustness_at_10", "prompt": "code retrieval"}),
        ("reranking", "MindSmallReranking", {"main": "max_over_subqueries_map_at_1000"}),
        ("reranking", "NevIR", {"main": "paired_accuracy"}),
        ("retrieval", "ConvoMem", {"k_values": [1, 3, 5, 10, 20, 25, 50, 100, 1000]}),
        ("classification", "Banking77Classification", {}),
        ("classification", "IFlyTek", {"samples_per_label": 32, "n_experiments": 5}),
        ("classification", "SciRepEvalDRSMClassification", {"is_cross_validation": True}),
        ("clustering", "TwentyNewsgroupsClustering", {"sets": True}),
        ("clustering", "TwentyNewsgroupsClustering.v2", {"sets": False, "max_document_to_embed": None}),
        ("clustering", "AlloProfClusteringS2S.v2", {"max_document_to_embed": 2556, "max_depth": 1, "fraction": None}),
        ("clustering", "ArXivHierarchicalClusteringP2P", {"fraction": 0.04, "sets": False}),
        ("sts", "STSBenchmark", {}),
    ],
)
def test_rules_of_some_tasks(kind, name, rules):
    found, _ = applied(kind, name)
    for field, value in rules.items():
        assert found.get(field) == value, (field, found)
    if not rules:
        assert set(found) == {"name", "type", "path", "mteb_task"}


def test_the_fraction_of_a_clustering_task_is_mtebs_unless_the_suite_gives_another_limit():
    found, remarks = applied("clustering", "BigPatentClustering.v2")
    assert ("fraction" in found) != ("max_document_to_embed" in found)
    found, remarks = applied("clustering", "BigPatentClustering.v2", fraction=0.5)
    assert found["fraction"] == 0.5 and "max_document_to_embed" not in found
    assert any("the suite 0.5" in remark for remark in remarks)


def test_a_subset_may_be_named_after_a_slash():
    found, remarks = applied("retrieval", "XQuADRetrieval/en")
    assert found["mteb_task"] == "XQuADRetrieval/en" and remarks == []
    _, remarks = applied("retrieval", "XQuADRetrieval")
    assert len(remarks) == 1 and "is the mean over" in remarks[0]
    _, remarks = applied("multilabel_classification", "MultiEURLEXMultilabelClassification/en")
    assert len(remarks) == 1 and "draws" in remarks[0]


def test_what_a_suite_cannot_state_is_refused():
    refused("summarization", "SummEval", "evaluator (DeprecatedSummarizationEvaluator)", "leave out 'mteb_task'")
    refused("retrieval", "CQADupstackRetrieval", "mean over tasks (CQADupstackAndroidRetrieval, ")
    refused("pair_classification", "TERRa.V2", "input1_prompt_type (document)")
    refused("bitext", "BUCC", "gold")
    refused("sts", "StakeholderGrounding", "_evaluate_subset")


def test_unknown_names_and_other_types_are_refused():
    refused("retrieval", "Arguana", "no text task of mteb", "did you mean 'ArguAna'")
    refused("sts", "ArguAna", "ArguAna is a task of type 'retrieval', not 'sts'; correct 'type' or 'mteb_task'")


def test_every_rule_is_a_field_of_a_suite_with_a_value_that_it_takes():
    rules = mteb_rules.load()
    kinds = {name: ours for ours, by_type in rules["tasks"].items() for names in by_type.values() for name in names}
    assert set(rules["differ"]) <= set(kinds) and set(rules["tasks"]) <= set(readers.TYPES)
    for name, own in rules["differ"].items():
        for field, value in own.items():
            if field in ("subsets", "unsupported") or value is None:
                continue
            declared = suites._FIELDS[field]
            assert not declared.tasks or kinds[name] in declared.tasks, (name, field)
            suites._check_value(field, value, name)
        if "unsupported" not in own:
            entry, _ = applied(kinds[name], name)
            assert entry.get("main", readers.TYPES[kinds[name]][3]) in readers.mains(entry)


def test_every_published_score_is_of_a_task_that_mteb_has():
    known = {name for kinds in mteb_rules.load()["tasks"].values() for names in kinds.values() for name in names}
    assert {name.partition("/")[0] for name in references.load()["tasks"]} <= known


def test_the_file_is_small():
    assert len(json.dumps(mteb_rules.load())) < 80_000
