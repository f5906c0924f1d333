"""Rows of several texts give each the vector it has alone, and layers laid apart those of the stack, for every family."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_calls import by_text

from embed.models import api
from embed.models.attention import segment_positions
from embed.models.bert import Bert
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.modernbert import ModernBert
from embed.models.pooling import AttentionPooling, FirstPooling, LastPooling, MeanPooling
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
    "t5gemma": T5GemmaEncoder(**SIZES, **GROUPED, window=3),
    "modernbert": ModernBert(**SIZES, window=6, global_every=2),
    "qwen3": Qwen3(**SIZES, **GROUPED),
}
POOLINGS = [MeanPooling(), FirstPooling(), LastPooling(), AttentionPooling(4)]
# Three rows: the texts' lengths in each. 60 positions are more than BERT has: a text has its own, padding none.
ROWS = [(17, 5, 9, 8), (31, 1), (12,)]
LENGTH, MAX_SEGMENTS = 60, 4


def packed():
    random = np.random.default_rng(2)
    tokens = random.integers(0, 50, (len(ROWS), LENGTH)).astype(np.int32)
    segment_ids = np.zeros((len(ROWS), LENGTH), np.int32)
    texts = []
    for r, row in enumerate(ROWS):
        start = 0
        for s, size in enumerate(row):
            segment_ids[r, start : start + size] = s + 1
            texts.append((r, s, tokens[r, start : start + size]))
            start += size
    return tokens, segment_ids, texts


def draw(name: str, model):
    """Returns random parameters, none of them what they start as."""
    random = np.random.default_rng(5)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    size = {"table": 2.0, "kernel": 0.5, "scale": 0.2, "bias": 0.1, "query": 0.5}  # so that texts matter
    return jax.tree_util.tree_map_with_path(
        lambda path, s: (
            jnp.asarray(random.normal(size=s.shape) * size[path[-1].key], s.dtype)
            + (path[-1].key == "scale" and name in ("bert", "xlm-roberta", "modernbert", "qwen3"))
        ),
        shapes,
    )


# Poolings do not depend on the family.
CASES = [(name, p) for name in ENCODERS for p in (POOLINGS if name in ("bert", "gemma") else POOLINGS[:1])]


@pytest.mark.parametrize("name, pooling", CASES, ids=lambda x: x if isinstance(x, str) else type(x).__name__)
def test_a_text_in_a_row_of_several_has_the_vector_it_has_alone(name, pooling):
    model = api.build(Embedder(ENCODERS[name], pooling, projection=(8,)))
    params = draw(name, model)
    tokens, segment_ids, texts = packed()
    found = np.asarray(
        jax.jit(by_text(model), static_argnames="max_segments")(params, tokens, segment_ids, max_segments=MAX_SEGMENTS)
    )
    assert found.shape == (len(ROWS), MAX_SEGMENTS, 8) and np.all(np.isfinite(found))
    width = max(len(t) for *_, t in texts)
    alone = np.zeros((len(texts), width), np.int32)
    for i, (_, _, text) in enumerate(texts):
        alone[i, : len(text)] = text
    mask = np.arange(width) < np.array([len(t) for *_, t in texts])[:, None]
    wanted = np.asarray(jax.jit(by_text(model))(params, alone, mask))
    assert np.max(np.abs(wanted - wanted[0])) > 0.05
    error = max(np.max(np.abs(found[r, s] - wanted[i])) for i, (r, s, _) in enumerate(texts))
    assert error <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_layers_laid_apart_give_what_the_stack_gives(name):
    model = api.build(Embedder(ENCODERS[name], MeanPooling()))
    params = draw(name, model)
    tokens, segment_ids, _ = packed()
    run = jax.jit(by_text(model), static_argnames="max_segments")
    stacked, apart = (
        np.asarray(run(p, tokens, segment_ids, max_segments=MAX_SEGMENTS)) for p in (params, model.apart(params))
    )
    np.testing.assert_allclose(apart, stacked, atol=1e-6)
    assert "query_key_value" in model.apart(params)["encoder"]["stack"]["layer_2"]["attention"]
    assert model.apart(params)["encoder"]["embedding"]["table"] is params["encoder"]["embedding"]["table"]  # no copy


def test_an_encoder_that_arranges_its_stacks_itself_stays_as_it_is():
    class Twice(Gemma):
        """Two stacks, one after the other."""

        @nn.compact
        def __call__(self, tokens, segment_ids, is_training=False):
            positions = segment_positions(segment_ids.astype(jnp.int32))
            x = self.read(tokens, positions, is_training)
            for name in ("first", "second"):
                x = Stack(self.blocks(), self.running(), name=name)(x, segment_ids, positions, is_training)
            return self.finish(x)

    api.register(Twice)
    assert api.build(Embedder(Twice(**SIZES, **GROUPED), MeanPooling())).apart is None


@pytest.mark.slow
def test_the_gradient_of_packed_rows_is_that_of_texts_alone():
    model = api.build(Embedder(ENCODERS["gemma"], MeanPooling()))
    params = model.init(jax.random.key(1))
    tokens, segment_ids, texts = packed()
    weights = np.random.default_rng(0).normal(size=(len(texts), 16)).astype(np.float32)

    def together(p):
        vectors = by_text(model)(p, tokens, segment_ids, max_segments=MAX_SEGMENTS)
        return sum(jnp.vdot(weights[i], vectors[r, s]) for i, (r, s, _) in enumerate(texts))

    def alone(p):
        width = max(len(t) for *_, t in texts)
        rows = np.stack([np.pad(t, (0, width - len(t))) for *_, t in texts])
        mask = np.arange(width) < np.array([len(t) for *_, t in texts])[:, None]
        return jnp.sum(weights * by_text(model)(p, rows, mask))

    a, b = jax.jit(jax.grad(together))(params), jax.jit(jax.grad(alone))(params)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_allclose(x, y, atol=2e-5 * max(1.0, float(jnp.max(jnp.abs(y)))))
