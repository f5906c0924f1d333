"""The text model of EmbeddingGemma 2 against numpy: two shapes of heads in periods of layers, and per-layer embeddings."""

import math

import jax
import numpy as np
import pytest
from numpy_transformer import Layer, Numpy, assert_matches, gelu_tanh, rms_norm

from embed.errors import ConfigError
from embed.models import api
from embed.models.embedder import Embedder
from embed.models.embedding_gemma2 import EmbeddingGemma2
from embed.models.pooling import MeanPooling
from embed.trees import flatten

SIZES = {
    "vocab_size": 40,
    "width": 12,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 6,
    "global_num_kv_heads": 1,
    "global_head_dim": 10,
    "mlp_dim": 20,
    "per_layer_dim": 7,
    "output_dim": 9,
    "window": 2,
}
NORM = rms_norm(0.0)
ATOL = 1e-4  # logits are not scaled down, so that attention is sharper here and float32 rounds more
# {(layers, every): where each layer's parameters lie}
PLACES = {
    (5, 3): ["periods/local 0 0", "periods/local 0 1", "periods/global 0", "last/local 0", "last/global"],
    (4, 2): ["periods/local 0 0", "periods/global 0", "periods/local 1 0", "periods/global 1"],
    (3, 2): ["periods/local 0 0", "periods/global 0", "last/global"],
    (2, 4): ["last/local 0", "last/global"],
    (2, 1): ["periods/global 0", "periods/global 1"],
}


def parameters_of(stack, place: str):
    """Returns one layer's parameters."""
    path, *index = place.split()
    period, kind = path.split("/")
    return jax.tree.map(lambda x: x[tuple(map(int, index))], stack[period][kind])


def of_text(places, local_base: float, global_base: float):
    """Returns what gives the vectors of one text's tokens, layer by layer."""
    numpy = Numpy(NORM, "both", gelu_tanh, scale=1.0, layers=[], normed_values=True)

    def encode(p, tokens):
        inputs = x = p["embedding"]["table"][tokens] * np.sqrt(12)
        per_layer = p["stack"]["per_layer_input"]
        for number, place in enumerate(places):
            block = parameters_of(p["stack"], place)
            layer = Layer(base=global_base) if "global" in place else Layer(2, 2, local_base)
            x = numpy.block(x, block, layer)
            own = NORM(inputs @ per_layer["kernel"][:, number] / np.sqrt(12), per_layer)
            y = gelu_tanh(x @ block["per_layer_gate"]["kernel"]) * own @ block["per_layer_output"]["kernel"]
            x = (x + NORM(y, block["per_layer_post_norm"])) * block["output_scale"]
        return NORM(x, p["final_norm"]) @ p["output"]["kernel"]

    return encode


@pytest.mark.slow
@pytest.mark.parametrize("shape", PLACES, ids=str)
def test_texts_in_a_row_match_numpy(shape):
    bases = {"local_rope_base": 30.0, "global_rope_base": 500.0}
    encoder = EmbeddingGemma2(**SIZES, **bases, num_layers=shape[0], global_every=shape[1])
    assert_matches(encoder, of_text(PLACES[shape], 30.0, 500.0), centre=1.0, atol=ATOL)


@pytest.mark.slow
def test_layers_laid_apart_match_numpy():
    encoder = EmbeddingGemma2(**SIZES, num_layers=5, global_every=3)
    assert_matches(encoder, of_text(PLACES[5, 3], 1e4, 1e6), centre=1.0, apart=True, atol=ATOL)


@pytest.mark.slow
def test_the_default_has_the_number_of_parameters_of_the_configuration_in_transformers():
    model = api.build(Embedder(EmbeddingGemma2(), MeanPooling()))
    sizes = {path: math.prod(x.shape) for path, x in flatten(jax.eval_shape(model.init, jax.random.key(0))).items()}
    attention = {256: 512 * 256 * (2 * 4 + 2 * 2) + 2 * 256, 512: 512 * 512 * (2 * 4 + 2 * 1) + 2 * 512}
    rest = 3 * 512 * 2048 + 2 * 512 * 512 + 5 * 512 + 1  # MLP, per-layer branch, norms, the constant
    layers = 20 * attention[256] + 4 * attention[512] + 24 * rest
    assert sum(sizes.values()) == 262_144 * 512 + layers + 24 * 512 * 512 + 512 + 512 + 512 * 768 == 271_002_648
    assert model.embedding_dim == 768 and sizes["encoder/embedding/table"] == 134_217_728


@pytest.mark.slow
def test_flops_count_both_kinds_of_layers_and_what_each_adds():
    model = api.build(Embedder(EmbeddingGemma2(), MeanPooling(), (64,)))
    local, full = 512 * 256 * (2 * 4 + 2 * 2), 512 * 512 * (2 * 4 + 2 * 1)
    weights = 20 * local + 4 * full + 24 * (3 * 512 * 2048 + 3 * 512 * 512) + 512 * 768
    for length in (1, 512, 2048):
        products = 4 * 4 * (20 * 256 * min(length, 1025) + 4 * 512 * length)
        expected = length * (2 * weights + products) + 2 * 768 * 64
        assert model.methods["text"].flops(length) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("fields", [{"global_num_kv_heads": 3}, {"global_head_dim": 5}], ids=str)
def test_heads_of_global_layers_that_cannot_be_are_refused(fields):
    given = {**SIZES, **fields}
    message = (
        f"EmbeddingGemma2.num_heads = 4 must be a multiple of global_num_kv_heads = {given['global_num_kv_heads']}, "
        f"and global_head_dim = {given['global_head_dim']} even"
    )
    with pytest.raises(ConfigError, match=message):
        api.build(Embedder(EmbeddingGemma2(**given), MeanPooling()))
