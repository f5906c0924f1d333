"""The seam: descriptions and back, logical axes, FLOPs, and configurations that do not fit."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_calls import by_text

from embed import sharding
from embed.errors import ConfigError, DataError
from embed.models import api
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.pooling import AttentionPooling, FirstPooling, LastPooling, MeanPooling
from embed.trees import flatten

POOLERS = [MeanPooling(), FirstPooling(), LastPooling(), AttentionPooling(3)]


@pytest.mark.slow
@pytest.mark.parametrize("pooler", POOLERS, ids=lambda p: type(p).__name__)
def test_a_description_survives_json(tiny, pooler):
    module = tiny.make(pooling=pooler, matryoshka_dims=(4, 2), dropout=0.1, remat="dots", window=6)
    text = json.dumps(api.build(module).description)
    again = api.from_description(json.loads(text))
    assert again == module
    assert json.dumps(api.describe(again)) == text
    assert api.build(again).matryoshka_dims == (8, 4, 2)


def test_equal_modules_are_one_model_and_others_are_not(tiny):
    """What JAX traced and compiled for one is used for the other; a field of another type is another description."""
    assert api.build(tiny.make(dropout=0.25)) is api.build(tiny.make(dropout=0.25))
    assert api.build(tiny.make(dropout=0.25)) is not api.build(tiny.make(dropout=0.5))
    whole, real = (api.build(tiny.make(dropout=rate)) for rate in (0, 0.0))
    assert whole is not real
    assert [json.dumps(model.description["encoder"]["dropout"]) for model in (whole, real)] == ["0", "0.0"]
    listed = tiny.make(matryoshka_dims=[4])  # which has no hash
    assert api.build(listed).matryoshka_dims == (8, 4)


def test_a_description_names_its_parts(tiny):
    found = api.build(tiny.make()).description
    assert (found["type"], found["encoder"]["type"], found["pooling"]["type"]) == ("Embedder", "Gemma", "MeanPooling")
    assert found["encoder"]["global_every"] == 2
    assert set(found["encoder"]) == {"type", *Gemma.__dataclass_fields__} - {"parent", "name"}


def test_a_subclass_of_the_same_name_is_described_as_its_base(tiny):
    """gin makes such subclasses when it configures a class."""
    configured = type("Gemma", (Gemma,), {})(**tiny.sizes)
    pooling = type("MeanPooling", (MeanPooling,), {})()
    embedder = type("Embedder", (Embedder,), {})(configured, pooling, (14, 8))
    model = api.build(embedder)
    assert model.description == tiny.model.description
    assert type(api.from_description(model.description)) is Embedder


class Wider(Gemma):
    """An encoder of a user, with a field more than Gemma."""

    extra: int = 3


def test_a_registered_subclass_is_described_under_its_own_name(tiny, monkeypatch):
    monkeypatch.setattr(api, "_REGISTRY", dict(api._REGISTRY))
    api.register(Wider)
    module = Embedder(Wider(**tiny.sizes, extra=5), MeanPooling(), (14, 8))
    again = api.from_description(json.loads(json.dumps(api.build(module).description)))
    assert type(again.encoder) is Wider
    assert again.encoder.extra == 5


class Stranger(MeanPooling.__mro__[1]):
    """A module nobody registered."""


def test_an_unregistered_module_is_refused_with_advice(tiny):
    with pytest.raises(ConfigError, match="Stranger is not a registered module.*register"):
        api.describe(Stranger())


def test_an_unknown_type_is_refused_with_the_nearest():
    with pytest.raises(DataError, match="unknown architecture 'Gema'; did you mean 'Gemma'"):
        api.from_description({"type": "Gema"})


def test_a_far_off_type_is_refused_with_the_known_ones():
    with pytest.raises(DataError, match="unknown architecture 'xyz'; known: .*Embedder, .*Gemma"):
        api.from_description({"type": "xyz"})


def test_a_description_without_type_is_refused():
    with pytest.raises(DataError, match="unknown architecture None"):
        api.from_description({"width": 3})


def test_an_unknown_field_is_refused_with_the_nearest(tiny):
    description = json.loads(json.dumps(tiny.model.description))
    description["encoder"]["num_layer"] = 3
    with pytest.raises(DataError, match="Gemma has no field 'num_layer'; did you mean 'num_layers'"):
        api.from_description(description)


@pytest.mark.parametrize("field", ["parent", "name"])
def test_internal_fields_cannot_be_set_from_a_description(field):
    with pytest.raises(DataError, match=f"MeanPooling has no field '{field}'"):
        api.from_description({"type": "MeanPooling", field: "x"})


@pytest.mark.slow
@pytest.mark.parametrize("pooler", POOLERS, ids=lambda p: type(p).__name__)
def test_axes_lie_along_the_parameters(tiny, pooler):
    model = api.build(tiny.make(pooling=pooler, projection=(14, 10, 8)))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    is_axes = lambda x: isinstance(x, tuple)  # noqa: E731
    assert jax.tree.structure(model.axes, is_leaf=is_axes) == jax.tree.structure(shapes)
    for axes, shape in zip(jax.tree.leaves(model.axes, is_leaf=is_axes), jax.tree.leaves(shapes)):
        assert len(axes) == len(shape.shape)
        assert set(axes) <= set(sharding.RULES)


def test_axes_name_the_dimensions(tiny):
    leaves = jax.tree_util.tree_flatten_with_path(tiny.model.axes, is_leaf=lambda x: isinstance(x, tuple))[0]
    found = {jax.tree_util.keystr(path, simple=True, separator="/"): axes for path, axes in leaves}
    stack = "encoder/stack/layers"
    assert found["encoder/embedding/table"] == ("vocab", "width")
    assert found["encoder/final_norm/scale"] == ("norm",)
    assert found[f"{stack}/attention/query/kernel"] == ("layers", "width", "heads", "head_dim")
    assert found[f"{stack}/attention/key/kernel"] == ("layers", "width", "kv_heads", "head_dim")
    assert found[f"{stack}/attention/output/kernel"] == ("layers", "heads", "head_dim", "width")
    assert found[f"{stack}/attention/query_norm/scale"] == ("layers", "head_dim")
    assert found[f"{stack}/mlp/up/kernel"] == ("layers", "width", "mlp")
    assert found[f"{stack}/mlp/down/kernel"] == ("layers", "mlp", "width")
    assert found["projection_0/kernel"] == ("width", "hidden")
    assert found["projection_1/kernel"] == ("hidden", "embedding")


@pytest.mark.slow
def test_params_are_plain_dicts_of_arrays_fixed_by_the_key(initial):
    first, again, other = (initial.init(jax.random.key(k)) for k in (0, 0, 1))
    assert type(first) is dict
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(first))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first["encoder"]["embedding"]["table"], other["encoder"]["embedding"]["table"])


def test_flops_of_embeddinggemma_match_the_formula():
    """Per token 2 N + 4 a Lc C: N weights in the layers, a = heads x head size, Lc keys, C layers; then the head."""
    model = api.build(Embedder(Gemma(), MeanPooling(), (3072, 768)))
    weights = 24 * (768 * 768 * 2 + 768 * 256 * 2 + 3 * 768 * 1152)
    head = 2 * 2 * 768 * 3072
    assert weights == pytest.approx(101.45e6, rel=1e-3)
    for length in (1, 128, 512, 513, 2048):
        keys = 4 * length + 20 * min(length, 513)
        expected = length * (2 * weights + 4 * 3 * 256 * keys) + head
        assert model.methods["text"].flops(length) == pytest.approx(expected, rel=1e-12)
    assert model.methods["text"].flops(128) / 128 == pytest.approx(212e6, rel=0.01)
    assert model.methods["text"].flops(512) / 512 == pytest.approx(240.6e6, rel=0.01)


def test_layers_of_every_tower_are_run_as_asked(tiny):
    module = tiny.make(remat="full")
    count = module.encoder.num_layers
    assert count > 1 and api.layers_of(module) == ("full", False)
    changed = api.with_layers(module, "dots", True)
    assert api.layers_of(changed) == ("dots", True) and changed.encoder.unroll == count
    assert api.with_layers(changed, "full", False) == module
    partly = tiny.make(remat="full", unroll=2)
    assert count > 2 and api.with_layers(partly, "full", False) == partly


def test_an_encoder_without_such_fields_stays_as_it_is():
    class Bag(nn.Module):
        vocab_size: int = 4

    module = Embedder(Bag(), MeanPooling(), (4,))
    assert api.layers_of(module) == ("none", False) and api.with_layers(module, "full", True) == module


def test_flops_count_what_the_compiler_counts(tiny):
    """On a text seen whole by every layer, unrolled, XLA counts our matrix products and little else."""
    model = api.build(
        Embedder(Gemma(64, 64, 2, 4, 256, num_kv_heads=2, head_dim=32, global_every=2, unroll=2), MeanPooling(), (64,))
    )
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens, mask = jax.ShapeDtypeStruct((1, 64), jnp.int32), jax.ShapeDtypeStruct((1, 64), bool)
    counted = jax.jit(by_text(model)).lower(params, tokens, mask).cost_analysis()["flops"]
    assert counted == pytest.approx(model.methods["text"].flops(64), rel=0.1)


@pytest.mark.parametrize(
    "fields",
    [{"num_heads": 3}, {"head_dim": 5}, {"num_kv_heads": 0}, {"pooling": AttentionPooling(5)}],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused_when_built(tiny, fields):
    with pytest.raises(ConfigError):
        api.build(tiny.make(**fields))


@pytest.mark.parametrize(
    "fields",
    [{"global_every": 0}, {"num_layers": 0}, {"window": -2}, {"dropout": 1.5}, {"dropout": -0.1}, {"vocab_size": 0}],
    ids=str,
)
def test_values_out_of_range_are_refused_when_built(tiny, fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        api.build(tiny.make(**fields))


@pytest.mark.slow
def test_every_parameter_reaches_the_embedding(gradient):
    for path, g in flatten(gradient[1]).items():
        assert np.abs(g).max() > 1e-6, path
