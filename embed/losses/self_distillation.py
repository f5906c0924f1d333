"""Cross-entropy between a teacher's and a student's assignments to prototypes, for class tokens (DINO) and patches (iBOT).

    L = - sum_c p_c log q_c,   p = softmax((z_teacher - centre) / tau_teacher),   q = softmax(z_student / tau_student)

z are the cosines of a head's features with C prototypes. Source: arXiv:2104.14294 s3.1, arXiv:2111.07832 s3.1.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embed import ranges
from embed.errors import ConfigError
from embed.losses.chunks import chunked_sums
from embed.ranges import OpenShare, Positive

_MAX_LOGITS = 1 << 24  # values of one chunk


@dataclasses.dataclass(frozen=True)
class Temperatures:
    """How sharp assignments are. The teacher's temperature rises in even steps over `warmup_steps`; DINO's values.

    TIPS publishes none of them: all are our choice.
    """

    student: Positive = 0.1
    teacher_start: Positive = 0.04
    teacher: Positive = 0.07
    warmup_steps: ranges.Natural = 0

    def __post_init__(self):
        ranges.check_fields(self)
        if not self.warmup_steps and self.teacher_start != type(self).teacher_start:
            raise ConfigError("Temperatures.teacher_start has an effect with warmup_steps above 0 only; leave it out")

    def teacher_at(self, step) -> Float[Array, ""]:
        """Returns the teacher's temperature at a step."""
        share = jnp.minimum(1.0, step / self.warmup_steps) if self.warmup_steps else jnp.float32(1.0)
        return self.teacher_start + share * (self.teacher - self.teacher_start)


@dataclasses.dataclass(frozen=True)
class Centre:
    """The moving mean of the teacher's logits, which keeps one prototype from taking everything."""

    momentum: OpenShare = 0.9

    def next(self, centre: Float[Array, " C"], sums: dict[str, Array]) -> Float[Array, " C"]:
        """Returns the centre after a batch with these `assignment_sums`; a batch without any item leaves it."""
        mean = sums["logits"] / jnp.maximum(sums["teacher_count"], 1.0)
        moved = self.momentum * centre + (1 - self.momentum) * mean
        return jnp.where(sums["teacher_count"] > 0, moved, centre)


def assignment_sums(
    student: Float[Array, "n F"],
    teacher: Float[Array, "n F"],
    weights: Float[Array, " n"],
    student_prototypes: Float[Array, "F C"],
    teacher_prototypes: Float[Array, "F C"],
    centre: Float[Array, " C"],
    student_temperature: float,
    teacher_temperature,
) -> dict[str, Array]:
    """Returns sums over n items: the cross-entropy in nats by `weights`, and of the teacher what watches for a collapse.

    "loss" and "count" are the weighted cross-entropy and the sum of the weights; "entropy" is the teacher's entropy by the same
    weights; "logits" [C] and "teacher_count" make the next centre. Features and prototypes have unit length. The teacher has no
    gradient. Items are taken in chunks (`chunks.chunked_sums`).
    """
    teacher, teacher_prototypes, centre = map(jax.lax.stop_gradient, (teacher, teacher_prototypes, centre))

    def sums_of(params, student, teacher, weights, is_real):
        student_prototypes, teacher_prototypes, centre = params
        logits = jnp.matmul(teacher, teacher_prototypes, precision="highest")
        log_p = jax.nn.log_softmax((logits - centre) / teacher_temperature)
        p = jnp.exp(log_p)
        q_logits = jnp.matmul(student, student_prototypes, precision="highest") / student_temperature
        log_q = jax.nn.log_softmax(q_logits)
        return {
            "loss": -jnp.sum(weights * jnp.sum(p * log_q, -1)),
            "count": jnp.sum(weights),
            "entropy": -jnp.sum(weights * jnp.sum(p * log_p, -1)),
            "logits": jnp.sum(logits * is_real[:, None], 0),
            "teacher_count": jnp.sum(is_real),
        }

    real = jnp.ones_like(weights, jnp.float32)
    params = (student_prototypes, teacher_prototypes, centre)
    return chunked_sums(sums_of, params, (student, teacher, weights, real), _MAX_LOGITS // centre.shape[0])


def mean_loss(sums: dict[str, Array], prototypes: int) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Returns the mean cross-entropy and {"entropy": the teacher's mean entropy, "below_uniform": ln C minus the loss}, in nats.

    A teacher that has collapsed to one prototype has entropy 0; one that tells nothing apart has ln C, and so has the loss.
    Without any item the loss is 0.
    """
    count = jnp.maximum(sums["count"], 1e-9)
    loss = sums["loss"] / count
    return loss, {"entropy": sums["entropy"] / count, "below_uniform": math.log(prototypes) - loss}
