"""Positions within texts, rotary angles against numpy, and maps into attention that are one parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_transformer import Layer, Numpy, rms_norm, rotated

from embed.models import layout
from embed.models.attention import Attention, Heads, rotary_table, rotate, segment_positions
from embed.models.kernels import Reach, Xla
from embed.models.layers import Norm


def test_positions_are_counted_within_each_text_and_zero_at_padding():
    rows = [[1, 1, 1, 2, 3, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0], [5, 2, 2, 0, 7, 7, 7, 0]]
    assert jax.jit(segment_positions)(np.array(rows)).tolist() == [
        [0, 1, 2, 0, 0, 1, 0, 0],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [0] * 8,
        [0, 0, 1, 0, 0, 1, 2, 0],
    ]


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_angles_of_rotary_positions(scale):
    positions, size, base = np.array([0, 1, 7, 2000]), 6, 10_000.0
    cosine, sine = np.asarray(jax.jit(lambda p: rotary_table(p, size, base, scale))(positions))
    assert cosine.shape == sine.shape == (4, size // 2)
    for row, position in enumerate(positions):
        for i in range(size // 2):
            angle = position / scale / base ** (2 * i / size)
            assert cosine[row, i] == pytest.approx(np.cos(angle), abs=2e-4)
            assert sine[row, i] == pytest.approx(np.sin(angle), abs=2e-4)


def test_the_halves_of_a_head_turn_together():
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 6)).astype(np.float32)
    own = np.array([[0, 1, 2, 3, 4], [0, 1, 0, 1, 2]])  # every row may have positions of its own
    turn = jax.jit(lambda *positions: [rotate(x, rotary_table(p, 6, 100.0)) for p in positions])
    together, apart = map(np.asarray, turn(np.arange(5), own))
    for b in range(2):
        for t in range(5):
            for h in range(3):
                np.testing.assert_allclose(together[b, t, h], rotated(x[b, t, h], t, 100.0), atol=1e-5)
                np.testing.assert_allclose(apart[b, t, h], rotated(x[b, t, h], int(own[b, t]), 100.0), atol=1e-5)


WIDTH = 12
NORM = Norm("rms", 1e-6)
CASES = {
    "grouped, with norms": (Heads(4, 2, 6, 0.3, query_key_norm=NORM), 100.0),
    "biases, no positions": (Heads(3, 3, 4, 0.5, input_bias=True, output_bias=True), None),
    "one key for all": (Heads(3, 1, 4, 0.5, input_bias=True), 100.0),
    "normed values": (Heads(4, 2, 6, 1.0, query_key_norm=NORM, value_norm_eps=1e-6), 100.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_maps_apart_and_together_give_what_numpy_gives(case):
    heads, base = CASES[case]
    random = np.random.default_rng(1)
    x = random.normal(size=(2, 7, WIDTH)).astype(np.float32)
    kernel = Xla(Reach(), None, heads.query_scale, jnp.dtype("float32"))
    prepared = kernel.prepare(jnp.ones((2, 7), bool))
    rotary = None if base is None else rotary_table(jnp.arange(7), heads.head_dim, base)
    attention = Attention(WIDTH, heads, kernel)
    drawn = lambda *shape: (random.normal(size=shape) * 0.4).astype(np.float32)  # noqa: E731
    counts = {"query": heads.num_heads, "key": heads.num_kv_heads, "value": heads.num_kv_heads}
    params = {name: {"kernel": drawn(WIDTH, n, heads.head_dim)} for name, n in counts.items()}
    params["output"] = {"kernel": drawn(heads.num_heads, heads.head_dim, WIDTH)}
    if heads.input_bias:
        params = {n: {**p, "bias": drawn(counts[n], heads.head_dim)} if n in counts else p for n, p in params.items()}
    if heads.output_bias:
        params["output"]["bias"] = drawn(WIDTH)
    if heads.query_key_norm:
        params |= {"query_norm": {"scale": drawn(heads.head_dim)}, "key_norm": {"scale": drawn(heads.head_dim)}}
    stacked = jax.tree.map(lambda a: a[None], {"attention": params})
    fused = layout.apart({"encoder": {"stack": {"layers": stacked}}})["encoder"]["stack"]["layer_0"]["attention"]
    run = jax.jit(lambda *params: [attention.apply({"params": p}, x, prepared, False, rotary) for p in params])
    apart, together = run(params, fused)
    numpy = Numpy(rms_norm(0.0), "", None, heads.query_scale, [], normed_values=heads.value_norm_eps is not None)
    exact = jax.tree.map(np.float64, params)
    for row in range(2):
        expected = numpy.attention(np.float64(x[row]), exact, Layer(base=base))
        np.testing.assert_allclose(apart[row], expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(together[row], expected, rtol=0, atol=1e-5)
