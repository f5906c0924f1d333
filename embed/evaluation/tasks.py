"""What the runner knows of a task: which texts it needs, and what their vectors are worth.

A task is data and two functions. `parts` gives its texts; `score` takes their vectors, as a `View` serves them, and
gives all scores and the `Sample` that its main score is computed from, for confidence intervals. The types are in
`ranked_tasks`, `paired_tasks` and `probe_tasks`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import numpy as np

from embed.evaluation.bootstrap import Sample
from embed.evaluation.embeddings import Items
from embed.evaluation.pictures import Row
from embed.evaluation.views import View
from embed.types import SearchFn

Vectors = Callable[[str], np.ndarray]  # name of a part -> its float32 vectors [n, E]


@dataclasses.dataclass(frozen=True)
class Scored:
    """All scores of a task, and the values of its items that make the main score, in `sample`.

    `sample` is None for a baseline that is made of other models' scores. `pictures` draws examples, if the task has images.
    """

    scores: dict[str, float]
    sample: Sample | None
    pictures: Callable[[], Sequence[Row]] | None = None


class Task(Protocol):
    """A task of any type. `main` is the name of the score that stands for it."""

    type: ClassVar[str]
    name: str
    main: str
    languages: Sequence[str]
    remarks: tuple[str, ...]

    def parts(self) -> dict[str, Items]: ...

    def items(self) -> list[Items]: ...

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored: ...


@dataclasses.dataclass(frozen=True)
class Base:
    """What every task has. `prompt` is the name or template of its texts' prompt, or of its queries'.

    `remarks` say what of the data or of MTEB's rules a reader of the scores must know.
    """

    name: str
    prompt: str
    main: str
    languages: Sequence[str]
    remarks: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    def items(self) -> list[Items]:
        """Returns all that the model is given."""
        return list(self.parts().values())


def mean(values: np.ndarray) -> float:
    """Returns the mean, which of nothing is not a number."""
    return float(np.mean(values)) if len(values) else float("nan")
