"""Encoding: every text once, in order, the same vector alone or among others."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed import arrays, sharding
from embed.errors import DataError, EmbedError
from embed.inference import plan
from embed.models import api
from embed.models.embedder import Embedder
from embed.models.pooling import MeanPooling
from embed.sharding import MeshShape
from embed.text import PROMPTS, apply_prompt, clean
from embed.types import Item


@pytest.fixture(scope="module")
def alone(model):
    """Returns the vector of one prompted text by the model itself: one row, no padding."""
    apply = jax.jit(model.encoder.model.apply)
    params = arrays.load_numpy(model.folder)

    def encode(text: str, prompt: str = "query", title: str = "") -> np.ndarray:
        prompted = apply_prompt(PROMPTS[prompt], clean(text), title)
        ids = model.encoder.texts.tokenizer.encode_batch([prompted], model.encoder.texts.max_length)[0][0]
        tokens = jnp.asarray(ids)[None]
        return np.asarray(apply(params, {"tokens": tokens, "segment_ids": jnp.ones(tokens.shape, bool)}))[0]

    return encode


def test_encoding_in_batches_equals_encoding_alone(model, texts_of, alone):
    texts = texts_of(200, seed=1)
    sizes = np.array([len(r) for r in model.encoder.texts.tokens(texts, "query")])
    lengths = np.unique(sizes)[[3, -8]]  # a program is compiled for each
    texts = [t for n in lengths for t in np.array(texts)[sizes == n].tolist()[:8]]
    assert len(texts) >= 12
    found = model.encode(texts)
    assert found.dtype == np.float32 and found.shape == (len(texts), 16)
    wanted = np.stack([alone(t) for t in texts])
    assert np.abs(found - wanted).max() <= 2e-6
    assert np.abs(wanted - wanted[0]).max() > 0.05  # the texts do have different vectors


@pytest.mark.slow
def test_the_order_of_texts_is_kept(model, texts_of):
    texts = texts_of(24, seed=8)
    found = model.encode(texts)
    order = np.random.default_rng(0).permutation(24)
    np.testing.assert_allclose(model.encode([texts[i] for i in order]), found[order], atol=2e-6)
    same = [(i, j) for i in range(24) for j in range(i) if texts[i] == texts[j]]
    nearest = np.argsort(-(found @ found.T), 1)[:, 0]
    assert all(n == i or (max(i, n), min(i, n)) in same for i, n in enumerate(nearest))


@pytest.mark.parametrize("tokens_per_batch, batches", [(1, 3), (100_000, 1)])
def test_the_size_of_batches_does_not_change_the_vectors(model, texts_of, tokens_per_batch, batches):
    """Progress is told after each of them."""
    texts, told = texts_of(24, seed=8), []
    encoder = dataclasses.replace(model.encoder.texts, tokens_per_batch=tokens_per_batch)
    found = encoder(model.params, texts, prompt="query", progress=told.append)
    np.testing.assert_allclose(found, model.encode(texts), atol=2e-6)
    assert len(told) == batches and sum(told) == 24 and all(n > 0 for n in told)


@pytest.mark.slow
def test_the_mesh_does_not_change_the_vectors(model, texts_of):
    texts = texts_of(24, seed=8)
    mesh = sharding.make_mesh(MeshShape(1, 2, 4))
    encoder = dataclasses.replace(model.encoder.texts, mesh=mesh)
    placed = sharding.shardings(model.encoder.model.axes, model.stored, mesh)
    params = jax.device_put(arrays.load_numpy(model.folder), placed)
    np.testing.assert_allclose(encoder(params, texts, prompt="query"), model.encode(texts), atol=2e-6)


def test_vectors_have_unit_length(model, texts_of):
    np.testing.assert_allclose(np.linalg.norm(model.encode(texts_of(10)), axis=1), 1, atol=1e-6)


@pytest.mark.slow
def test_prompts_and_titles_are_part_of_the_text(model, alone):
    text = "bada kolo"
    found = model.encode([Item(text, "mira"), text], prompt="document")
    np.testing.assert_allclose(found[0], alone(text, "document", "mira"), atol=2e-6)
    np.testing.assert_allclose(found[1], alone(text, "document"), atol=2e-6)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    without = model.encode([text], prompt="document")
    np.testing.assert_allclose(without[0], found[1], atol=2e-6)
    assert np.abs(model.encode([text], prompt="query")[0] - without[0]).max() > 1e-3


def test_a_prompt_may_be_a_template(model):
    given = model.encode(["bada kolo"], prompt="task: search result | query: {content}")
    np.testing.assert_allclose(given, model.encode(["bada kolo"], prompt="query"), atol=2e-6)


def test_braces_in_a_text_are_text(model):
    rows = model.encoder.texts.tokens([Item("{title} {content} {0}", "{content}")], "document")
    decoded = model.encoder.texts.tokenizer.decode(rows[0])
    assert decoded.count("{content}") == 2 and decoded.count("{title}") == 1


def test_texts_are_cleaned_before_they_are_encoded(model):
    plain, padded, apart = model.encode(["é bada", "  \n é bada\t", "e\u0301 bada"])
    np.testing.assert_allclose(padded, plain, atol=2e-6)
    np.testing.assert_allclose(apart, plain, atol=2e-6)


@pytest.mark.parametrize("dims", [1, 4, 8, 15, 16])
def test_fewer_dimensions_are_scaled_back_to_unit_length(model, texts_of, dims):
    texts = texts_of(6)
    full, found = model.encode(texts).astype(np.float64), model.encode(texts, dims=dims)
    cut = full[:, :dims]
    assert found.shape == (6, dims) and found.dtype == np.float32
    np.testing.assert_allclose(found, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=2e-6)


@pytest.mark.parametrize("dims", [0, -1, 17])
def test_dimensions_the_model_does_not_have_are_refused(model, dims):
    with pytest.raises(DataError, match="1 to 16"):
        model.encode(["bada"], dims=dims)


def test_a_single_text_gives_one_row(model):
    found = model.encode("bada kolo")
    assert found.shape == (1, 16)
    np.testing.assert_allclose(found, model.encode(["bada kolo"]), atol=2e-6)


def test_no_texts_give_no_rows(model):
    assert model.encode([]).shape == (0, 16) and model.encode([]).dtype == np.float32
    assert model.encode([], dims=4).shape == (0, 4)


@pytest.mark.parametrize("empty", ["", "  ", "\n\t\u00a0"])
def test_an_empty_text_is_refused_with_its_place(model, empty):
    with pytest.raises(DataError, match="text 2 of 3 is empty"):
        model.encode(["bada", "kolo", empty])


@pytest.mark.slow
@pytest.mark.parametrize("empty", ["", "  ", "\n\t\u00a0"])
def test_an_empty_text_may_be_its_prompt_alone(model, alone, empty):
    bada, kolo = model.encode(["bada", "kolo"])
    found = model.encode(["bada", empty, "kolo"], allow_empty=True)
    np.testing.assert_allclose(found, np.stack([bada, alone(""), kolo]), atol=2e-6)
    titled = model.encode([Item(empty, "kolo")], prompt="document", allow_empty=True)
    np.testing.assert_allclose(titled[0], alone("", "document", "kolo"), atol=2e-6)


def test_an_empty_text_without_any_token_is_refused(model):
    class Nothing:
        pad_id = 0

        def encode_batch(self, texts, max_length):
            return [np.array([5, 6][: len(text)], np.int32) for text in texts], [False] * len(texts)

    encoder = dataclasses.replace(model.encoder.texts, tokenizer=Nothing())
    with pytest.raises(DataError, match="text 1 of 2 gives no token; remove it, or give it a prompt"):
        encoder.tokens(["a", ""], "none", allow_empty=True)


def test_an_unknown_prompt_names_the_known_ones(model):
    with pytest.raises(EmbedError, match="'qery'") as caught:
        model.encode(["bada"], prompt="qery")
    assert all(name in str(caught.value) for name in PROMPTS)


def test_texts_that_are_cut_are_counted(model):
    told = []
    encoder = dataclasses.replace(
        model.encoder.texts, max_length=24, overflow=lambda cut, total: told.append((cut, total))
    )
    long = "bada kolo " * 200
    found = encoder(model.params, ["bada", long, "kolo", long + "mira"], prompt="none")
    assert told == [(2, 4)]
    np.testing.assert_allclose(found[1], found[3], atol=2e-6)
    assert max(map(len, encoder.tokens([long], "none"))) == 24


def with_flops(model, flops):
    """Returns the model with other FLOPs for a text of some tokens."""
    text = dataclasses.replace(model.encoder.model.methods["text"], flops=flops)
    return dataclasses.replace(model.encoder.model, methods={"text": text})


def test_few_shapes_are_compiled_and_little_is_padding(model, texts_of):
    rows = model.encoder.texts.tokens(texts_of(600, seed=5), "query")
    wide = with_flops(model, lambda length: float(length))  # attention is little of it
    batches = dataclasses.replace(model.encoder.texts, model=wide, tokens_per_batch=1024).plan(rows)
    assert len(plan.shapes(batches)) <= 4
    assert sum(map(len, rows)) >= 0.9 * plan.padded_tokens(batches)  # of few texts on eight devices


def test_rows_are_no_longer_than_their_texts_where_attention_is_most_of_the_work(model):
    """A CPU takes longer for attention to other texts than for padding, the more so the narrower the model."""
    rows = [np.zeros(40, np.int32)] * 2000

    def length(dense, attention):
        flops = lambda n: n * (dense + attention * n)  # noqa: E731
        return (
            dataclasses.replace(model.encoder.texts, model=with_flops(model, flops), tokens_per_batch=1024)
            .plan(rows)[0]
            .length
        )

    assert length(1e6, 100.0) == 128  # three texts to a row
    assert length(1e6, 1e4) == 64


def test_long_rows_come_in_batches_whose_attention_a_cpu_holds(model):
    encoder = dataclasses.replace(model.encoder.texts, tokens_per_batch=1024, max_length=512)
    shards = encoder.batch_tokens // 1024
    heights = {n: encoder.plan([np.zeros(n, np.int32)] * 100)[0].height // shards for n in (64, 128, 256, 512)}
    assert heights == {64: 16, 128: 8, 256: 2, 512: 1}


@pytest.mark.slow
def test_an_encoder_that_knows_no_rows_of_several_texts_is_given_one_a_row(model, texts_of):
    class Bag(nn.Module):
        """Token vectors minus the row's mean: wrong at once when another text is in the row."""

        width: int = 16

        @nn.compact
        def __call__(self, tokens, mask, is_training=False):
            assert mask.dtype == bool
            x = nn.Embed(400, self.width)(tokens) * mask[..., None]
            return x * jnp.arange(1, self.width + 1) - jnp.sum(x, 1, keepdims=True)

    api.register(Bag)
    made = api.build(Embedder(Bag(), MeanPooling()))
    assert not made.methods["text"].packs and model.encoder.model.methods["text"].packs
    params = made.init(jax.random.key(0))
    encoder = dataclasses.replace(model.encoder.texts, model=made)
    texts = texts_of(12, seed=6)
    found = encoder(params, texts, prompt="query")
    (table,) = (np.asarray(x, np.float64) for x in jax.tree.leaves(params))
    for ids, vector in zip(encoder.tokens(texts, "query"), found):
        rows = table[ids]
        mean = (rows * np.arange(1, 17) - rows.sum(0)).mean(0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=2e-6)
