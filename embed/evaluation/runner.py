"""Scores a model on the tasks of a suite: every text is embedded once, every size and precision is cut from the same vectors."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from embed.evaluation.bootstrap import Sample
from embed.evaluation.dense_tasks import Dense
from embed.evaluation.embeddings import Embeddings, Items
from embed.evaluation.pictures import Row
from embed.evaluation.ranked_tasks import Retrieval
from embed.evaluation.suites import Suite
from embed.evaluation.tasks import Scored, Task
from embed.evaluation.views import View
from embed.types import PatchFn, SearchFn


@dataclasses.dataclass(frozen=True)
class Results:
    """{task: {view: {score: value}}}, the samples of the main scores by the same keys, and what draws examples of a task."""

    scores: dict[str, dict[str, dict[str, float]]]
    samples: dict[str, dict[str, Sample]]
    pictures: dict[str, Callable[[], Sequence[Row]]] = dataclasses.field(default_factory=dict)


def run(
    suite: Suite,
    embeddings: Embeddings,
    views: Sequence[View],
    search: SearchFn,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int], None] = lambda texts: None,
    patches: PatchFn | None = None,
    image_size: int | None = None,
    takes_texts: bool = True,
) -> Results:
    """Embeds what is missing and returns the scores of every task in every view.

    `patches` is for tasks of pixels, and `image_size` the pixels of the square that the model resizes images to. The names of
    classes are embedded where the model `takes_texts`.
    """
    parts = {task.name: parts_of(task, takes_texts) for task in suite.tasks}
    embeddings.embed([part for task_parts in parts.values() for part in task_parts.values()], progress)
    scores, samples, pictures = {}, {}, {}
    for task in suite.tasks:
        if isinstance(task, Dense):  # sizes and precisions are of embeddings
            scored = dict.fromkeys(
                (view.name for view in views), _of_pixels(task, embeddings, patches, image_size, takes_texts)
            )
        else:
            vectors = {name: embeddings.get(part) for name, part in parts[task.name].items()}
            scored = {view.name: task.score(vectors.__getitem__, view, search) for view in views}
        scores[task.name] = {name: s.scores for name, s in scored.items()}
        samples[task.name] = {name: s.sample for name, s in scored.items()}
        first = views[0].name
        if scored[first].pictures is not None:
            pictures[task.name] = scored[first].pictures
        say(f"{task.name}: {task.main} {100 * scores[task.name][first][task.main]:.2f} at {first}")
    return Results(scores, samples, pictures)


def parts_of(task: Task, takes_texts: bool = True) -> dict[str, Items]:
    """Returns the parts of a task that a model embeds: the names of classes of pixels only if it `takes_texts`."""
    return {} if isinstance(task, Dense) and not takes_texts else task.parts()


def follow(suite: Suite, embeddings: Embeddings, patches: PatchFn, image_size: int | None, takes_texts: bool) -> None:
    """Computes what `run` computes on the devices, after its parts were embedded: for the hosts that do not score."""
    for task in suite.tasks:
        if isinstance(task, Dense):
            _of_pixels(task, embeddings, patches, image_size, takes_texts)


def _of_pixels(task: Dense, embeddings: Embeddings, patches, image_size: int | None, takes_texts: bool) -> Scored:
    names = parts_of(task, takes_texts).get("names")
    return task.score_patches(patches, None if names is None else embeddings.get(names), image_size)


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
