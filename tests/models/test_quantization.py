"""Which arrays are quantised how, against ggml's blocks of the matrices that other tools read; and straight-through gradients."""

import dataclasses

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed import quantized_arrays
from embed.errors import ConfigError
from embed.interop import families
from embed.interop.tensors import foreign_tensors
from embed.models import api, quantization
from embed.models.bert import Bert
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.modernbert import ModernBert
from embed.models.pooling import AttentionPooling, MeanPooling
from embed.models.quantization import PRESETS, Quantization, Rule, fake_quantize
from embed.models.qwen3 import Qwen3
from embed.quantized_arrays import Scheme
from embed.trees import flatten, flatten_axes, unflatten

GROUPED = {
    "vocab_size": 40,
    "width": 32,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "mlp_dim": 64,
}
PLAIN = {"vocab_size": 40, "width": 32, "num_layers": 2, "num_heads": 2, "mlp_dim": 64}
ENCODERS = {
    "Bert": Bert(**PLAIN, max_positions=20),
    "ModernBert": ModernBert(**PLAIN),
    "Gemma": Gemma(**GROUPED),
    "Qwen3": Qwen3(**GROUPED),
}
LAYERS = "encoder/stack/layers"


def built(encoder, pooling=None, projection=(64, 32)):
    """Returns a model and parameters for it, none of them zero."""
    model = api.build(Embedder(encoder, pooling or MeanPooling(), projection))
    random = np.random.default_rng(5)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return model, jax.tree.map(lambda s: random.normal(size=s.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def gemma():
    return built(ENCODERS["Gemma"], AttentionPooling())


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "kind"), [("int4_blocks", "Q4_0"), ("int8_blocks", "Q8_0")])
@pytest.mark.parametrize("name", ENCODERS)
def test_blocks_are_those_of_the_matrices_that_other_tools_read(name, preset, kind):
    encoder, kind = ENCODERS[name], gguf.GGMLQuantizationType[kind]
    model, params = built(encoder, projection=())
    schemes = PRESETS[preset]().plan(params, model.axes).schemes
    read = {p.removeprefix("encoder/"): x for p, x in flatten(params).items()}
    rounded = {p.removeprefix("encoder/"): x for p, x in flatten(fake_quantize(params, schemes)).items()}
    shapes = {path: x.shape for path, x in read.items()}
    family = families.of_encoder(encoder)
    tensors = lambda leaves: dict(  # noqa: E731
        foreign_tensors(family.tensors, shapes, encoder.num_layers, lambda path: np.asarray(leaves[path]))
    )
    before, after = tensors(read), tensors(rounded)
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    matrices = [n for n, x in before.items() if x.ndim == 2 and "position" not in n and "token_type" not in n]
    assert changed == matrices and len(matrices) > 8
    for name in matrices:
        expected = gguf.quants.dequantize(gguf.quants.quantize(before[name], kind), kind)
        np.testing.assert_array_equal(after[name], expected)


def test_a_mixture_has_eight_bits_in_attention_and_four_elsewhere(gemma):
    model, params = gemma
    schemes = PRESETS["mixed_channels"]().plan(params, model.axes).schemes
    eight = {f"{LAYERS}/attention/{name}/kernel" for name in ("query", "key", "value", "output")}
    eight |= {f"pooling/{name}/kernel" for name in ("key", "value")}
    four = {f"{LAYERS}/mlp/{name}/kernel" for name in ("gate", "up", "down")}
    four |= {"projection_0/kernel", "projection_1/kernel", "encoder/embedding/table"}
    assert {path: s.bits for path, s in schemes.items()} == dict.fromkeys(eight, 8) | dict.fromkeys(four, 4)
    assert {s.block_size for s in schemes.values()} == {None}
    assert schemes[f"{LAYERS}/attention/query/kernel"].inputs == (1,)
    assert schemes[f"{LAYERS}/attention/output/kernel"].inputs == (1, 2)
    assert schemes["projection_1/kernel"].inputs == (0,) and schemes["encoder/embedding/table"].inputs == (1,)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_norms_biases_queries_and_small_tables_stay_float32(preset):
    for encoder in ENCODERS.values():
        model, params = built(encoder, AttentionPooling())
        schemes = PRESETS[preset]().plan(params, model.axes).schemes
        before, after = flatten(params), flatten(fake_quantize(params, schemes))
        same = {path for path in before if np.array_equal(before[path], after[path])}
        assert same == set(before) - set(schemes)
        small = ("scale", "bias", "query", "position_embedding/table", "type_embedding/table")
        assert all(path.endswith(small) for path in same) and same


@pytest.mark.slow
def test_jax_rounds_as_numpy_does(gemma):
    model, params = gemma
    for preset in PRESETS.values():
        schemes = preset().plan(params, model.axes).schemes
        values = flatten(jax.jit(lambda p, s=schemes: fake_quantize(p, s))(params))
        for path, scheme in schemes.items():
            expected = quantized_arrays.rounded(flatten(params)[path], scheme)
            assert values[path].dtype == jnp.float32
            np.testing.assert_array_equal(values[path], expected)


def test_the_gradient_is_that_of_the_identity_inside_of_the_range():
    block = np.array([[-8.0, 7.6, 7.4, 0.2, *np.linspace(-3, 3, 28)]], np.float32)
    weights = np.arange(1.0, 33.0, dtype=np.float32)[None]

    def gradient(scheme):
        total = lambda p: jnp.sum(fake_quantize(p, {"x": scheme, "gone": scheme})["x"] * weights)  # noqa: E731
        return jax.grad(total)({"x": block, "y": block})

    expected = weights.copy()
    expected[0, 1] = 0  # 7.6 scales have no code; 7.4 have
    found = gradient(Scheme(4, 32, (1,)))
    np.testing.assert_array_equal(found["x"], expected)
    assert not np.any(found["y"])
    for scheme in (Scheme(4, None, (1,)), Scheme(8, 32, (1,))):
        np.testing.assert_array_equal(gradient(scheme)["x"], weights)


def test_straight_through_follows_the_loss_of_the_rounded_values():
    """By gradient descent of the distance to a target, values settle where their rounded ones are nearest to it."""
    random = np.random.default_rng(0)
    target = random.standard_normal((4, 64)).astype(np.float32)
    scheme = Scheme(8, 32, (1,))
    step = jax.jit(jax.grad(lambda x: jnp.sum((fake_quantize({"x": x}, {"x": scheme})["x"] - target) ** 2)))
    x = jnp.asarray(random.standard_normal((4, 64)), jnp.float32)
    for _ in range(60):
        x = x - 0.1 * step(x)
    scales = np.abs(target).reshape(4, 2, 32).max(-1, keepdims=True) / 127
    errors = np.abs(np.asarray(fake_quantize({"x": x}, {"x": scheme})["x"]) - target).reshape(4, 2, 32)
    assert np.all(errors <= 1.1 * scales)


def test_inputs_that_no_block_divides_stay_float32_and_are_named():
    model, params = built(dataclasses.replace(ENCODERS["Gemma"], mlp_dim=40))
    plan = PRESETS["int4_blocks"]().plan(params, model.axes)
    path = f"{LAYERS}/mlp/down/kernel"
    assert plan.refused == {path: "has 40 inputs, not a multiple of 32"} and path not in plan.schemes
    first, second = plan.lines({p: x.shape for p, x in flatten(params).items()})
    assert second == f"stay float32: {path} has 40 inputs, not a multiple of 32"
    assert f"{len(plan.schemes)} arrays" in first and "in 4 bits, the rest in float32" in first


def test_the_size_by_hand():
    shapes = {"a/kernel": (64, 10), "b/kernel": (3, 32, 4), "norm": (7,)}
    axes = {"a": {"kernel": ("width", "mlp")}, "b": {"kernel": ("layers", "width", "mlp")}, "norm": ("norm",)}
    params = unflatten({p: jax.ShapeDtypeStruct(s, jnp.float32) for p, s in shapes.items()})
    plan = Quantization((Rule("b/", 8, 32), Rule("kernel", 4, 32))).plan(params, axes)
    size = (640 // 2 + 20 * 2) + (384 + 12 * 2) + 7 * 4
    assert quantization.stored_bytes(shapes, plan.schemes) == size
    assert plan.lines(shapes) == [
        f"1 arrays (62.1% of the parameters) in 4 bits, 1 arrays (37.2% of the parameters) in 8 bits, the rest in float32: "
        f"{size / (4 * 1031):.3f} of the size of float32"
    ]


def test_a_description_gives_the_quantisation_back():
    for name, preset in PRESETS.items():
        described = preset().describe()
        assert described["name"] == name and quantization.from_description(described) == preset()
    own = Quantization([Rule("mlp/", 4, 64)])
    assert own.describe() == {"name": "custom", "rules": [{"pattern": "mlp/", "bits": 4, "block_size": 64}]}


def test_arrays_that_are_no_matrix_or_name_no_axes_stay_float32():
    params = {"a": np.zeros(32), "b": np.zeros((3, 32, 4)), "c": np.zeros((32, 4)), "d": np.zeros((3, 32))}
    axes = {"a": ("norm",), "b": (None, None, None), "c": (None, None), "d": ("layers", "width")}
    plan = Quantization((Rule(".", 4, 32),)).plan(params, axes)
    assert plan.schemes == {"c": Scheme(4, 32, (0,))}
    assert plan.refused == {"a": "is no matrix", "b": "names no axes that tell its inputs", "d": "is no matrix"}
    assert set(flatten_axes(axes)) == set(params)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (lambda: (Rule("atention", 4),), "'custom' changes nothing: no path matches its rules; they are like encoder/"),
        (
            lambda: (Rule("kernel", 4, 48),),
            "changes nothing: encoder/.* has 32 inputs, not a multiple of 48; .*; use other",
        ),
        (lambda: (), "changes nothing: no path matches"),
        (lambda: (Rule("(", 4),), r"Rule.pattern = '\(': not a regular expression"),
        (lambda: (Rule("kernel", 5),), "Rule.bits = 5"),
        (lambda: (Rule("kernel", 4, 0),), "Rule.block_size = 0: expected an integer >= 1"),
    ],
)
def test_wrong_rules_are_refused(rules, message):
    model, params = built(ENCODERS["Bert"], projection=())
    with pytest.raises(ConfigError, match=message):
        Quantization(rules()).plan(params, model.axes)
