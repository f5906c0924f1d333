"""UDON: a student and one teacher for each domain learn together on one backbone. Source: arXiv:2406.08332 and its code."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from embed import ranges
from embed.errors import ConfigError
from embed.losses.relational import Relational
from embed.ranges import Count, Positive
from embed.types import Metrics, Params
from embed.vectors import normalize


@dataclasses.dataclass(frozen=True)
class Udon:
    """The mean of four terms over a batch of unit vectors: `s` of the student, `t` of the teacher of each item's domain.

        student_classes:  mean_i -log softmax_c(scale * s_i . w_c)[class of i]
        teacher_classes:  mean_i -log softmax_c(scale * t_i . v_c)[class of i]
        logits:           mean_i KL(softmax_c(t_i . v_c / temperature) || softmax_c(s_i . w_c / temperature))
        relations:        relations_weight * mean over i != j of (s_i . s_j - t_i . t_j)^2

    w_c and v_c are learned class vectors at unit length, and c runs over the classes of the domain of i. In the last two terms no
    gradient reaches t or v. The published code sums the squares over j and multiplies by a quarter of its devices, each of which
    compares its own items: at its batch of 128 that is 32 times the mean. `classes_per_domain` are the numbers of classes of the
    domains, in the order of the list of classes.
    """

    classes_per_domain: Sequence[Count]
    student_dim: Count = 64
    teacher_dim: Count = 256
    scale: Positive = 16.0
    temperature: Positive = 0.1
    relations_weight: Positive = 32.0

    def __post_init__(self):
        ranges.check_fields(self)
        if not self.classes_per_domain:
            raise ConfigError("Udon.classes_per_domain is empty; give the number of classes of each domain")

    @property
    def num_classes(self) -> int:
        """The classes of all domains."""
        return sum(self.classes_per_domain)

    def domain_of(self, classes: Int[Array, " B"]) -> Int[Array, " B"]:
        """Returns the number of the domain that a class belongs to."""
        return jnp.searchsorted(jnp.asarray(np.cumsum(self.classes_per_domain)), classes, side="right")

    def init(self, key) -> Params:
        """Returns the vectors of the classes, float32 [C, E] of the student and [C, T] of the teachers."""
        keys = jax.random.split(key)
        drawn = lambda key, dim: jax.random.normal(key, (self.num_classes, dim)) / dim**0.5  # noqa: E731
        return {"student": drawn(keys[0], self.student_dim), "teacher": drawn(keys[1], self.teacher_dim)}

    def axes(self) -> Params:
        """Returns the logical axes of `init`."""
        return dict.fromkeys(("student", "teacher"), ("vocab", "embedding"))

    def __call__(
        self,
        params: Params,
        student: Float[Array, "B E"],
        teacher: Float[Array, "B T"],
        classes: Int[Array, " B"],
        ids: Array | None = None,
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss and what to report. Items that are the same image (`ids`) are not related to each other."""
        of_class = np.repeat(np.arange(len(self.classes_per_domain)), self.classes_per_domain)
        inside = self.domain_of(classes)[:, None] == of_class[None]
        cosines = {
            name: jnp.where(inside, jnp.einsum("be,ce->bc", x, normalize(params[name])), -jnp.inf)
            for name, x in (("student", student), ("teacher", teacher))
        }
        terms = {f"{name}_classes": self._cross_entropy(x, classes) for name, x in cosines.items()}
        terms["logits"] = self._divergence(jax.lax.stop_gradient(cosines["teacher"]), cosines["student"], inside)
        relations, watched = Relational("cosines")(student, teacher, ids)
        terms["relations"] = self.relations_weight * relations
        right = {f"{name}_accuracy": jnp.mean(jnp.argmax(x, -1) == classes) for name, x in cosines.items()}
        return sum(terms.values()) / len(terms), {**terms, **watched, **right}

    def _cross_entropy(self, cosines: Array, classes: Array) -> Array:
        log_shares = jax.nn.log_softmax(self.scale * cosines, -1)
        return -jnp.mean(jnp.take_along_axis(log_shares, classes[:, None], 1))

    def _divergence(self, teacher: Array, student: Array, inside: Array) -> Array:
        log_p, log_q = (jax.nn.log_softmax(x / self.temperature, -1) for x in (teacher, student))
        difference = jnp.where(inside, log_p, 0.0) - jnp.where(inside, log_q, 0.0)
        return jnp.mean(jnp.sum(jnp.where(inside, jnp.exp(log_p) * difference, 0.0), -1))
