"""The pieces of every transformer against numpy in float64, and names that are unknown."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed.errors import ConfigError
from embed.models.layers import MLP, Embedding, Linear, Norm, activation, compute_dtype, fan_in_normal, product

EQUATIONS = [
    ("BLD,DHK->BLHK", (2, 3, 8), (8, 2, 4)),
    ("BLHK,HKD->BLD", (2, 3, 2, 4), (2, 4, 8)),
    ("BGRQK,BGSK->BGRQS", (2, 1, 2, 3, 4), (2, 1, 5, 4)),
]


@pytest.mark.parametrize(("equation", "left", "right"), EQUATIONS)
def test_rounded_products_have_the_exact_gradient_of_rounded_operands(equation, left, right):
    random = np.random.default_rng(4)
    x, kernel = (random.normal(size=s).astype(np.float32) for s in (left, right))
    rounded = lambda a: np.asarray(jnp.asarray(a, jnp.bfloat16), np.float64)  # noqa: E731
    out = product(equation, x, kernel, jnp.dtype("bfloat16"))
    np.testing.assert_allclose(out, np.einsum(equation, rounded(x), rounded(kernel)), rtol=1e-5, atol=1e-5)
    weights = random.normal(size=out.shape).astype(np.float32)
    total = lambda x, kernel: jnp.sum(product(equation, x, kernel, jnp.dtype("bfloat16")) * weights)  # noqa: E731
    found = jax.grad(total, (0, 1))(x, kernel)
    (a, b), c = equation.split("->")[0].split(","), equation.split("->")[1]
    expected = (
        np.einsum(f"{c},{b}->{a}", rounded(weights), rounded(kernel)),
        np.einsum(f"{a},{c}->{b}", rounded(x), rounded(weights)),
    )
    for own, other in zip(found, expected):
        assert own.dtype == jnp.float32  # as the parameters, and not rounded again
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-5)


def applied(module, x, **params):
    """Returns a module's result, and the same of numpy: `params` are by the names of their modules."""
    params = {name: dict(p) if isinstance(p, dict) else p for name, p in params.items()}
    return np.asarray(module.apply({"params": params}, jnp.asarray(x)))


RANDOM = np.random.default_rng(0)
X = (RANDOM.normal(size=(2, 3, 8)) * 3 + 1).astype(np.float32)
SCALE, BIAS = RANDOM.normal(size=(2, 8)).astype(np.float32)


@pytest.mark.parametrize(("kind", "offset"), [("rms", 0.0), ("rms_offset", 1.0)])
def test_root_mean_square_norm(kind, offset):
    norm = Norm(kind, 0.5).make("norm")
    x = np.float64(X)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.5) * (offset + SCALE)
    np.testing.assert_allclose(applied(norm, X, scale=SCALE), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm(bias):
    norm = Norm("layer", 0.5, bias).make("norm")
    x = np.float64(X)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.5) * SCALE + BIAS * bias
    params = {"scale": SCALE, **({"bias": BIAS} if bias else {})}
    np.testing.assert_allclose(applied(norm, X, **params), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "start"), [("rms", 0.25), ("rms_offset", -0.75), ("layer", 0.25)])
def test_norms_start_with_their_gain(kind, start):
    params = nn.unbox(Norm(kind, 1e-6, bias=True).make("norm", gain=0.25).init(jax.random.key(0), X))["params"]
    assert np.all(params["scale"] == start)
    assert set(params) == ({"scale", "bias"} if kind == "layer" else {"scale"}) and np.all(params.get("bias", 0) == 0)


def test_norms_compute_in_float32():
    half = jnp.asarray(X, jnp.bfloat16)
    x = np.asarray(half, np.float64)
    deviation = np.sqrt(x.var(-1, keepdims=True) + 0.5)
    for kind, expected in (
        ("rms", x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.5)),
        ("layer", (x - x.mean(-1, keepdims=True)) / deviation),
    ):
        found = Norm(kind, 0.5).make("norm").apply({"params": {"scale": jnp.ones(8)}}, half)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("equation", "shape", "inputs", "size"),
    [("BLD,DHK->BLHK", (8, 2, 5), (0,), 8), ("BLHK,HKD->BLD", (2, 4, 7), (0, 1), 8)],
    ids=["one axis", "two axes"],
)
def test_a_linear_map_adds_a_bias_of_its_result(equation, shape, inputs, size):
    x = X if len(inputs) == 1 else X.reshape(2, 3, 2, 4)
    kernel = RANDOM.normal(size=shape).astype(np.float32)
    bias = RANDOM.normal(size=shape[len(inputs) :]).astype(np.float32)
    axes = tuple("abc"[: len(shape)])
    module = Linear(equation, shape, axes, input_axes=inputs, bias=True)
    expected = np.einsum(equation, np.float64(x), np.float64(kernel)) + bias
    np.testing.assert_allclose(applied(module, x, kernel=kernel, bias=bias), expected, rtol=1e-5, atol=1e-5)
    made = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    assert (made["kernel"].names, made["bias"].names) == (axes, axes[len(inputs) :])
    assert made["bias"].value.shape == bias.shape


def test_what_goes_into_the_residual_stream_is_not_rounded():
    kernel = RANDOM.normal(size=(8, 4)).astype(np.float32)
    for to_residual, dtype in ((True, jnp.float32), (False, jnp.bfloat16)):
        module = Linear("BLD,DE->BLE", (8, 4), ("a", "b"), dtype="bfloat16", to_residual=to_residual)
        assert module.apply({"params": {"kernel": kernel}}, X).dtype == dtype


def test_kernels_start_with_the_deviation_of_their_inputs():
    for axes, fan_in in (((0,), 40), ((0, 1), 1200), ((2,), 50)):
        drawn = np.asarray(fan_in_normal(*axes)(jax.random.key(0), (40, 30, 50)))
        assert drawn.std() * fan_in**0.5 == pytest.approx(1.0, rel=0.02)
        # A normal that is cut at two of its deviations.
        assert np.abs(drawn).max() * fan_in**0.5 <= 2 / 0.8796 and abs(drawn.mean()) * fan_in**0.5 < 0.02


def test_a_table_is_read_and_scaled():
    table, tokens = RANDOM.normal(size=(9, 4)).astype(np.float32), np.array([[0, 8, 3], [3, 3, 1]])
    for scale in (1.0, 2.5):
        found = applied(Embedding(9, 4, scale), tokens, table=table)
        np.testing.assert_allclose(found, table[tokens] * np.float32(scale), rtol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gated", [True, False])
def test_a_gated_and_a_plain_mlp(gated, bias):
    shapes = {"up": (8, 5), "down": (5, 8), **({"gate": (8, 5)} if gated else {})}
    params = {n: {"kernel": RANDOM.normal(size=s).astype(np.float32)} for n, s in shapes.items()}
    if bias:
        params = {n: {**p, "bias": RANDOM.normal(size=shapes[n][1]).astype(np.float32)} for n, p in params.items()}
    x = np.float64(X)
    add = lambda name, y: y @ params[name]["kernel"] + params[name].get("bias", 0)  # noqa: E731
    up = add("up", x)
    first = add("gate", x) if gated else up
    hidden = first / (1 + np.exp(-first)) * (up if gated else 1)
    found = applied(MLP(8, 5, "silu", gated, bias), X, **params)
    np.testing.assert_allclose(found, add("down", hidden), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("gelu", lambda x: x * 0.5 * (1 + math.erf(x / 2**0.5))),
        ("gelu_tanh", lambda x: 0.5 * x * (1 + math.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)))),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("relu", lambda x: max(x, 0.0)),
    ],
)
def test_activations_are_what_their_names_say(name, function):
    x = np.linspace(-5, 5, 41)
    found = activation(name)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, [function(v) for v in x], rtol=1e-5, atol=1e-6)


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="^activation 'gelu_tan'; did you mean 'gelu_tanh'"):
        activation("gelu_tan")
    assert compute_dtype("bfloat16") == jnp.bfloat16 and compute_dtype("float32") == jnp.float32
    with pytest.raises(ConfigError, match="^dtype 'float16' overflows .*; use 'bfloat16'$"):
        compute_dtype("float16")
    with pytest.raises(ConfigError, match="^dtype 'float64'; known: float32, bfloat16$"):
        compute_dtype("float64")
    with pytest.raises(KeyError):
        Norm("batch", 1e-6).make("norm")
