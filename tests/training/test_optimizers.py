"""Schedules and optimisers against hand formulas; what is frozen, slowed down, not decayed and factored."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embed.errors import ConfigError
from embed.training.optimizers import adafactor, adamw, rate_of, schedule
from embed.trees import flatten


def at(rate, step: int) -> float:
    return float(rate(jnp.asarray(step)))


DECAYS = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 + (0.1 - 1) * done,
    "cosine": lambda done: 0.1 + (1 - 0.1) * 0.5 * (1 + np.cos(np.pi * done)),
    "rsqrt": lambda done: np.sqrt(20 / (20 + 80 * done)),
}


@pytest.mark.parametrize("decay", DECAYS)
def test_schedule_matches_the_formula(decay):
    final_ratio = 0.1 if decay in ("linear", "cosine") else 0.0
    rate = schedule(0.4, total_steps=100, warmup_steps=20, decay=decay, final_ratio=final_ratio)
    for step in (0, 1, 10, 19):
        assert at(rate, step) == pytest.approx(0.4 * step / 20, rel=1e-5)
    for step in (20, 21, 60, 99, 100):
        assert at(rate, step) == pytest.approx(0.4 * DECAYS[decay]((step - 20) / 80), rel=1e-5)


@pytest.mark.parametrize("decay", ["constant", "rsqrt"])
def test_an_end_that_a_decay_does_not_have_is_refused(decay):
    with pytest.raises(ConfigError, match=f"final_ratio = 0.1 has no effect with decay = '{decay}'"):
        schedule(0.4, total_steps=100, decay=decay, final_ratio=0.1)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_decay_stays_at_its_end(decay):
    assert at(schedule(0.4, 100, 20, decay, 0.25), 250) == pytest.approx(0.1, rel=1e-5)
    assert at(schedule(0.4, 100, 20, decay), 100) == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("decay", DECAYS)
def test_without_warm_up_it_starts_at_the_peak(decay):
    rate = schedule(0.3, total_steps=10, decay=decay)
    assert at(rate, 0) == pytest.approx(0.3, rel=1e-6)
    assert at(rate, 5) <= at(rate, 0)


@pytest.mark.parametrize("decay", DECAYS)
def test_all_warm_up(decay):
    assert at(schedule(0.3, total_steps=10, warmup_steps=10, decay=decay), 5) == pytest.approx(0.15, rel=1e-6)


def test_cosine_is_the_default():
    assert at(schedule(1.0, 10), 5) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("warmup", [-1, 11])
def test_warm_up_must_fit_the_run(warmup):
    with pytest.raises(ConfigError, match=f"warmup_steps = {warmup} must lie between 0 and total_steps = 10"):
        schedule(0.1, total_steps=10, warmup_steps=warmup)


def test_an_unknown_decay_is_refused():
    with pytest.raises(ConfigError, match="'cos'; known: constant, linear, cosine, rsqrt"):
        schedule(0.1, 10, decay="cos")


def tree(seed: int, size: float = 1.0):
    random = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape) * size, jnp.float32)  # noqa: E731
    return {
        "encoder": {"norm": {"scale": draw(4)}, "mlp": {"kernel": draw(4, 6)}},
        "head": {"kernel": draw(6, 3), "bias": draw(3)},
    }


def run(optimizer, params, gradients):
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def numpy_adamw(params, gradients, rates, b1, b2, eps, decay, most):
    """Returns the parameters after AdamW (arXiv:1711.05101) with global-norm clipping, in float64."""
    p, gradients = (
        [{k: np.asarray(v, np.float64) for k, v in flatten(t).items()} for t in ts] for ts in ([params], gradients)
    )
    p = p[0]
    m, v = ({k: np.zeros_like(x) for k, x in p.items()} for _ in range(2))
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        norm = np.sqrt(sum((x**2).sum() for x in g.values()))
        g = {k: x * min(1.0, most / norm) if most else x for k, x in g.items()}
        for k in p:
            m[k] = b1 * m[k] + (1 - b1) * g[k]
            v[k] = b2 * v[k] + (1 - b2) * g[k] ** 2
            step = m[k] / (1 - b1**t) / (np.sqrt(v[k] / (1 - b2**t)) + eps)
            step = step + (0.0 if k.endswith(("scale", "bias")) else decay * p[k])
            p[k] = p[k] - rate * step
    return p


def assert_close(found, expected):
    for path, x in flatten(found).items():
        np.testing.assert_allclose(x, expected[path], rtol=2e-5, atol=2e-6, err_msg=path)


@pytest.mark.parametrize("most", [None, 1.0, 1e6])
@pytest.mark.parametrize("steps", [1, 3])
def test_adamw_matches_numpy(steps, most):
    params, gradients = tree(0), [tree(k + 1, 10.0**k) for k in range(steps)]
    optimizer = adamw(0.01, b1=0.8, b2=0.9, eps=1e-3, weight_decay=0.5, max_grad_norm=most)
    found, _ = run(optimizer, params, gradients)
    assert_close(found, numpy_adamw(params, gradients, [0.01] * steps, 0.8, 0.9, 1e-3, 0.5, most))


def test_adamw_follows_its_schedule():
    params, gradients = tree(0), [tree(k + 1) for k in range(4)]
    rate = schedule(0.1, total_steps=4, warmup_steps=2, decay="linear")
    found, _ = run(adamw(rate, eps=1e-3, max_grad_norm=None), params, gradients)
    assert_close(found, numpy_adamw(params, gradients, [0, 0.05, 0.1, 0.05], 0.9, 0.999, 1e-3, 0, None))


def test_scales_and_biases_are_not_decayed():
    params = tree(0)
    found, _ = run(adamw(0.1, weight_decay=0.5), params, [jax.tree.map(jnp.zeros_like, params)])
    for path, x in flatten(found).items():
        kept = 1.0 if path.endswith(("scale", "bias")) else 0.95
        np.testing.assert_allclose(x, np.asarray(flatten(params)[path]) * kept, rtol=1e-6, err_msg=path)


def test_what_no_gradient_moves_is_not_decayed():
    """Means and deviations that a tower of images applies are constants of its checkpoint."""
    params = {"image": {"encoder": {"mean": jnp.ones(3), "inverse_deviation": jnp.ones(3), "meaning": jnp.ones(3)}}}
    found, _ = run(adamw(0.1, weight_decay=0.5), params, [jax.tree.map(jnp.zeros_like, params)])
    values = {path.rpartition("/")[2]: float(x[0]) for path, x in flatten(found).items()}
    assert values == {"mean": 1, "inverse_deviation": 1, "meaning": pytest.approx(0.95)}


def moments(state) -> dict[str, tuple]:
    return {path: x.shape for path, x in flatten(state).items() if x.ndim}


@pytest.mark.parametrize("make", [adamw, adafactor])
def test_frozen_parameters_stay_bit_identical_and_take_no_memory(make):
    params, gradients = tree(0), [tree(k + 1) for k in range(3)]
    optimizer = make(0.1, weight_decay=0.1, frozen=("^encoder/", "bias$"))
    found, state = run(optimizer, params, gradients)
    before, after = flatten(params), flatten(found)
    for path in before:
        same = np.array_equal(np.asarray(before[path]).view(np.uint32), np.asarray(after[path]).view(np.uint32))
        assert same == (path != "head/kernel"), path
    assert moments(state)
    assert all("head/kernel" in path for path in moments(state))


@pytest.mark.parametrize("make", [adamw, adafactor])
def test_everything_may_be_frozen(make):
    params = tree(0)
    found, state = run(make(0.1, frozen=(".",)), params, [tree(1)])
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert not moments(state)


@pytest.mark.parametrize("make", [adamw, adafactor])
def test_rate_multipliers_scale_updates_by_the_first_pattern_found(make):
    params, gradient = tree(0), tree(1)

    def updates(**extra):
        optimizer = make(0.1, weight_decay=0.1, **extra)
        return flatten(optimizer.update(gradient, optimizer.init(params), params)[0])

    plain, scaled = updates(), updates(rate_multipliers={"norm": 0.0, "^encoder": 0.25, "kernel": 2.0})
    factors = {"encoder/norm/scale": 0.0, "encoder/mlp/kernel": 0.25, "head/kernel": 2.0, "head/bias": 1.0}
    for path, factor in factors.items():
        np.testing.assert_allclose(scaled[path], plain[path] * factor, rtol=1e-6, err_msg=path)


def test_rate_multipliers_and_frozen_together():
    params = tree(0)
    found, _ = run(adamw(0.1, frozen=("encoder",), rate_multipliers={"bias": 0.0}), params, [tree(1)])
    changed = [path for path, x in flatten(found).items() if not np.array_equal(x, flatten(params)[path])]
    assert changed == ["head/kernel"]


@pytest.mark.parametrize("make", [adamw, adafactor])
@pytest.mark.parametrize(
    "extra", [{"frozen": ("head", "decoder")}, {"rate_multipliers": {"head": 0.5, "decoder": 0.1}}], ids=str
)
def test_a_pattern_that_matches_nothing_is_refused_with_the_paths(make, extra):
    params = tree(0)
    with pytest.raises(
        ConfigError, match="'decoder' matches no parameter; the paths are like encoder/mlp/kernel"
    ) as found:
        run(make(0.1, **extra), params, [tree(1)])
    assert next(iter(extra)) in str(found.value)


def test_adafactor_reduces_a_quadratic():
    goal = np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32)
    params = {"kernel": jnp.zeros((16, 24)), "scale": jnp.zeros(24)}
    optimizer = adafactor(schedule(0.1, 100), min_dim_size_to_factor=8)

    def cost(p):
        return jnp.mean((p["kernel"] - goal) ** 2) + jnp.mean((p["scale"] - goal[0]) ** 2)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(cost)(params), state, params)
        return optax.apply_updates(params, updates), state

    state, first = optimizer.init(params), float(cost(params))
    for _ in range(100):
        params, state = jax.block_until_ready(step(params, state))
    assert float(cost(params)) < 0.01 * first


def test_adafactor_keeps_rows_and_columns_instead_of_the_matrix():
    params = {
        "layers": {"kernel": jnp.zeros((2, 32, 64))},
        "head": {"kernel": jnp.zeros((64, 32))},
        "scale": jnp.zeros(64),
    }
    state = adafactor(0.1, min_dim_size_to_factor=16).init(params)
    size = lambda t: sum(x.size for x in jax.tree.leaves(t))  # noqa: E731
    assert size(state) < 0.1 * size(params)
    assert size(adafactor(0.1, min_dim_size_to_factor=128).init(params)) >= size(params)
    shapes = {x.shape for x in jax.tree.leaves(state)}
    assert {(2, 32), (2, 64), (64,), (32,)} <= shapes
    assert (64, 32) not in shapes
    assert size(adamw(0.1).init(params)) > 2 * size(params) - 1


def test_adafactor_spares_scales_from_decay():
    params, zero = tree(0), jax.tree.map(jnp.zeros_like, tree(0))
    found, _ = run(adafactor(0.1, weight_decay=0.5), params, [zero])
    for path, x in flatten(found).items():
        undecayed = path.endswith(("scale", "bias"))
        assert np.allclose(x, flatten(params)[path], rtol=1e-6) == undecayed, path


@pytest.mark.slow
@pytest.mark.parametrize("make", [adamw, adafactor])
@pytest.mark.parametrize("frozen", [(), ("bias",)])
def test_the_learning_rate_that_is_reported_is_that_of_the_next_update(make, frozen):
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    rate = schedule(1e-2, total_steps=6, warmup_steps=2)
    optimizer = make(rate, frozen=frozen)
    state = optimizer.init(params)
    for step in range(5):
        assert float(rate_of(optimizer, state)) == pytest.approx(float(rate(step)), rel=1e-6)
        _, state = optimizer.update(params, state, params)
    constant = make(0.3, frozen=frozen)
    assert float(rate_of(constant, constant.init(params))) == pytest.approx(0.3)
    assert rate_of(optax.sgd(0.1), optax.sgd(0.1).init(params)) is None
