"""ModernBERT: maps that share a tensor, the norm that the first layer lacks, and what config.json says."""

import jax
import numpy as np
import pytest

from embed import trees
from embed.errors import DataError
from embed.interop import tensors
from embed.interop.families.modernbert import MODERNBERT
from embed.models import api
from embed.models.modernbert import ModernBert


def test_modernbert_with_biases_has_them_everywhere(read, foreign):
    source = read("modernbert")[0]
    module = source.module.clone(
        encoder=source.module.encoder.clone(norm_bias=True, attention_bias=True, mlp_bias=True)
    )
    shapes = trees.flatten(jax.eval_shape(api.build(module).init, jax.random.key(0)))
    shapes = {p.removeprefix("encoder/"): s.shape for p, s in shapes.items()}
    found = tensors.foreign_shapes(source.family.tensors, shapes, 3)
    assert found == foreign.modernbert_shapes(3, biases=True)


def test_modernbert_keeps_three_maps_in_one_tensor_and_two_in_another(read):
    _, theirs, ours = read("modernbert")
    for layer in range(3):
        mine = {p.removeprefix("encoder/stack/layers/"): x[layer] for p, x in ours.items() if "layers" in p}
        joint, inner = theirs[f"layers.{layer}.attn.Wqkv.weight"], theirs[f"layers.{layer}.mlp.Wi.weight"]
        for part, name in enumerate(("query", "key", "value")):
            for h in range(3):
                for k in range(4):
                    assert np.array_equal(mine[f"attention/{name}/kernel"][:, h, k], joint[part * 12 + h * 4 + k])
        for o in range(20):
            assert np.array_equal(mine["mlp/gate/kernel"][:, o], inner[o])
            assert np.array_equal(mine["mlp/up/kernel"][:, o], inner[20 + o])
        assert np.array_equal(mine["mlp/down/kernel"], theirs[f"layers.{layer}.mlp.Wo.weight"].T)
        # No norm stands before the first layer's attention: ours is not used there and must be neutral.
        wanted = theirs[f"layers.{layer}.attn_norm.weight"] if layer else np.ones(12)
        assert np.array_equal(mine["attention_norm/scale"], wanted)


SIZES = {
    "vocab_size": 264,
    "hidden_size": 12,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 20,
}
FIELDS = {"vocab_size": 264, "width": 12, "num_layers": 4, "num_heads": 3, "mlp_dim": 20}
# As ModernBERT's configuration of transformers.
SILENT = {
    "window": 128,
    "global_every": 3,
    "local_rope_base": 10_000.0,
    "global_rope_base": 160_000.0,
    "activation": "gelu",
    "norm_eps": 1e-5,
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
}


def fields(**entries) -> dict:
    return MODERNBERT.fields({**SIZES, **entries})


def test_what_the_file_does_not_say_is_as_in_transformers():
    assert fields() == {**FIELDS, **SILENT}


@pytest.mark.parametrize(
    ("entries", "window"),
    [
        ({"local_attention": 32}, 32),
        ({"local_attention": 33}, 33),
        ({"sliding_window": 16}, 32),
        ({"sliding_window": 16, "local_attention": 33}, 32),  # 16 to each side, either way
        ({"sliding_window": None, "local_attention": 8}, 8),
    ],
    ids=str,
)
def test_the_window_is_of_both_sides_together(entries, window):
    assert fields(**entries)["window"] == window


def test_two_windows_that_differ_are_refused():
    with pytest.raises(
        DataError, match="sliding_window = 16 tokens to each side, but local_attention = 34; make them agree"
    ):
        fields(sliding_window=16, local_attention=34)


def test_the_first_of_every_few_layers_is_global():
    kinds = ["full_attention", "sliding_attention"] * 2
    assert fields(layer_types=kinds)["global_every"] == 2
    with pytest.raises(DataError, match="do not repeat; only every N-th layer may be global"):
        fields(layer_types=kinds[::-1])


def test_flags_bases_and_epsilon_are_read():
    given = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "norm_eps": 1e-6}
    found = fields(**given, global_rope_theta=2e5, local_rope_theta=3e3, hidden_activation="gelu_pytorch_tanh")
    bases = {"global_rope_base": 2e5, "local_rope_base": 3e3}
    assert found == {**FIELDS, **SILENT, **given, **bases, "activation": "gelu_tanh"}


def test_an_encoder_that_is_written_comes_back():
    given = {**FIELDS, **SILENT, "window": 6, "global_every": 2, "mlp_bias": True, "activation": "silu"}
    config = MODERNBERT.config(ModernBert(**given))
    assert MODERNBERT.fields(config) == given
    # The defaults of transformers are ids of one vocabulary, which another one has for other tokens.
    assert all(config[f"{name}_token_id"] is None for name in ("bos", "cls", "eos", "sep"))
