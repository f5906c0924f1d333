"""Assignments to prototypes against loops in float64: loss, entropy, the centre, chunks, and what has no gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed.errors import ConfigError
from embed.losses import self_distillation
from embed.losses.self_distillation import Centre, Temperatures, assignment_sums, mean_loss

N, F, C = 7, 4, 9


def drawn(seed=0):
    random = np.random.default_rng(seed)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    student, teacher = unit(random.normal(size=(2, N, F)))
    first, second = (unit(random.normal(size=(C, F))).T for _ in range(2))
    return student, teacher, random.uniform(size=N), first, second, random.normal(size=C) * 0.1


def by_loops(student, teacher, weights, student_prototypes, teacher_prototypes, centre, student_t, teacher_t):
    sums = {"loss": 0.0, "entropy": 0.0, "count": weights.sum(), "logits": np.zeros(C), "teacher_count": N}
    for i in range(N):
        z = teacher[i] @ teacher_prototypes
        p = np.exp((z - centre) / teacher_t)
        p /= p.sum()
        q = np.exp(student[i] @ student_prototypes / student_t)
        q /= q.sum()
        sums["loss"] -= weights[i] * np.sum(p * np.log(q))
        sums["entropy"] -= weights[i] * np.sum(p * np.log(p))
        sums["logits"] += z
    return sums


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_sums_are_those_of_loops_in_chunks_of_any_size(chunk, monkeypatch):
    monkeypatch.setattr(self_distillation, "_MAX_LOGITS", chunk * C)
    with jax.enable_x64(True):
        arrays = drawn()
        sums = jax.jit(lambda *x: assignment_sums(*x, 0.1, 0.04))(*map(jnp.asarray, arrays))
        for name, value in by_loops(*arrays, 0.1, 0.04).items():
            np.testing.assert_allclose(sums[name], value, rtol=1e-10, err_msg=name)


def test_the_gradient_is_the_students_and_that_of_finite_differences():
    with jax.enable_x64(True):
        arrays = drawn()
        value = jax.jit(lambda *x: assignment_sums(*x, 0.1, 0.04)["loss"])
        gradients = jax.jit(jax.grad(value, argnums=(0, 1, 3, 4, 5)))(*map(jnp.asarray, arrays))
        assert all(np.all(np.asarray(gradients[i]) == 0) for i in (1, 3, 4))  # teacher, its prototypes, centre
        for number, gradient in ((0, gradients[0]), (3, gradients[2])):
            step = np.zeros_like(arrays[number])
            step[2, 1] = 1e-6
            up, down = ([x + sign * step if i == number else x for i, x in enumerate(arrays)] for sign in (1, -1))
            slope = (by_loops(*up, 0.1, 0.04)["loss"] - by_loops(*down, 0.1, 0.04)["loss"]) / 2e-6
            assert float(gradient[2, 1]) == pytest.approx(slope, rel=1e-5)


def test_items_of_weight_zero_count_for_the_centre_alone():
    student, teacher, weights, *others = drawn()
    weights = np.where(np.arange(N) < 3, weights, 0.0)
    sums = assignment_sums(*map(jnp.asarray, (student, teacher, weights, *others)), 0.1, 0.04)
    other = assignment_sums(
        *map(jnp.asarray, (student * (np.arange(N) < 3)[:, None], teacher, weights, *others)), 0.1, 0.04
    )
    assert float(sums["loss"]) == pytest.approx(float(other["loss"]), rel=1e-6)
    assert float(sums["teacher_count"]) == N
    nothing = assignment_sums(*map(jnp.asarray, (student, teacher, 0 * weights, *others)), 0.1, 0.04)
    loss, metrics = mean_loss(nothing, C)
    assert float(loss) == 0 and np.isfinite([float(x) for x in metrics.values()]).all()


def test_a_collapse_shows():
    """One prototype for all: entropy 0. No difference between prototypes: entropy and loss of ln C."""
    same = np.tile(np.eye(F)[0], (N, 1))
    apart = np.stack([np.eye(F)[0], *(-np.eye(F)[0] for _ in range(C - 1))], 1)
    flat = np.tile(np.eye(F)[1][:, None], (1, C))
    weights, centre = np.ones(N), np.zeros(C)
    one = assignment_sums(*map(jnp.asarray, (same, same, weights, apart, apart, centre)), 0.1, 0.04)
    assert float(mean_loss(one, C)[1]["entropy"]) == pytest.approx(0, abs=1e-6)
    none = assignment_sums(*map(jnp.asarray, (same, same, weights, flat, flat, centre)), 0.1, 0.04)
    loss, metrics = mean_loss(none, C)
    assert float(loss) == pytest.approx(np.log(C), rel=1e-6) and float(metrics["below_uniform"]) == pytest.approx(
        0, abs=1e-5
    )
    assert float(metrics["entropy"]) == pytest.approx(np.log(C), rel=1e-6)


def test_the_centre_moves_to_the_mean_and_stays_without_items():
    sums = {"logits": jnp.arange(C) * 4.0, "teacher_count": jnp.float32(4)}
    np.testing.assert_allclose(Centre(0.9).next(jnp.ones(C), sums), 0.9 + 0.1 * np.arange(C), rtol=1e-6)
    empty = {"logits": jnp.zeros(C), "teacher_count": jnp.float32(0)}
    np.testing.assert_array_equal(Centre(0.9).next(jnp.ones(C), empty), np.ones(C))


def test_the_teachers_temperature_rises_over_the_warm_up():
    rising = Temperatures(warmup_steps=10)
    assert [float(rising.teacher_at(step)) for step in (0, 5, 10, 99)] == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert float(Temperatures().teacher_at(0)) == pytest.approx(0.07)
    with pytest.raises(ConfigError, match="Temperatures.student = 0"):
        Temperatures(student=0.0)
    with pytest.raises(ConfigError, match="Temperatures.teacher_start has an effect with warmup_steps above 0 only"):
        Temperatures(teacher_start=0.05)
