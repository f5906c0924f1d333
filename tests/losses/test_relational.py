"""Distillation of distances: the golden value, loops in float64, equal images, and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed.losses.relational import Relational

TEACHER = [[1, 0, 0, 0], [0, 1, 0, 0], [0.6, 0.8, 0, 0]]  # the golden vectors of the contrastive loss: queries
STUDENT = [[0.8, 0.6, 0, 0], [0, 0.6, 0.8, 0], [0.6, 0, 0.8, 0]]  # and targets


def drawn(seed, shape):
    x = np.random.default_rng(seed).normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def by_loops(kind, student, teacher, same, t_teacher=0.1, t_student=0.1):
    """Returns the loss in float64, written from its equation."""
    n = len(student)
    distance = lambda x, i, j: float(np.sum((x[i] - x[j]) ** 2))  # noqa: E731
    pairs = [(i, j) for i in range(n) for j in range(n) if not same[i][j]]
    if kind == "vectors":
        return np.mean([np.sum((s - t) ** 2) for s, t in zip(student, teacher)])
    if kind == "cosines":
        return np.mean([(student[i] @ student[j] - teacher[i] @ teacher[j]) ** 2 for i, j in pairs])
    if kind == "distances":
        return np.mean([(distance(student, i, j) - distance(teacher, i, j)) ** 2 for i, j in pairs])
    if kind == "relative_distances":
        roots = [np.array([np.sqrt(distance(x, i, j)) for i, j in pairs]) for x in (student, teacher)]
        return np.mean((roots[0] / roots[0].mean() - roots[1] / roots[1].mean()) ** 2)
    rows = []
    for i in range(n):
        others = [j for j in range(n) if not same[i][j]]
        p, q = (
            np.exp([-distance(x, i, j) / t for j in others]) for x, t in ((teacher, t_teacher), (student, t_student))
        )
        p, q = p / p.sum(), q / q.sum()
        rows.append(np.sum(p * np.log(p / q)))
    return np.mean(rows)


def test_the_golden_value():
    """Worked out by hand at temperature 1: rows of 0.09483129, 0.09324381 and 0.0007727."""
    loss = Relational(teacher_temperature=1.0, student_temperature=1.0)
    with jax.enable_x64(True):
        value, _ = loss(jnp.asarray(STUDENT, jnp.float64), jnp.asarray(TEACHER, jnp.float64))
    assert float(value) == pytest.approx(0.06294926534393983, rel=0, abs=1e-12)


@pytest.mark.parametrize("kind", ["neighbours", "distances", "relative_distances", "cosines", "vectors"])
@pytest.mark.parametrize("with_ids", [False, True])
def test_the_loss_is_that_of_its_equation(kind, with_ids):
    student, teacher = drawn(0, (7, 5)), drawn(1, (7, 5 if kind == "vectors" else 9))
    ids = np.array([[1, 2], [3, 4], [1, 2], [5, 6], [7, 8], [5, 7], [9, 9]], np.uint32)
    same = np.eye(7, dtype=bool) if not with_ids else (ids[:, None] == ids[None]).all(-1)
    value, metrics = Relational(kind)(
        jnp.float32(student), jnp.float32(teacher) * 3, jnp.asarray(ids) if with_ids else None
    )
    assert float(value) == pytest.approx(by_loops(kind, student, teacher, same), rel=2e-5)
    assert 0 <= float(metrics["nearest_agreement"]) <= 1


@pytest.mark.parametrize("kind", ["neighbours", "distances", "relative_distances", "cosines", "vectors"])
def test_gradients_are_finite_and_reach_the_student_alone(kind):
    student, teacher = jnp.float32(drawn(0, (6, 4))), jnp.float32(drawn(1, (6, 4)))
    loss = lambda s, t: Relational(kind)(s, t)[0]  # noqa: E731
    of_student, of_teacher = jax.grad(loss, (0, 1))(student, teacher)
    assert np.isfinite(of_student).all() and np.abs(of_student).max() > 1e-4 and not np.any(of_teacher)
    same = jnp.ones((6, 4)) / 2
    assert np.isfinite(jax.grad(loss)(same, teacher)).all()


@pytest.mark.slow
def test_a_student_that_agrees_has_no_loss():
    x = jnp.float32(drawn(2, (8, 6)))
    for kind in ("neighbours", "distances", "relative_distances", "cosines", "vectors"):
        value, metrics = Relational(kind)(x, x)
        assert float(value) == pytest.approx(0, abs=1e-5) and float(metrics["nearest_agreement"]) == 1


@pytest.mark.slow
def test_images_that_are_all_the_same_say_nothing():
    x, ids = jnp.float32(drawn(0, (3, 4))), jnp.zeros((3, 2), jnp.uint32)
    for kind in ("neighbours", "distances", "relative_distances", "cosines"):
        value, gradient = jax.value_and_grad(lambda s, kind=kind: Relational(kind)(s, x[::-1], ids)[0])(x)
        assert float(value) == 0 and not np.any(gradient)
