"""Texts of packed rows to one vector each, whole and on a mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_batches import bag_of_words, batch, examples, fast, only, rows

from embed import sharding
from embed.models import api
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.pooling import MeanPooling
from embed.objectives.items import embed_texts, scatter_images
from embed.types import Batch


@pytest.fixture(scope="module")
def gemma():
    encoder = Gemma(48, 16, 2, num_heads=4, num_kv_heads=2, head_dim=4, mlp_dim=24, window=4, global_every=2)
    return api.build(Embedder(encoder, MeanPooling(), (10, 6), (3,)))


@pytest.mark.slow
def test_every_feature_is_embedded_from_its_own_tokens_and_lengths():
    model, pairs = bag_of_words(), examples()
    params = model.init(jax.random.key(0))
    part = only(rows(pairs))
    found = embed_texts(model, params, part)
    assert found.keys() == {"query", "target", "negatives"}

    def by_hand(tokens):
        x = np.asarray(params["table"])[tokens].mean(0) @ np.asarray(params["kernel"])
        return x / np.linalg.norm(x)

    for i, pair in enumerate(pairs):
        np.testing.assert_allclose(found["query"][i], by_hand(pair["query"]), atol=1e-5)
        np.testing.assert_allclose(found["target"][i], by_hand(pair["target"]), atol=1e-5)
        texts = np.split(pair["negatives"], np.cumsum(pair["negatives_lengths"]))[:-1]
        assert part["negatives_mask"][i].tolist() == [True] * len(texts) + [False] * (2 - len(texts))
        for k, tokens in enumerate(texts):
            np.testing.assert_allclose(found["negatives"][i, k], by_hand(tokens), atol=1e-5)


def test_without_negatives_there_is_no_feature_for_them():
    model = bag_of_words()
    found = embed_texts(model, model.init(jax.random.key(0)), only(batch(negatives=0)))
    assert found.keys() == {"query", "target"}


@pytest.mark.slow
def test_texts_draw_different_noise():
    model, pairs = bag_of_words(dropout=True), examples()
    same_text = [{**pair, "target": pair["query"]} for pair in pairs]
    found = embed_texts(model, model.init(jax.random.key(0)), only(rows(same_text)), jax.random.key(1))
    assert np.abs(found["query"] - found["target"]).max() > 1e-2


@pytest.mark.slow
def test_packed_texts_are_embedded_as_if_each_were_alone(gemma):
    pairs = examples(vocab=48)
    params = gemma.init(jax.random.key(5))
    embed = fast(lambda p, b: embed_texts(gemma, p, b))
    alone = embed(params, only(rows(pairs)))
    together = rows(pairs, max_segments=8)
    assert together["segment_ids"].max() > 2
    found = embed(params, only(together))
    for feature in ("query", "target"):
        np.testing.assert_allclose(found[feature], alone[feature], atol=1e-5)
    there = np.asarray(only(together)["negatives_mask"])
    np.testing.assert_allclose(found["negatives"][there], alone["negatives"][there], atol=1e-5)


@pytest.mark.slow
def test_intermediate_embeddings_come_beside_the_final_ones_of_the_same_texts(gemma):
    pairs, params = examples(vocab=48), gemma.init(jax.random.key(5))
    part = only(rows(pairs, max_segments=8))
    both = fast(lambda p, b: embed_texts(gemma, p, b, with_intermediate=True))(params, part)
    final = fast(lambda p, b: embed_texts(gemma, p, b))(params, part)
    assert both.keys() == {*final, *(f"{name}_intermediate" for name in final)}
    for name, x in final.items():
        np.testing.assert_allclose(both[name], x, atol=1e-6)
        # The last map of the intermediate embedding is the final one, but for its length.
        mapped = np.asarray(both[f"{name}_intermediate"], np.float64) @ np.asarray(params["projection_1"]["kernel"])
        np.testing.assert_allclose(mapped / np.linalg.norm(mapped, axis=-1, keepdims=True), x, atol=1e-5)


@pytest.mark.slow
def test_embeddings_are_split_over_the_batch(gemma):
    mesh = sharding.make_mesh(sharding.MeshShape(2, 2, 2))
    with jax.set_mesh(mesh):
        shapes = jax.eval_shape(gemma.init, jax.random.key(0))
        params = fast(gemma.init, out_shardings=sharding.shardings(gemma.axes, shapes, mesh))(jax.random.key(0))
        part = only(rows(examples(vocab=48), shards=4, max_segments=8))
        part = jax.device_put(part, sharding.batch_sharding(mesh))
        program = fast(lambda p, b: embed_texts(gemma, p, b)).lower(params, part).compile()
        found = jax.block_until_ready(program(params, part))
    height = part["tokens"].shape[0] // 4
    # A shard's vectors are [height, 8 segments, 6]: neither they nor their rows are gathered from the others.
    gathered = [line for line in program.as_text().splitlines() if "all-gather" in line or "all-reduce" in line]
    assert not [line for line in gathered if f"[{4 * height}" in line or f"[4,{height}" in line]
    for x in found.values():
        assert x.sharding.is_equivalent_to(sharding.batch_sharding(mesh), x.ndim)
        assert {s.data.shape[0] for s in x.addressable_shards} == {2}


def test_images_are_put_where_the_tokens_of_their_text_stand_for_them():
    random = np.random.default_rng(0)
    rows_, length, segments, count, slots, width = 3, 12, 4, 2, 2, 5
    tokens = random.integers(1, 9, (rows_, length)).astype(np.int32)
    segment_ids = np.repeat([[1, 1, 1, 2, 2, 2, 2, 3, 3, 0, 0, 0]], rows_, 0).astype(np.int32)
    tokens[segment_ids == 0] = 0
    for row, column, token in [(0, 1, -1), (0, 2, -2), (0, 4, -4), (1, 0, -3), (1, 8, -1), (2, 5, -2)]:
        tokens[row, column] = token
    index = np.array([4, 0, 1, 6], np.int32)  # texts 0..3 are segment 0 of row 1, 0 and 1 of row 0, 2 of row 1
    vectors = random.normal(size=(4, count, slots, width)).astype(np.float32)
    expected = np.zeros((rows_, length, width), np.float32)
    for text, segment in enumerate(index):
        row, number = divmod(int(segment), segments)
        for column in np.flatnonzero((segment_ids[row] == number + 1) & (tokens[row] < 0)):
            image, slot = divmod(-1 - int(tokens[row, column]), slots)
            expected[row, column] = vectors[text, image, slot]
    found = scatter_images(tokens, segment_ids, index, vectors, segments)
    np.testing.assert_array_equal(found, expected)
    assert expected[2].max() == 0 and np.abs(expected[1, 8]).max() > 0  # row 2 holds texts of another feature


@pytest.mark.slow
def test_each_feature_of_images_in_texts_draws_dropout_of_its_own():
    keys = []

    def apply(params, inputs, *, method, key=None, max_segments=None):
        keys.append((method, key))
        return jnp.zeros((2, 1, 1, 4)) if method == "inserted" else jnp.ones((2, 6))

    model = dataclasses.replace(bag_of_words(), apply=apply, methods={"mixed": None}, description={"max_images": 1})
    arrays = {"tokens": np.ones((2, 3), np.int32), "segment_ids": np.ones((2, 3), np.int32)}
    for name in ("query", "target"):
        arrays |= {f"{name}_index": np.arange(2, dtype=np.int32), f"{name}_images": np.zeros((2, 1, 4, 4, 3), np.uint8)}
    embed_texts(model, {}, Batch(arrays, None), jax.random.key(0))
    assert [method for method, _ in keys] == ["inserted", "inserted", "mixed"]
    drawn = {tuple(np.asarray(jax.random.key_data(key))) for _, key in keys}
    assert len(drawn) == 3
