"""Scores a model on the tasks of a suite: every text is embedded once, every size and precision is cut from the same vectors."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from embed.evaluation.bootstrap import Sample
from embed.evaluation.dense_tasks import Dense
from embed.evaluation.embeddings import Embeddings
from embed.evaluation.ranked_tasks import Retrieval
from embed.evaluation.suites import Suite
from embed.evaluation.tasks import Task
from embed.evaluation.views import View
from embed.types import PatchFn, SearchFn


@dataclasses.dataclass(frozen=True)
class Results:
    """{task: {view: {score: value}}}, and the samples of the main scores by the same keys."""

    scores: dict[str, dict[str, dict[str, float]]]
    samples: dict[str, dict[str, Sample]]


def run(
    suite: Suite,
    embeddings: Embeddings,
    views: Sequence[View],
    search: SearchFn,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int], None] = lambda texts: None,
    patches: PatchFn | None = None,
) -> Results:
    """Embeds what is missing and returns the scores of every task in every view. `patches` is for tasks of pixels."""
    parts = {task.name: task.parts() for task in suite.tasks}
    embeddings.embed([part for task_parts in parts.values() for part in task_parts.values()], progress)
    scores, samples = {}, {}
    for task in suite.tasks:
        if isinstance(task, Dense):  # sizes and precisions are of embeddings
            scored = dict.fromkeys((view.name for view in views), task.score_patches(patches))
        else:
            vectors = {name: embeddings.get(part) for name, part in parts[task.name].items()}
            scored = {view.name: task.score(vectors.__getitem__, view, search) for view in views}
        scores[task.name] = {name: s.scores for name, s in scored.items()}
        samples[task.name] = {name: s.sample for name, s in scored.items()}
        first = views[0].name
        say(f"{task.name}: {task.main} {100 * scores[task.name][first][task.main]:.2f} at {first}")
    return Results(scores, samples)


def means(scores: dict[str, dict[str, dict[str, float]]], suite: Suite) -> dict[str, dict[str, float]]:
    """Returns {view: {type: mean of the main scores, ..., 'mean of the types', 'mean of the tasks'}}.

    Means over types weigh each type alike, as MTEB's leaderboard does. A score that is not defined makes its means so.
    """
    main = {t.name: t.main for t in suite.tasks}
    results = {}
    for view in next(iter(scores.values())) if scores else ():
        values = {task: views_of_task[view][main[task]] for task, views_of_task in scores.items()}
        types = {
            kind: float(np.mean([values[t] for t in values if suite.groups[t] == kind]))
            for kind in dict.fromkeys(suite.groups[t] for t in values)
        }
        results[view] = {
            **types,
            "mean of the types": float(np.mean(list(types.values()))),
            "mean of the tasks": float(np.mean(list(values.values()))),
        }
    return results


def unjudged(task: Task) -> int:
    """Returns how many queries nobody judged a document for and are left out."""
    return len(task.query_ids) - len(task.asked) if isinstance(task, Retrieval) else 0
