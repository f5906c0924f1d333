"""Writes embed/evaluation/mteb_rules.json: the rules of every text task of the installed mteb.

    python launch/mteb_rules.py

Needs the packages of the extra [eval]. Nothing is fetched: the rules are attributes of mteb's classes.
"""

import json
import logging
import os
import pathlib
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"

import mteb
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.clustering import AbsTaskClustering
from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy
from mteb.abstasks.multilabel_classification import AbsTaskMultilabelClassification
from mteb.abstasks.pair_classification import AbsTaskPairClassification
from mteb.abstasks.regression import AbsTaskRegression
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining
from mteb.abstasks.text.summarization import AbsTaskSummarization

from embed.evaluation import readers

PATH = pathlib.Path(__file__).resolve().parents[1] / "embed" / "evaluation" / "mteb_rules.json"
# mteb's class -> our type; the first that fits. Retrieval's classes are told apart by mteb's type.
TYPES = {
    AbsTaskRegression: "regression",
    AbsTaskMultilabelClassification: "multilabel_classification",
    AbsTaskClassification: "classification",
    AbsTaskClusteringLegacy: "clustering",
    AbsTaskClustering: "clustering",
    AbsTaskPairClassification: "pair_classification",
    AbsTaskSTS: "sts",
    AbsTaskBitextMining: "bitext",
    AbsTaskSummarization: "summarization",
    AbsTaskRetrieval: "retrieval",
}
RANKED = {"Reranking": "reranking", "InstructionReranking": "instruction_reranking"}
# our field -> mteb's attribute, of the types that have it
FIELDS = {
    "ignore_identical_ids": "ignore_identical_ids",
    "skip_first_result": "skip_first_result",
    "k_values": "k_values",
    "samples_per_label": "samples_per_label",
    "n_experiments": "n_experiments",
    "is_cross_validation": "is_cross_validation",
    "fraction": "max_fraction_of_documents_to_embed",
    "max_document_to_embed": "max_document_to_embed",
    "max_documents_per_cluster": "max_documents_per_cluster",
    "max_depth": "max_depth",
}
# Attributes that decide scores and that no field of a suite states: at their type's value, or the task is unsupported.
FIXED = (
    "n_splits",
    "n_clusters",
    "k_mean_batch_size",
    "n_samples",
    "input1_prompt_type",
    "input2_prompt_type",
    "evaluator",
)
METHODS = (
    "evaluate", "_evaluate_subset", "_evaluate_subset_cross_validation", "_compute_metrics", "_compute_metrics_values",
    "_calculate_scores", "_calculate_avg_scores", "_undersample_data", "_undersample_data_indices", "_run_experiment",
    "_normalize", "_add_main_score",
)  # fmt: skip
# Tasks whose files say more than a suite's can.
UNSTATED = {"BUCC": {"gold": "pairs among more sentences of one side"}}
TYPE_RULES = {"clustering": {"fraction": AbsTaskClustering.max_fraction_of_documents_to_embed}}


def text_tasks() -> list:
    """Returns every task of mteb whose inputs are texts alone, superseded ones too."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return mteb.get_tasks(exclude_superseded=False, modalities=["text"], exclusive_modality_filter=True)
    finally:
        logging.disable(before)


def type_of(task) -> tuple[str, type | None]:
    """Returns (our type, mteb's class of that type); a mean over other tasks has no class of a type."""
    for base, ours in TYPES.items():
        if isinstance(task, base):
            return RANKED.get(task.metadata.type, ours) if ours == "retrieval" else ours, base
    return {"Retrieval": "retrieval", "Classification": "classification"}[task.metadata.type], None


def rules(task) -> dict:
    """Returns the rules of a task that differ from those of its type."""
    ours, base = type_of(task)
    if base is None:
        names = [t.metadata.name for t in task.metadata.tasks]
        return {"unsupported": {"mean over tasks": f"{names[0]}, {names[1]} and {len(names) - 2} more"}}
    found, unsupported = {}, dict(UNSTATED.get(task.metadata.name, {}))
    for field, attribute in FIELDS.items():
        if not hasattr(base, attribute):
            continue
        value, usual = getattr(task, attribute), getattr(base, attribute)
        value, usual = (list(x) if isinstance(x, tuple) else x for x in (value, usual))
        if value != usual:
            found[field] = value
    if base is AbsTaskClusteringLegacy:
        found |= {"sets": True, "fraction": None}
    elif base is AbsTaskClustering:
        found["sets"] = False
    for attribute in (*FIXED, *METHODS):
        value = getattr(type(task), attribute, None)
        if hasattr(base, attribute) and value is not getattr(base, attribute) and value != getattr(base, attribute):
            unsupported[attribute] = getattr(value, "__name__", str(value))
    if repr(getattr(task, "evaluator_model", None)) != repr(getattr(base, "evaluator_model", None)):
        unsupported["evaluator_model"] = repr(task.evaluator_model)
    main, entry = task.metadata.main_score, {"type": ours, **found}
    if main not in readers.mains(entry):
        unsupported["main_score"] = main
    elif main != readers.TYPES[ours][3]:
        found["main"] = main
    subsets = len(task.hf_subsets) * len(task.eval_splits)
    found |= {"subsets": subsets} if subsets > 1 else {}
    return found | ({"unsupported": unsupported} if unsupported else {})


def content() -> dict:
    """Returns what mteb_rules.json holds."""
    tasks, differ = {}, {}
    for task in sorted(text_tasks(), key=lambda t: t.metadata.name):
        name, (ours, _) = task.metadata.name, type_of(task)
        tasks.setdefault(ours, {}).setdefault(task.metadata.type, []).append(name)
        found = rules(task)
        # The usual form of clustering is that of a type, and is said once.
        if found.get("sets") is False:
            del found["sets"]
        if found:
            differ[name] = found
    types = {**TYPE_RULES, "clustering": {**TYPE_RULES["clustering"], "sets": False}}
    return {"mteb": mteb.__version__, "types": types, "tasks": tasks, "differ": differ}


def text() -> str:
    """Returns the file's text: a line for each task that differs and for each list of names."""
    found = content()
    line = lambda value: json.dumps(value, ensure_ascii=False)  # noqa: E731
    tasks = ",\n".join(
        f"  {line(ours)}: {{\n" + ",\n".join(f"   {line(k)}: {line(names)}" for k, names in kinds.items()) + "\n  }"
        for ours, kinds in found["tasks"].items()
    )
    differ = ",\n".join(f"  {line(name)}: {line(own)}" for name, own in found["differ"].items())
    return (
        f'{{\n "mteb": {line(found["mteb"])},\n "types": {line(found["types"])},\n "tasks": {{\n{tasks}\n }},\n'
        f' "differ": {{\n{differ}\n }}\n}}\n'
    )


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
    print(f"wrote {PATH}: {PATH.stat().st_size:,} bytes")
