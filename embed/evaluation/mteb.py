"""MTEB itself, on our models: an encoder for `mteb.evaluate`, and the means that papers print of its results (extra [eval]).

from embed.evaluation.mteb import MtebEncoder
mteb.evaluate(MtebEncoder(embed.load("runs/soup")), mteb.get_tasks(tasks=["STSBenchmark"]))
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embed import documents
from embed.errors import DataError, UsageError
from embed.evaluation.views import View
from embed.text import MTEB_KEYS
from embed.types import Item


def _mteb():
    try:
        import mteb
    except ImportError as e:
        raise UsageError("MTEB needs packages; run: pip install 'embed[eval]' (torch's CPU build first)") from e
    return mteb


def prompt_name(prompts: Mapping[str, str], task: str, kind: str, side: str | None) -> str:
    """Returns which of our prompts MTEB's task is given: the most special that the model has, as MTEB itself chooses.

    `kind` is MTEB's task type and `side` 'query', 'document' or None. 'none' when nothing fits.
    """
    ours = {key: name for name, keys in MTEB_KEYS.items() for key in keys}
    sided = [f"{task}-{side}", task, f"{kind}-{side}", kind, side] if side else [task, kind]
    for key in sided:
        name = key if key in prompts else ours.get(key)
        if name in prompts:
            return name
    return "none"


def _items(batch: Mapping[str, Sequence[Any]], is_mixed: bool) -> list[str | Item]:
    """Returns the items of a batch of MTEB, which is a dict of lists: `text`, `image`, or both.

    MTEB does not say where in a text an image belongs; a model that reads images in texts is given it in front.
    """
    if "image" not in batch:
        return list(batch["text"])
    texts = batch.get("text") or [None] * len(batch["image"])
    front = lambda text: f"[MASK_0] {text}" if is_mixed and text is not None else text  # noqa: E731
    return [Item(front(text), None, (image,)) for text, image in zip(texts, batch["image"], strict=True)]


class MtebEncoder:
    """A model of ours as MTEB wants one. `view` says at which size and precision its vectors are compared.

    `model` has `encode(texts, prompt=..., allow_empty=...)`, `prompts`, `digest`, `max_length` and `dtype`: what `embed.load`
    returns. MTEB's files are kept by `name`, which must differ for every view, and by all that decides the vectors.
    """

    def __init__(self, model: Any, name: str = "embed/model", view: View | None = None):
        self._model, self._view = model, view
        suffix = "" if view is None else f"-{view.name.replace(' ', '-')}"
        decides = [model.digest, model.max_length, model.dtype]
        revision = documents.digest_json(decides)[:16]
        self._meta = {"name": f"{name if '/' in name else f'embed/{name}'}{suffix}", "revision": revision}

    @property
    def mteb_model_meta(self):
        """What MTEB files the results under, and whether the model takes images."""
        modalities = ["text", "image"] if getattr(self._model, "takes_images", False) else ["text"]
        return _mteb().models.ModelMeta.create_empty(overwrites={**self._meta, "modalities": modalities})

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **options) -> np.ndarray:
        """Returns float32 vectors [n, E] of the texts and images of MTEB's batches; an item of both has one vector."""
        del hf_split, hf_subset, options
        side = getattr(prompt_type, "value", prompt_type)
        is_mixed = getattr(self._model, "reads_images_in_texts", False)
        items = [item for batch in inputs for item in _items(batch, is_mixed)]
        prompt = prompt_name(self._model.prompts, task_metadata.name, task_metadata.type, side)
        vectors = self._model.encode(items, prompt=prompt, allow_empty=True)  # some of MTEB's sets have empty texts
        if self._view is None:
            return vectors
        return self._view.queries(vectors) if side == "query" else self._view.documents(vectors)

    def similarity(self, one, other):
        """Returns the cosines of all rows with all others."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(one, other)

    def similarity_pairwise(self, one, other):
        """Returns the cosines of paired rows."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(one, other)


def chosen_tasks(names: str) -> list:
    """Returns the tasks of a benchmark such as 'MTEB(Multilingual, v2)', or those named, separated by commas."""
    mteb = _mteb()
    known = {benchmark.name for benchmark in mteb.get_benchmarks()}
    if names in known:
        return list(mteb.get_benchmark(names).tasks)
    chosen = [n.strip() for n in names.split(",") if n.strip()]
    try:
        return list(mteb.get_tasks(tasks=chosen))
    except KeyError as e:
        benchmarks = ", ".join(sorted(n for n in known if n.startswith("MTEB(")))
        raise DataError(f"--mteb={names}: neither a benchmark nor tasks of MTEB ({e}); benchmarks: {benchmarks}") from e


def evaluate(encoder: MtebEncoder, tasks: Sequence, folder: pathlib.Path) -> dict[str, dict]:
    """Runs MTEB; its own result files are kept under `folder`. Returns {task: {"type", "score"}}, scores in [0, 1]."""
    mteb = _mteb()
    evaluated = mteb.evaluate(encoder, tasks, cache=mteb.ResultCache(folder), co2_tracker=False)
    types = {t.metadata.name: t.metadata.type for t in tasks}
    return {r.task_name: {"type": types[r.task_name], "score": float(r.get_score())} for r in evaluated.task_results}


def task_mean(scores: Mapping[str, Mapping]) -> float:
    """Returns Mean (Task): every task counts alike."""
    return float(np.mean([s["score"] for s in scores.values()]))


def type_mean(scores: Mapping[str, Mapping]) -> float:
    """Returns Mean (TaskType): the mean of the means by type."""
    kinds = dict.fromkeys(s["type"] for s in scores.values())
    return float(np.mean([np.mean([s["score"] for s in scores.values() if s["type"] == k]) for k in kinds]))


def borda(scores: Mapping[str, Mapping[str, float]]) -> dict[str, int]:
    """Returns each model's rank by Borda count, 1 for the best, from {model: {task: score}}.

    In every task a model gets a point for each model it beats, half a one for each it equals; a task that a model lacks
    gives it none.
    """
    points = dict.fromkeys(scores, 0.0)
    for task in {t for task_scores in scores.values() for t in task_scores}:
        compared = {m: task_scores[task] for m, task_scores in scores.items() if task in task_scores}
        for model, value in compared.items():
            others = [v for m, v in compared.items() if m != model]
            points[model] += sum(value > v for v in others) + 0.5 * sum(value == v for v in others)
    return {model: 1 + sum(other > task_scores for other in points.values()) for model, task_scores in points.items()}
