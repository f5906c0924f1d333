"""A stack in periods: global layers, recomputing, unrolling, what learns, meshes, and adapters of layers stacked twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_calls import by_text

from embed import sharding
from embed.models import api
from embed.models.embedder import Embedder
from embed.models.embedding_gemma2 import EmbeddingGemma2
from embed.models.lora import Lora
from embed.models.periods import global_layers
from embed.models.pooling import MeanPooling
from embed.trees import flatten, flatten_axes, unflatten

SIZES = {
    "vocab_size": 40,
    "width": 16,
    "num_layers": 4,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 6,
    "global_num_kv_heads": 1,
    "global_head_dim": 10,
    "mlp_dim": 20,
    "per_layer_dim": 8,
    "output_dim": 12,
    "window": 2,
    "global_every": 2,
}


def make(**fields):
    return api.build(Embedder(EmbeddingGemma2(**{**SIZES, **fields}), MeanPooling(), (8,)))


@pytest.fixture(scope="module")
def params(tiny):
    """Parameters of all these models; constants of layers around 1."""
    drawn = flatten(tiny.draw(make().init))
    return unflatten({path: x + 1 if path.endswith("scale") else x for path, x in drawn.items()})


def test_which_layers_are_global():
    assert global_layers(6, 3) == (False, False, True) * 2
    assert global_layers(5, 3) == (False, False, True, False, True)
    assert global_layers(2, 9) == (False, True)
    assert global_layers(2, 1) == (True, True)


def gradient(tiny, params, **fields):
    """Returns the embeddings with dropout, and the gradient of a weighted sum of them."""
    tokens, mask = tiny.texts()
    direction = jnp.asarray(np.random.default_rng(0).normal(size=(len(tokens), 8)), jnp.float32)

    def total(p):
        vectors = by_text(make(dropout=0.3, **fields))(p, tokens, mask, jax.random.key(4))
        return jnp.sum(vectors * direction), vectors

    (_, vectors), by_params = tiny.fast(jax.value_and_grad(total, has_aux=True))(params)
    return jax.device_get((vectors, by_params))


@pytest.fixture(scope="module")
def plain(tiny, params):
    return gradient(tiny, params)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"unroll": 2, "remat": "dots"}, {"unroll": 9, "remat": "full"}], ids=str)
def test_unroll_and_remat_change_no_value_and_no_gradient(fields, tiny, params, plain):
    vectors, by_params = gradient(tiny, params, **fields)
    np.testing.assert_allclose(vectors, plain[0], rtol=0, atol=2e-6)
    for mine, other in zip(jax.tree.leaves(by_params), jax.tree.leaves(plain[1]), strict=True):
        assert np.linalg.norm(mine - other) <= 2e-5 * np.linalg.norm(other)


@pytest.mark.slow
def test_everything_learns_but_the_constants_of_the_layers(plain):
    for path, g in flatten(plain[1]).items():
        assert (np.abs(g).max() > 1e-6) == (not path.endswith("output_scale")), path


def program(params, tiny, **fields) -> str:
    total = lambda p: by_text(make(**fields))(p, *tiny.texts()).sum()  # noqa: E731
    return str(jax.make_jaxpr(jax.grad(total))(params))


@pytest.mark.slow
def test_remat_really_computes_again(tiny, params):
    counts = [program(params, tiny, remat=remat).count("dot_general") for remat in ("full", "dots", "none")]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "in_loops"),
    [
        ({"num_layers": 6, "global_every": 3}, {"prevent_cse=False"}),  # all in scans
        ({"num_layers": 6, "global_every": 3, "unroll": 6}, {"prevent_cse=True"}),  # all laid out
        ({"num_layers": 7, "global_every": 3}, {"prevent_cse=False", "prevent_cse=True"}),  # the last stands alone
        ({"num_layers": 3, "global_every": 3}, {"prevent_cse=False", "prevent_cse=True"}),  # a scan of one period
    ],
    ids=["scans", "laid out", "one alone", "one period"],
)
def test_blocks_outside_of_loops_are_kept_from_being_merged(fields, in_loops, tiny):
    shapes = jax.eval_shape(make(**fields).init, jax.random.key(0))
    traced = program(shapes, tiny, remat="full", **fields)
    assert {word for word in ("prevent_cse=False", "prevent_cse=True") if word in traced} == in_loops


@pytest.mark.slow
def test_the_same_vectors_and_gradients_on_a_mesh_of_every_axis(tiny):
    model, (tokens, mask) = make(num_layers=2), tiny.texts()
    params = tiny.draw(model.init)
    total = lambda p: jnp.sum(jnp.sin(3 * by_text(model)(p, tokens, mask)))  # noqa: E731
    expected = jax.device_get(tiny.fast(jax.value_and_grad(total))(params))
    mesh = sharding.make_mesh(sharding.MeshShape(2, 2, 2))
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, sharding.shardings(model.axes, params, mesh))
        value, by_params = jax.device_get(tiny.fast(jax.value_and_grad(total))(placed))
    assert value == pytest.approx(expected[0], abs=1e-5)
    for mine, other in zip(jax.tree.leaves(by_params), jax.tree.leaves(expected[1]), strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-4 * max(1.0, np.abs(other).max()))


@pytest.mark.slow
def test_an_adapter_of_what_is_stacked_twice_is_added_layer_by_layer(tiny, params):
    model, lora = make(), Lora(rank=3, alpha=6.0)
    factors = flatten(tiny.draw(lambda key: lora.init(key, params, model.axes), 1))
    merged, base = flatten(lora.merge(params, unflatten(factors))), flatten(params)
    path = "encoder/stack/periods/local/attention/query/kernel"
    assert flatten_axes(model.axes)[path][:2] == ("layers", "layers") and base[path].shape == (2, 1, 16, 4, 6)
    assert factors[f"{path}/a"].shape == (2, 1, 16, 3) and factors[f"{path}/b"].shape == (2, 1, 3, 24)
    for period in range(2):
        a, b = (np.float64(factors[f"{path}/{name}"][period, 0]) for name in "ab")
        added = (a @ b * 2).reshape(16, 4, 6)
        np.testing.assert_allclose(merged[path][period, 0], base[path][period, 0] + added, atol=1e-5)
