"""The types of tasks: class, reader, prompt and scores of each. The file formats are in `ranked_readers`, `text_readers`,
`image_readers` and `image_ranked_readers`."""

import json
import pathlib

from embed.errors import DataError, did_you_mean
from embed.evaluation import (
    dense_tasks,
    image_tasks,
    mixed_tasks,
    paired_tasks,
    pairs,
    probe_tasks,
    query_groups,
    ranked_tasks,
    ranking,
    tasks,
    universal_readers,
    universal_tasks,
)
from embed.evaluation import image_ranked_readers as image_ranked
from embed.evaluation import image_readers as images
from embed.evaluation import ranked_readers as ranked
from embed.evaluation import text_readers as texts
from embed.evaluation.reading import Entry

# type -> (class, reader, the prompt when the suite names none, the score that stands for it)
TYPES = {
    "retrieval": (ranked_tasks.Retrieval, ranked.read_retrieval, "query", "ndcg_at_10"),
    "reranking": (ranked_tasks.Reranking, ranked.read_reranking, "query", "map_at_1000"),
    "instruction_reranking": (
        ranked_tasks.InstructionReranking, ranked.read_instruction_reranking, "code retrieval", "p-MRR",
    ),
    "xor_retrieve": (ranked_tasks.OpenRetrieval, ranked.read_xor_retrieve, "query", "recall_at_5kt"),
    "xtreme_up": (ranked_tasks.MultilingualRetrieval, ranked.read_xtreme_up, "query", "mrr_at_10"),
    "sts": (paired_tasks.Sts, texts.read_sts, "sentence similarity", "cosine_spearman"),
    "summarization": (paired_tasks.Summarization, texts.read_summarization, "summarization", "cosine_spearman"),
    "pair_classification": (
        paired_tasks.PairClassification, texts.read_pair_classification, "sentence similarity", "max_ap",
    ),
    "bitext": (paired_tasks.Bitext, texts.read_bitext, "query", "f1"),
    "classification": (probe_tasks.Classification, texts.read_classification, "classification", "accuracy"),
    "multilabel_classification": (
        probe_tasks.MultilabelClassification, texts.read_multilabel, "classification", "accuracy",
    ),
    "regression": (probe_tasks.Regression, texts.read_regression, "none", "kendalltau"),
    "clustering": (probe_tasks.Clustering, texts.read_clustering, "clustering", "v_measure"),
    "image_retrieval": (image_tasks.SubsetRetrieval, image_ranked.read_image_retrieval, "query", "ndcg_at_10"),
    "image_text_retrieval": (image_tasks.ImageTextRetrieval, image_ranked.read_image_text_retrieval, "query", "ndcg_at_10"),
    "image_classification": (
        image_tasks.ImageClassification, images.read_image_classification, "none", "accuracy",
    ),
    "zero_shot_classification": (
        image_tasks.ZeroShotClassification, images.read_zero_shot_classification, "document", "accuracy",
    ),
    "image_clustering": (image_tasks.ImageClustering, images.read_image_clustering, "none", "nmi"),
    "visual_sts": (image_tasks.VisualSts, images.read_visual_sts, "none", "cosine_spearman"),
    "compositionality": (image_tasks.Compositionality, images.read_compositionality, "query", "accuracy"),
    "dense": (dense_tasks.Dense, images.read_dense, "none", "miou"),
    "universal_retrieval": (universal_tasks.UniversalRetrieval, universal_readers.read_universal, "none", "r1"),
    "mixed_retrieval": (mixed_tasks.MixedRetrieval, image_ranked.read_mixed, "query", "r1"),
}  # fmt: skip

IMAGE_RANKED = ("image_retrieval", "image_text_retrieval")
_SIMILARITIES = ("max", *pairs.SIMILARITIES)
# type -> the scores that may stand for a task, where there are several
_MAINS = {
    "xor_retrieve": ("recall_at_5kt", "recall_at_2kt"),
    "sts": tuple(f"{s}_{c}" for s in ("cosine", "manhattan", "euclidean") for c in ("spearman", "pearson")),
    "summarization": ("cosine_spearman", "cosine_pearson"),
    "pair_classification": tuple(f"{s}_{m}" for m in ("ap", "accuracy") for s in _SIMILARITIES),
    "classification": ("accuracy", "f1"),
    "multilabel_classification": ("accuracy", "f1"),
    "clustering": ("v_measure", "ami"),
    "image_classification": ("accuracy", "f1", "nearest_accuracy", "knn_accuracy"),
    "image_clustering": ("nmi", "cluster_accuracy"),
    "visual_sts": ("cosine_spearman", "cosine_pearson"),
    "compositionality": ("accuracy", "text_acc", "image_acc"),
    "universal_retrieval": ("r1", "mmp_at_5", "r1_separate", "mmp_at_5_separate"),
    "mixed_retrieval": ("r1", "r5", "r10", "mrr"),
    "dense": ("miou", "miou_ridge", "ari"),  # depths, normals and names are not in every task
}


def mains(entry: Entry) -> tuple[str, ...]:
    """Returns the scores that may stand for a suite's entry."""
    kind, k_values = entry["type"], entry.get("k_values", ranking.CUTS)
    if kind in IMAGE_RANKED:
        return ranking.score_names(k_values)
    if kind not in ("retrieval", "reranking"):
        return _MAINS.get(kind, (TYPES[kind][3],))
    return (*ranking.score_names(k_values), *query_groups.names(k_values))


def read(entry: Entry, path: pathlib.Path) -> tasks.Task:
    """Returns the task of a suite's entry, whose data is at `path`. An unknown type or score is a DataError."""
    if entry["type"] not in TYPES:
        raise DataError(f"task {entry['name']!r}: type {entry['type']!r}{did_you_mean(entry['type'], TYPES)}")
    task_class, reader, prompt, main = TYPES[entry["type"]]
    main, known = entry.get("main", main), mains(entry)
    if main not in known:
        raise DataError(f"task {entry['name']!r}: main {main!r}{did_you_mean(main, known)}")
    try:
        fields = reader(path, entry)
    except (TypeError, json.JSONDecodeError) as e:
        raise DataError(f"{path}: does not look like a {entry['type']} task ({e})") from e
    task_class = fields.pop("task_class", task_class)
    return task_class(
        name=entry["name"],
        prompt=entry.get("prompt", prompt),
        main=main,
        languages=tuple(entry.get("languages", ())),
        remarks=tuple(fields.pop("remarks", ())),
        **fields,
    )
