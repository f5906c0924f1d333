"""Quantised arrays against ggml's own quantizers and loops in float64, and packed ones against the values they stand for."""

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed import quantized_arrays
from embed.errors import NumericError
from embed.quantized_arrays import Scheme, pack, quantize, rounded, unpack

Q4_0, Q8_0 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0
KINDS = {"Q4_0": (Q4_0, 4), "Q8_0": (Q8_0, 8)}
# (shape, inputs) as kernels and tables of ours lie
LAYOUTS = {
    "table": ((7, 64), (1,)),
    "up": ((3, 64, 10), (1,)),
    "query": ((2, 32, 3, 4), (1,)),
    "output": ((2, 4, 16, 5), (1, 2)),
    "projection": ((96, 6), (0,)),
}
SCHEMES = {"int4 blocks": (4, 32), "int8 blocks": (8, 32), "int4 channels": (4, None), "int8 channels": (8, None)}


def draw(shape, seed: int = 0) -> np.ndarray:
    """Returns values of very different magnitudes, with exact ties among the largest of some blocks."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape) * 10.0 ** random.integers(-3, 2, shape)
    flat = x.reshape(-1)
    flat[::37] = np.sign(flat[::37]) * 25.0
    return flat.reshape(shape).astype(np.float32)


def rows(x: np.ndarray, inputs) -> np.ndarray:
    """Returns the matrix [outputs, inputs] of an array."""
    outputs = [axis for axis in range(x.ndim) if axis not in inputs]
    count = int(np.prod([x.shape[axis] for axis in inputs]))
    return np.ascontiguousarray(x.transpose(*outputs, *inputs).reshape(-1, count))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_32_are_those_of_ggml_along_the_rows_of_the_matrix(kind, layout):
    (name, bits), (shape, inputs) = KINDS[kind], LAYOUTS[layout]
    x = draw(shape)
    ours = rows(rounded(x, Scheme(bits, 32, inputs)), inputs)
    theirs = gguf.quants.dequantize(gguf.quants.quantize(rows(x, inputs), name), name)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_quantised_values_become_a_gguf_file_without_loss(kind):
    name, bits = KINDS[kind]
    values = rounded(draw((500, 96)), Scheme(bits, 32, (1,)))
    theirs = gguf.quants.dequantize(gguf.quants.quantize(values, name), name)
    assert theirs.tobytes() == values.tobytes()


@pytest.mark.parametrize("bits", [4, 8])
def test_a_scale_for_each_channel_by_loops(bits):
    x, steps = draw((2, 6, 5)), 2 ** (bits - 1) - 1
    expected = np.zeros(x.shape)
    for layer in range(2):
        for output in range(5):
            channel = np.float64(x[layer, :, output])
            scale = np.abs(channel).max() / steps
            for i, value in enumerate(channel):
                nearest = min(range(-steps, steps + 1), key=lambda code: abs(value - code * scale))
                expected[layer, i, output] = nearest * np.float64(np.float16(scale))
    np.testing.assert_allclose(rounded(x, Scheme(bits, None, (1,))), expected, rtol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_packed_is_unpacked_to_the_quantised_values(scheme, layout):
    shape, inputs = LAYOUTS[layout]
    x, scheme = draw(shape, 1), Scheme(*SCHEMES[scheme], inputs)
    stored = pack(x, scheme, "x")
    assert {name: (a.shape, a.dtype) for name, a in stored.items()} == scheme.stored(shape)
    assert sum(a.nbytes for a in stored.values()) == scheme.stored_bytes(shape)
    values = unpack(stored, scheme, shape)
    assert values.dtype == np.float32 and values.tobytes() == rounded(x, scheme).tobytes()
    again = pack(values, scheme, "x")
    assert all(again[name].tobytes() == stored[name].tobytes() for name in stored)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_jax_has_rounded_is_packed_without_loss(scheme, layout):
    shape, inputs = LAYOUTS[layout]
    x, scheme = draw(shape, 2), Scheme(*SCHEMES[scheme], inputs)
    by_jax = jax.jit(lambda x: quantized_arrays.dequantize(*quantize(x, scheme, jnp)[:2], shape))(x)
    by_jax = np.asarray(by_jax)
    assert unpack(pack(by_jax, scheme, "x"), scheme, shape).tobytes() == by_jax.tobytes()
    np.testing.assert_array_equal(by_jax, rounded(x, scheme))


def test_an_odd_number_of_codes_of_four_bits():
    x, scheme = draw((3, 7)), Scheme(4, None, (1,))
    stored = pack(x, scheme, "x")
    assert stored["codes"].shape == (3, 4) and not np.any(stored["codes"][:, 3] >> 4)
    np.testing.assert_array_equal(unpack(stored, scheme, x.shape), rounded(x, scheme))


def test_two_codes_in_a_byte_by_hand():
    block = np.zeros((1, 32), np.float32)
    block[0, :4] = -16.0, 2.0, 14.0, -3.0  # the scale is -16 / -8
    stored = pack(block, Scheme(4, 32, (1,)), "x")
    assert stored["scales"].tolist() == [[2.0]] and stored["scales"].dtype == np.float16
    # -8 and 1, 7 and floor(-1.5 + 0.5), each plus 8, the first in the lower half; then zeros
    assert stored["codes"][0, :3].tolist() == [0 | 9 << 4, 15 | 7 << 4, 8 | 8 << 4]


def test_arrays_are_packed_in_pieces(monkeypatch):
    x, scheme = draw((9, 64, 5)), Scheme(4, 32, (1,))
    whole = pack(x, scheme, "x")
    monkeypatch.setattr(quantized_arrays, "_PIECE", 700)
    pieces = quantized_arrays.pieces(x.shape, 0)
    assert [(s.start, s.stop) for s in pieces] == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]
    assert all(pack(x, scheme, "x")[name].tobytes() == whole[name].tobytes() for name in whole)


@pytest.mark.parametrize("sign", [1, -1])
def test_of_the_other_sign_values_above_seven_and_a_half_scales_are_outside_of_the_range(sign):
    block = sign * np.array([[-8.0, 7.6, 7.4, -7.9, *[0.0] * 28]], np.float32)
    codes, scales, is_inside = quantize(block, Scheme(4, 32, (1,)))
    assert scales.item() == sign and codes[0, 0, :4].tolist() == [-8, 7, 7, -8]
    assert is_inside[0, 0, :4].tolist() == [True, False, True, True]
    assert quantize(block, Scheme(4, None, (1,)))[2].all() and quantize(block, Scheme(8, 32, (1,)))[2].all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_zeros_and_values_too_small_for_a_scale_are_zeros(scheme):
    scheme = Scheme(*SCHEMES[scheme], (1,))
    for value in (0.0, 1e-9, -1e-30, 1e-40):
        x = np.full((2, 32), value, np.float32)
        assert not np.any(rounded(x, scheme))
        assert not np.any(unpack(pack(x, scheme, "x"), scheme, x.shape))
    # Scales that float16 holds with fewer digits.
    small = draw((4, 64)) * np.float32(1e-6)
    assert unpack(pack(small, scheme, "x"), scheme, small.shape).tobytes() == rounded(small, scheme).tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e7])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_has_no_scale_is_refused(scheme, value):
    x = np.ones((2, 32), np.float32)
    x[1, 3] = 1e8 if value == 1e7 and "int8" in scheme else value
    with pytest.raises(
        NumericError, match="model: kernel: holds values .* too large for scales .* cannot be quantised"
    ):
        with np.errstate(invalid="ignore"):
            pack(x, Scheme(*SCHEMES[scheme], (1,)), "model: kernel")
