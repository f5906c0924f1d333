"""Losses that learn from a teacher: from its vectors of the same items, or from its scores of a query's candidates."""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from embed import ranges
from embed.errors import ConfigError
from embed.ranges import Positive, Size
from embed.types import INTERMEDIATE, Metrics, PairEmbeddings, Params
from embed.vectors import normalize, truncate

Tower = Literal["query", "target", "negatives"]


@dataclasses.dataclass(frozen=True)
class EmbeddingDistillation:
    """The distance between each item's embedding and the teacher's vector of it, summed over `towers`.

        L = sum over towers of  mean over items of distance(student(x), teacher(x))

    Needs the teacher's vectors in the batch as `teacher_query`, `teacher_target` and `teacher_negatives`
    (`Recipe.teacher_vectors`). `distance` is 'l2', the Euclidean distance, 'mse', the mean of the squared differences, or
    'cosine', one minus the cosine. Both sides have unit length. Where the teacher's vectors are longer than the embedding,
    their prefix of its size is taken, back at unit length: right for a teacher that was trained with Matryoshka. `projection`
    is (E, T): a linear map from the embedding to the teacher's whole size, which is learned with the model and not part of it.
    `student` 'intermediate' compares the model's intermediate embedding in place of the final one: EmbeddingGemma's has the 3,072
    values of its teacher. The last linear map then learns from the other losses alone.

    Source: arXiv:2509.20354 eq. 5, which has all three towers with equal weights, after arXiv:2301.12005 eq. 7. The paper
    prints neither the distance nor how 768 values meet the teacher's 3,072; 'l2' and the prefix are our choice.
    """

    distance: Literal["l2", "mse", "cosine"] = "l2"
    towers: tuple[Tower, ...] = ("query", "target", "negatives")
    projection: tuple[Size, Size] | None = None
    student: Literal["final", "intermediate"] = "final"

    def __post_init__(self):
        ranges.check_fields(self)
        if not self.towers or len(set(self.towers)) != len(self.towers):
            raise ConfigError(
                f"EmbeddingDistillation.towers = {self.towers}; name 'query', 'target' and 'negatives', each at most once"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of the teacher's vectors in the batch, and of the model's embeddings where they are not the final ones."""
        teacher = tuple(f"teacher_{tower}" for tower in self.towers)
        return teacher if self.student == "final" else (*teacher, *map(self._name, self.towers))

    def _name(self, tower: str) -> str:
        """Returns the name of the student's embeddings of a tower."""
        return tower if self.student == "final" else tower + INTERMEDIATE

    def init(self) -> Params:
        """Returns {"projection": float32 [E, T]}, columns drawn with variance 1/E, or {} without a projection."""
        if self.projection is None:
            return {}
        draw = jax.random.normal(jax.random.key(0), self.projection, jnp.float32)
        return {"projection": draw / self.projection[0] ** 0.5}

    def __call__(
        self, pairs: PairEmbeddings, params: Params | None = None, step: Any = 0
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the sum, and the mean distance of each tower under its name."""
        del step
        metrics: Metrics = {}
        for tower in self.towers:
            student, teacher = getattr(pairs, self._name(tower)), getattr(pairs, f"teacher_{tower}")
            if getattr(pairs, tower) is None:  # a batch of a task without hard negatives
                metrics[tower] = jnp.float32(0.0)
                continue
            if student is None:
                raise ConfigError(
                    f"EmbeddingDistillation.student = 'intermediate' needs {self._name(tower)!r}; take the objective "
                    "objectives.pairs.Pairs, which gives it"
                )
            if teacher is None:
                raise ConfigError(
                    f"EmbeddingDistillation needs the teacher's vectors of {tower!r}; bind Recipe.teacher_vectors to their folder"
                )
            student, teacher = self._sizes(normalize(student), teacher, params)
            is_there = pairs.negatives_mask if tower == "negatives" else None
            metrics[tower] = _mean(self._distance(student, teacher), is_there)
        return sum(metrics.values(), jnp.float32(0.0)), metrics

    def check_sizes(self, size: int, teacher_size: int) -> None:
        """Raises ConfigError where embeddings of `size` values cannot be compared with a teacher's of `teacher_size`."""
        if self.projection not in (None, (size, teacher_size)):
            raise ConfigError(
                f"EmbeddingDistillation.projection = {self.projection}; the embedding has {size} values and the teacher's "
                f"vectors {teacher_size}: give ({size}, {teacher_size})"
            )
        if self.projection is None and size > teacher_size:
            raise ConfigError(
                f"the embedding has {size} values and the teacher's vectors {teacher_size}; give "
                f"EmbeddingDistillation.projection = ({size}, {teacher_size})"
            )

    def _sizes(self, student, teacher, params):
        """Returns unit vectors of the student and of the teacher that have one size."""
        self.check_sizes(student.shape[-1], teacher.shape[-1])
        if self.projection is None:
            return student, truncate(teacher, student.shape[-1])
        projected = jnp.matmul(student, params["projection"].astype(student.dtype), precision="highest")
        return normalize(projected), normalize(teacher)

    def _distance(self, student, teacher):
        if self.distance == "cosine":
            return 1.0 - jnp.sum(student * teacher, -1)
        squared = jnp.sum(jnp.square(student - teacher), -1)
        if self.distance == "mse":
            return squared / student.shape[-1]
        # The root has no gradient at 0, where the distance has its minimum.
        is_zero = squared == 0
        return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, squared)))


def _mean(x: Float[Array, "..."], is_there: Bool[Array, "..."] | None = None) -> Float[Array, ""]:
    """Returns the mean of the values that are there; 0 where none is."""
    if is_there is None:
        return jnp.mean(x)
    return jnp.sum(jnp.where(is_there, x, 0.0)) / jnp.maximum(jnp.sum(is_there), 1)


class _OfCandidates:
    """Base of losses that compare the cosines of a query's candidates with a teacher's scores of them. Nothing is learned."""

    needs: ClassVar[tuple[str, ...]] = ("scores",)

    def __post_init__(self):
        ranges.check_fields(self)

    def init(self) -> Params:
        """Returns {}: nothing is learned."""
        return {}

    def candidates(self, pairs: PairEmbeddings) -> tuple[Float[Array, "B C"], Bool[Array, "B N"]]:
        """Returns the cosines of each query with its target and its hard negatives, and which of the negatives there are.

        A batch of a task without hard negatives has none of them, and its loss is 0.
        """
        name = type(self).__name__
        if pairs.scores is None:
            raise ConfigError(
                f"{name} needs the teacher's scores; map the role 'scores' in the sources, or bind Recipe.teacher_scores"
            )
        pairs = pairs.map(normalize)
        positive = jnp.sum(pairs.query * pairs.target, -1, keepdims=True)
        if pairs.negatives is None:
            return positive, jnp.ones((len(positive), 0), bool)
        hard = jnp.einsum("BE,BNE->BN", pairs.query, pairs.negatives, precision="highest")
        is_there = jnp.ones(hard.shape, bool) if pairs.negatives_mask is None else pairs.negatives_mask
        return jnp.concatenate([positive, hard], 1), is_there


@dataclasses.dataclass(frozen=True)
class MarginMSE(_OfCandidates):
    """The squared error of a query's margins, each the score of its target minus that of one of its hard negatives.

    L = mean over the hard negatives of ((s(q,p) - s(q,n)) scale - margin of the teacher)^2, where s is the cosine. Needs the role
    `scores`: the teacher's scores of the target and of every negative, or its margins (`data.features.Scores`,
    `Recipe.teacher_scores`). A teacher whose scores are not cosines wants a `scale`. Source: arXiv:2010.02666 eq. 5.
    """

    scale: Positive = 1.0

    def __call__(
        self, pairs: PairEmbeddings, params: Params | None = None, step: Any = 0
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss, and what to report: `margin` and `teacher_margin`, means over the hard negatives."""
        del params, step
        cosine, is_there = self.candidates(pairs)
        margin = self.scale * (cosine[:, :1] - cosine[:, 1:])
        teacher_margin = pairs.scores[:, :1] - pairs.scores[:, 1:]
        metrics = {"margin": _mean(margin, is_there), "teacher_margin": _mean(teacher_margin, is_there)}
        return _mean((margin - teacher_margin) ** 2, is_there), metrics


@dataclasses.dataclass(frozen=True)
class CandidateKL(_OfCandidates):
    """The divergence of the student's distribution over a query's candidates from the teacher's.

    L = t^2 mean over queries of KL(softmax(scores of the teacher / t_teacher) || softmax(s / t)), where s are the cosines of the
    query with its target and its hard negatives, and t^2 keeps the size of the gradient. Needs the role `scores`: the teacher's
    scores of the target and of every negative. Source: arXiv:2010.11386, over the candidates of arXiv:2010.02666.
    """

    temperature: Positive = 0.05
    teacher_temperature: Positive = 1.0

    def __call__(
        self, pairs: PairEmbeddings, params: Params | None = None, step: Any = 0
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss, and `agreement`, the share of queries whose best candidate is the teacher's: 1 without negatives."""
        del params, step
        cosine, is_negative = self.candidates(pairs)
        is_there = jnp.concatenate([jnp.ones((len(is_negative), 1), bool), is_negative], 1)
        student = jax.nn.log_softmax(jnp.where(is_there, cosine / self.temperature, -jnp.inf), where=is_there)
        teacher = jnp.where(is_there, pairs.scores / self.teacher_temperature, -jnp.inf)
        log_teacher = jax.nn.log_softmax(teacher, where=is_there)
        terms = jnp.exp(log_teacher) * (jnp.where(is_there, log_teacher, 0.0) - jnp.where(is_there, student, 0.0))
        divergence = jnp.sum(jnp.where(is_there, terms, 0.0), 1)
        best = [jnp.argmax(jnp.where(is_there, x, -jnp.inf), 1) for x in (cosine, teacher)]
        return self.temperature**2 * jnp.mean(divergence), {"agreement": jnp.mean(best[0] == best[1])}
