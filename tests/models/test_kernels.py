"""Every kernel of attention against loops in float64: values and gradients, windows, texts in a row, groups, capped logits.

The splash kernel runs in Pallas' interpreter here; tests/parity compiles it for a TPU. Of cuDNN's what stands around it is
tested, with XLA in its place.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from embed.errors import ConfigError
from embed.models import kernels
from embed.models.kernels import Cudnn, Reach, Splash, Xla, cross_attention_bias
from embed.sharding import AXES

LENGTH = 160  # no multiple of a block


TEXTS = [(70, 50, 30), (160,), (3, 129)]


FULL, CAUSAL, WINDOW, LEFT = Reach(), Reach(None, 0), Reach(20, 9), Reach(31, 0)


def segment_ids() -> np.ndarray:
    found = np.zeros((len(TEXTS), LENGTH), np.int32)
    for r, row in enumerate(TEXTS):
        found[r, : sum(row)] = np.repeat(np.arange(len(row)) + 1, row)
    return found


@functools.cache
def values(heads: int, keys: int, size: int):
    random = np.random.default_rng(1)
    shapes = [(heads, size), (keys, size), (keys, size), (heads, size)]
    return tuple(random.normal(size=(len(TEXTS), LENGTH, *s)).astype(np.float32) for s in shapes)


def reference(q, k, v, reach: Reach, scale: float, softcap: float | None) -> np.ndarray:
    """One query after the other, in float64; zero at padding."""
    own, out = segment_ids(), np.zeros(q.shape)
    group = q.shape[2] // k.shape[2]
    for b, i in zip(*np.nonzero(own)):
        left = 0 if reach.left is None else max(0, i - reach.left)
        right = LENGTH if reach.right is None else i + reach.right + 1
        seen = [j for j in range(left, min(right, LENGTH)) if own[b, j] == own[b, i]]
        for h in range(q.shape[2]):
            logits = np.float64(k[b, seen, h // group]) @ np.float64(q[b, i, h]) * scale
            logits = logits if softcap is None else softcap * np.tanh(logits / softcap)
            weights = np.exp(logits - logits.max())
            out[b, i, h] = weights / weights.sum() @ np.float64(v[b, seen, h // group])
    return out


# (reach, reach of local layers, heads of queries, of keys, and their size, cap of the logits)
CASES = [
    (FULL, None, (2, 2, 32), None),
    (CAUSAL, None, (2, 2, 32), 3.0),
    (FULL, WINDOW, (4, 2, 32), None),
    (CAUSAL, LEFT, (3, 1, 128), 3.0),
]


def close(kernel, found, expected, tolerance):
    own = segment_ids() > 0
    np.testing.assert_allclose(np.asarray(found)[own], np.asarray(expected)[own], atol=tolerance, rtol=tolerance)


# What the splash kernel would do in the first case it does in the third, for layers that are not local.
@pytest.mark.parametrize(
    ("make", "full", "local", "heads", "softcap"), [(Xla, *c) for c in CASES] + [(Splash, *c) for c in CASES[1:]]
)
def test_attention_equals_loops_in_float64(make, full, local, heads, softcap):
    q, k, v, _ = values(*heads)
    kernel = make(full, local, 0.3, jnp.dtype("float32"), softcap)
    run = jax.jit(lambda q, k, v, s, is_local: kernel.attend(q, k, v, kernel.prepare(s), is_local))
    for is_local in (False,) if local is None else (False, True):
        expected = reference(q, k, v, local if is_local else full, 0.3, softcap)
        close(kernel, run(q, k, v, segment_ids(), is_local), expected, 2e-5)


def gradients(kernel, q, k, v, weights, is_local=None):
    """Of a weighted sum of what comes out at real tokens; of both kinds of layers by default, which are compiled once."""

    def total(q, k, v, is_local):
        out = kernel.attend(q, k, v, kernel.prepare(jnp.asarray(segment_ids())), is_local)
        return jnp.sum(jnp.where((segment_ids() > 0)[..., None, None], out.astype(jnp.float32) * weights, 0))

    run = jax.jit(jax.grad(total, (0, 1, 2)))
    if is_local is not None:
        return run(q, k, v, is_local)
    return [g for kind in ((False,) if kernel.local is None else (False, True)) for g in run(q, k, v, kind)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("full", "local", "heads", "softcap"),
    CASES[1:4],
)
def test_the_kernels_have_one_gradient(full, local, heads, softcap):
    arguments = (full, local, 0.3, jnp.dtype("float32"), softcap)
    found, expected = (gradients(make(*arguments), *values(*heads)) for make in (Splash, Xla))
    assert len(found) == len(expected) == (3 if local is None else 6)
    for own, other in zip(found, expected):
        np.testing.assert_allclose(own, other, atol=2e-5, rtol=1e-4)


def test_the_gradient_is_that_of_the_loops():
    q, k, v, weights = values(2, 1, 4)
    kernel = Xla(FULL, WINDOW, 0.3, jnp.dtype("float32"), 3.0)
    found = gradients(kernel, q, k, v, weights, True)
    random = np.random.default_rng(3)
    directions = [random.normal(size=x.shape) for x in (q, k, v)]
    total = lambda e: np.sum(  # noqa: E731
        reference(*(x + e * d for x, d in zip((q, k, v), directions)), WINDOW, 0.3, 3.0) * weights
    )
    slope = (total(1e-4) - total(-1e-4)) / 2e-4
    assert sum(np.sum(g * d) for g, d in zip(found, directions)) == pytest.approx(slope, rel=1e-3)


@functools.cache
def windowed_gradients():
    return gradients(Xla(WINDOW, None, 0.25, jnp.dtype("float32")), *values(2, 1, 32))


@pytest.mark.slow
@pytest.mark.parametrize("make", [Xla, Splash])
def test_bfloat16_is_near(make):
    q, k, v, weights = values(2, 1, 32)
    half = make(WINDOW, None, 0.25, jnp.dtype("bfloat16"))
    run = jax.jit(lambda q, k, v, s: half.attend(q, k, v, half.prepare(s), False))
    out = run(*(jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)), segment_ids())
    assert out.dtype == jnp.bfloat16
    close(half, out.astype(jnp.float32), reference(q, k, v, WINDOW, 0.25, None), 3e-2)
    for own, other in zip(gradients(half, q, k, v, weights), windowed_gradients()):
        assert np.linalg.norm(own - other) < 0.02 * np.linalg.norm(other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "heads"),
    [
        ((4, 1, 1), (4, 4, 32)),
        ((1, 1, 4), (4, 4, 32)),
        ((1, 1, 4), (4, 1, 32)),
        ((1, 2, 2), (4, 2, 32)),
        ((1, 2, 2), (4, 1, 32)),
    ],
)
def test_splash_runs_on_every_device_for_its_own_texts_and_heads(shape, heads):
    if len(jax.devices()) < 4:
        pytest.skip("needs simulated devices")
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 3)
    q, k, v, weights = (np.concatenate([x, x[:1]]) for x in values(*heads))
    own = jnp.asarray(np.concatenate([segment_ids(), segment_ids()[:1]]))
    kernel = Splash(FULL, WINDOW, 0.3, jnp.dtype("float32"))

    def total(q, k, v):
        out = kernel.attend(q, k, v, kernel.prepare(own), True)
        return jnp.sum(jnp.where((own > 0)[..., None, None], out * weights, 0)), out

    run = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))
    (_, out), grads = run(q, k, v)
    with jax.set_mesh(mesh):
        (_, sharded), sharded_grads = jax.block_until_ready(run(q, k, v))
    for a, b in zip((out, *grads), (sharded, *sharded_grads)):
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5)


def test_around_cudnn_scale_groups_and_mask_are_right():
    q, k, v, _ = values(4, 2, 32)
    kernel = Cudnn(FULL, WINDOW, 0.3, jnp.dtype("float32"), implementation="xla")
    run = jax.jit(lambda q, k, v, s, is_local: kernel.attend(q, k, v, kernel.prepare(s), is_local))
    for is_local in (True, False):
        out = run(q, k, v, segment_ids(), is_local)
        close(kernel, out, reference(q, k, v, WINDOW if is_local else FULL, 0.3, None), 2e-5)


def chosen(name="auto", length=256, dtype="bfloat16", head_dim=64, softcap=None):
    return type(kernels.choose(name, head_dim, length, FULL, WINDOW, 0.1, jnp.dtype(dtype), softcap))


@pytest.mark.parametrize(
    ("platform", "given", "kernel"),
    [
        ("cpu", {}, Xla),
        ("tpu", {}, Splash),
        ("tpu", {"length": 64}, Xla),
        ("tpu", {"name": "xla"}, Xla),
        ("cpu", {"name": "splash"}, Splash),
        ("gpu", {}, Cudnn),
        ("gpu", {"dtype": "float32"}, Xla),
        ("gpu", {"softcap": 50.0}, Xla),
        ("gpu", {"head_dim": 256}, Xla),
        ("gpu", {"head_dim": 36}, Xla),
        ("gpu", {"length": 63}, Xla),
        ("gpu", {"name": "xla"}, Xla),
        ("gpu", {"name": "cudnn"}, Cudnn),
    ],
)
def test_the_platform_has_its_kernel_where_that_can_run(monkeypatch, platform, given, kernel):
    monkeypatch.setattr(kernels, "platform", lambda: platform)
    assert chosen(**given) is kernel


def test_hopper_takes_larger_heads(monkeypatch):
    monkeypatch.setattr(kernels, "platform", lambda: "gpu")
    monkeypatch.setattr(kernels, "_is_hopper", lambda: True)
    assert chosen(head_dim=256) is Cudnn


@pytest.mark.parametrize(
    ("platform", "given", "message"),
    [
        ("cpu", {"name": "flash"}, "attention 'flash'.*splash"),
        ("cpu", {"name": "cudnn"}, "needs a GPU, this is cpu"),
        ("gpu", {"name": "cudnn", "dtype": "float32"}, "computes in bfloat16, not float32"),
        ("gpu", {"name": "cudnn", "softcap": 50.0}, "does not cap logits"),
        ("gpu", {"name": "cudnn", "head_dim": 256}, "multiples of 8 up to 128"),
    ],
)
def test_a_kernel_that_cannot_be_is_refused(monkeypatch, platform, given, message):
    monkeypatch.setattr(kernels, "platform", lambda: platform)
    with pytest.raises(ConfigError, match=message):
        chosen(**given)


def test_a_decoder_sees_the_real_tokens_of_its_own_text():
    texts, context = np.array([[1, 1, 2, 0]]), np.array([[1, 2, 2, 0, 0]])
    found = np.asarray(cross_attention_bias(texts, context))[0, 0, 0] == 0
    assert found.tolist() == [[t == c and c > 0 for c in context[0]] for t in texts[0]]
    mask = np.array([[True, True, False], [True, False, False]])
    found = np.asarray(cross_attention_bias(np.ones((2, 4), bool), mask))[:, 0, 0] == 0
    assert found.tolist() == [[row.tolist()] * 4 for row in mask]
