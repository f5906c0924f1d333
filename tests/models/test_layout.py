"""Parameters laid out for serving: each layer apart, the maps into attention side by side, and the same vectors."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_transformer import draw, rows, run

from embed.models import api, layout
from embed.models.attention import segment_positions
from embed.models.bert import Bert
from embed.models.embedder import Embedder
from embed.models.embedding_gemma2 import EmbeddingGemma2
from embed.models.gemma import Gemma
from embed.models.modernbert import ModernBert
from embed.models.pooling import MeanPooling
from embed.models.qwen3 import Qwen3
from embed.models.t5gemma import T5GemmaEncoder
from embed.models.transformer import Stack

SIZES = {"vocab_size": 50, "width": 16, "num_layers": 3, "num_heads": 4, "mlp_dim": 24}
GROUPED = {"num_kv_heads": 2, "head_dim": 6}
ENCODERS = {
    "bert": Bert(**SIZES, max_positions=32),
    "xlm-roberta": Bert(**SIZES, max_positions=34, position_offset=2),
    "gemma": Gemma(**SIZES, **GROUPED, window=6, global_every=2),
    "gemma-causal": Gemma(**SIZES, **GROUPED, window=4, global_every=2, causal=True),
    "embedding_gemma2": EmbeddingGemma2(
        **SIZES, **GROUPED, global_head_dim=8, per_layer_dim=10, window=3, global_every=2
    ),
    "t5gemma": T5GemmaEncoder(**SIZES, **GROUPED, window=3),
    "modernbert": ModernBert(**SIZES, window=6, global_every=2),
    "qwen3": Qwen3(**SIZES, **GROUPED),
}


# The tests of the families hold some of them against numpy, laid apart.
@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_layers_laid_apart_give_what_the_stack_gives(name):
    encoder = ENCODERS[name]
    params = draw(encoder, 0.0 if "gemma" in name and name != "embedding_gemma2" else 1.0)
    apart, stacked = run(encoder, params, apart=True), run(encoder, params)
    for place in rows(50)[2]:
        one, other = (np.float64(x[place]).mean(0) for x in (apart, stacked))
        np.testing.assert_allclose(one / np.linalg.norm(one), other / np.linalg.norm(other), rtol=0, atol=1e-6)


def test_every_layer_has_its_own_and_the_maps_into_attention_lie_side_by_side():
    random = np.random.default_rng(0)
    layers, width, heads, groups, size = 2, 3, 4, 2, 5
    draw = lambda *shape: random.normal(size=(layers, *shape)).astype(np.float32)  # noqa: E731
    counts = {"query": heads, "key": groups, "value": groups}
    attention = {name: {"kernel": draw(width, n, size), "bias": draw(n, size)} for name, n in counts.items()}
    attention |= {"output": {"kernel": draw(heads, size, width)}, "query_norm": {"scale": draw(size)}}
    block = {"attention": attention, "mlp": {"up": {"kernel": draw(width, 7)}}}
    table, head = np.ones((9, width)), np.ones((width, 2))
    params = {
        "encoder": {"embedding": {"table": table}, "stack": {"layers": block}, "final_norm": {"scale": head}},
        "projection_0": {"kernel": head},
    }
    found = layout.apart(params)
    # What is no layer is the same array: nothing is held twice.
    assert found["encoder"]["embedding"]["table"] is table and found["projection_0"]["kernel"] is head
    assert set(found["encoder"]["stack"]) == {"layer_0", "layer_1"}
    for number in range(layers):
        own = found["encoder"]["stack"][f"layer_{number}"]
        assert set(own["attention"]) == {"output", "query_norm", "query_key_value"}
        np.testing.assert_array_equal(own["mlp"]["up"]["kernel"], block["mlp"]["up"]["kernel"][number])
        np.testing.assert_array_equal(own["attention"]["output"]["kernel"], attention["output"]["kernel"][number])
        column = 0
        for name, count in counts.items():
            for h in range(count):
                columns, column = slice(column, column + size), column + size
                fused = own["attention"]["query_key_value"]
                np.testing.assert_array_equal(fused["kernel"][:, columns], attention[name]["kernel"][number, :, h])
                np.testing.assert_array_equal(fused["bias"][columns], attention[name]["bias"][number, h])
        assert fused["kernel"].shape == (width, column) and fused["bias"].shape == (column,)
    assert "layers" in params["encoder"]["stack"]  # what was given is as it was


def test_maps_without_biases_have_none():
    maps = {name: {"kernel": jnp.zeros((1, 2, 1, 2))} for name in ("query", "key", "value")}
    found = layout.apart({"encoder": {"stack": {"layers": {"attention": maps}}}})
    shapes = jax.tree.map(jnp.shape, found["encoder"]["stack"])
    assert shapes == {"layer_0": {"attention": {"query_key_value": {"kernel": (2, 6)}}}}


def test_an_encoder_that_arranges_its_stacks_itself_stays_as_it_is(monkeypatch):
    class Twice(Gemma):
        """Two stacks, one after the other."""

        @nn.compact
        def __call__(self, tokens, segment_ids, is_training=False):
            positions = segment_positions(segment_ids.astype(jnp.int32))
            x = self.embed_tokens(tokens, positions, is_training)
            for name in ("first", "second"):
                x = Stack(self.blocks(), self.running(), name=name)(x, segment_ids, positions, is_training)
            return self.finish(x)

    monkeypatch.setattr(api, "_REGISTRY", dict(api._REGISTRY))
    api.register(Twice)
    assert api.build(Embedder(Twice(**SIZES, **GROUPED), MeanPooling())).apart is None
