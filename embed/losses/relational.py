"""Distillation of what a teacher's embeddings say of a batch: its distances, or the vectors themselves.

A student that several specialists teach has another space than each of them. Distances within one domain may be compared where
vectors cannot. All items of a batch are of one domain, so that the distances mean one thing.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from embed import ranges
from embed.ranges import Positive
from embed.types import Metrics
from embed.vectors import normalize


def squared_distances(x: Float[Array, "B E"]) -> Float[Array, "B B"]:
    """Returns the squared distances of unit vectors to each other, 2 - 2 cos."""
    return jnp.maximum(2.0 - 2.0 * jnp.einsum("ie,je->ij", x, x), 0.0)


def log_neighbours(x: Float[Array, "B E"], temperature: float, others: Bool[Array, "B B"]) -> Float[Array, "B B"]:
    """Returns log softmax over j of -|x_i - x_j|^2 / temperature, among the `others` of i; -inf for the rest."""
    return jax.nn.log_softmax(jnp.where(others, -squared_distances(x) / temperature, -jnp.inf), axis=-1)


@dataclasses.dataclass(frozen=True)
class Relational:
    """How far a student's embeddings are from what a specialist says of the same batch.

    `kind` 'neighbours' is the KL divergence of the student's distribution over an item's neighbours from the specialist's, both a
    softmax of negative squared distances:

        P_ij = softmax_{j != i}(-|s_i - s_j|^2 / teacher_temperature),  Q_ij the same of the student;  L = mean_i KL(P_i || Q_i)

    'distances' is the squared difference of squared distances, 'relative_distances' the same after each side is divided by its mean
    distance, 'cosines' the squared difference of cosines; they are averaged over i != j. 'vectors' is the squared distance to the
    specialist's vector, which has the student's size. Items that are the same image (`ids`) are not compared with each other.

    Source: arXiv:2003.03701, abstract; the equation is our reading, as the paper's was not at hand. Absolute distances: Yu et al.,
    CVPR 2019; relative ones: arXiv:1904.05068; vectors: arXiv:1707.05929; cosines: arXiv:2406.08332.
    """

    kind: Literal["neighbours", "distances", "relative_distances", "cosines", "vectors"] = "neighbours"
    teacher_temperature: Positive = 0.1
    student_temperature: Positive = 0.1

    def __post_init__(self):
        ranges.check_fields(self)

    def __call__(
        self, student: Float[Array, "B E"], teacher: Float[Array, "B T"], ids: Array | None = None
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss of unit vectors `student` and what to report. Gradients reach the student alone."""
        teacher = jax.lax.stop_gradient(normalize(teacher))
        others = ~jnp.eye(len(student), dtype=bool) if ids is None else ~jnp.all(ids[:, None] == ids[None], -1)
        if self.kind == "vectors":
            value = jnp.mean(jnp.sum((student - teacher) ** 2, -1))
        elif self.kind == "neighbours":
            value = self._divergence(student, teacher, others)
        else:
            difference = self._relation(student, others) - self._relation(teacher, others)
            value = jnp.sum(jnp.where(others, difference**2, 0.0)) / jnp.maximum(jnp.sum(others), 1)
        agreement = jnp.mean(_nearest(student, others) == _nearest(teacher, others))
        return value, {"nearest_agreement": agreement}

    def _divergence(self, student: Array, teacher: Array, others: Array) -> Array:
        log_p = log_neighbours(teacher, self.teacher_temperature, others)
        log_q = log_neighbours(student, self.student_temperature, others)
        # An item without others, as all are the same image, says nothing.
        terms = jnp.where(others, jnp.exp(log_p) * (log_p - jnp.where(others, log_q, 0.0)), 0.0)
        has_others = jnp.any(others, -1)
        rows = jnp.where(has_others, jnp.sum(jnp.where(has_others[:, None], terms, 0.0), -1), 0.0)
        return jnp.sum(rows) / jnp.maximum(jnp.sum(has_others), 1)

    def _relation(self, x: Array, others: Array) -> Array:
        """Returns what is compared of each pair."""
        if self.kind == "cosines":
            return jnp.einsum("ie,je->ij", x, x)
        distances = squared_distances(x)
        if self.kind == "distances":
            return distances
        roots = jnp.sqrt(jnp.where(others, distances, 1.0) + 1e-12)
        return roots / (jnp.sum(jnp.where(others, roots, 0.0)) / jnp.maximum(jnp.sum(others), 1))


def _nearest(x: Array, others: Array) -> Array:
    """Returns the nearest other item of each."""
    return jnp.argmin(jnp.where(others, squared_distances(x), jnp.inf), -1)
