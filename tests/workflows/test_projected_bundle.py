"""Embeddings projected on principal components, against numpy's singular vectors; truncated ones; what is refused."""

import dataclasses

import numpy as np
import pytest
from tiny_models import made_up_texts, small_dual_encoder, small_module, word_tokenizer, write_model

from embed import bundles, files
from embed.averaging import lineage
from embed.data import vector_store
from embed.errors import DataError, UsageError
from embed.inference.model import open_model
from embed.workflows import encode, export, projected_bundle

TEXTS = ["a b c", "k l", "z", "q r s t u", "b a"]


def bare_module(vocab_size: int):
    """The tiny model without a linear map after pooling."""
    return dataclasses.replace(small_module(vocab_size), projection=(), matryoshka_dims=(8, 4))


@pytest.fixture(scope="module", params=["with maps", "without"])
def model(request, bundle, tokenizer, tmp_path_factory):
    if request.param == "with maps":
        return bundle
    return write_model(tmp_path_factory.mktemp("bare") / "bundle", tokenizer, vocab_size=64, module=bare_module)


def letters(count: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(list("abcdefghijklmnopqrstuvwxyz"), size=draw.integers(1, 9))) for _ in range(count)]


def stored(bundle, folder, count=40, seed=0, **changed):
    """Vectors of the model by content id, as `embed encode --gin_file` writes them; returns them too."""
    opened = open_model(bundle)
    vectors = opened.encode(letters(count, seed))
    identity = {"model": opened.digest, "dims": 16} | changed
    vector_store.write(folder, np.arange(count), vectors, identity=identity)
    return vectors


def test_the_first_values_are_the_principal_components(model, tmp_path, capsys):
    sides = [
        stored(model, tmp_path / "v" / side, *given) for side, given in {"query": (40, 0), "target": (90, 1)}.items()
    ]
    export.run(model, tmp_path / "projected", format="bundle", principal_components=tmp_path / "v")
    assert f"projecting {model} on principal components of 130 vectors of {tmp_path}/v\n" in capsys.readouterr().out
    # Each side counts the same: rows are weighted so, and the right singular vectors are the components.
    weighted = np.concatenate([side.astype(np.float64) / len(side) ** 0.5 for side in sides])
    components = np.linalg.svd(weighted)[2]
    before, projected = open_model(model).encode(TEXTS), open_model(tmp_path / "projected")
    after = projected.encode(TEXTS)
    np.testing.assert_allclose(np.abs(after), np.abs(before.astype(np.float64) @ components.T), atol=2e-6)
    np.testing.assert_allclose(after @ after.T, before @ before.T, atol=2e-6)
    assert projected.matryoshka_dims == (16, 8, 4)


def test_the_signs_of_components_do_not_depend_on_the_library():
    draw = np.random.default_rng(0).normal(size=(50, 8))
    components = projected_bundle.principal_components(draw.T @ draw)
    np.testing.assert_allclose(components.T @ components, np.eye(8), atol=1e-12)
    assert all(column[np.argmax(np.abs(column))] > 0 for column in components.T)


def test_a_cut_model_has_the_prefix_and_loses_less(model, tmp_path, capsys):
    vectors = stored(model, tmp_path / "v", 200)
    export.run(model, tmp_path / "projected", format="bundle", principal_components=tmp_path / "v")
    export.run(model, tmp_path / "narrow", format="bundle", principal_components=tmp_path / "v", dims=6)
    shown = capsys.readouterr().out
    export.run(model, tmp_path / "cut", format="bundle", dims=6)
    narrow, cut = open_model(tmp_path / "narrow"), open_model(tmp_path / "cut")
    assert narrow.embedding_dim == cut.embedding_dim == 6 and narrow.matryoshka_dims == (6, 4)
    np.testing.assert_allclose(
        narrow.encode(TEXTS), open_model(tmp_path / "projected").encode(TEXTS, dims=6), atol=1e-6
    )
    np.testing.assert_allclose(cut.encode(TEXTS), open_model(model).encode(TEXTS, dims=6), atol=1e-6)
    squared = lambda x: float((x.astype(np.float64) ** 2).mean(0)[:6].sum())  # noqa: E731
    kept = squared(open_model(tmp_path / "projected").encode(letters(200, 0)))
    assert f"kept       {kept:.1%} of the squared length in the first 6 values, {squared(vectors):.1%} before" in shown
    assert kept > squared(vectors) + 0.05


def test_the_vectors_of_a_file_are_taken_too(bundle, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(letters(60, 3)))
    encode.run(bundle, tmp_path / "texts.txt", tmp_path / "job", prompt="query", format="npy", shard_size=25)
    export.run(bundle, tmp_path / "a", format="bundle", principal_components=tmp_path / "job")
    stored(bundle, tmp_path / "v", 60, 3)
    export.run(bundle, tmp_path / "b", format="bundle", principal_components=tmp_path / "v")
    found = [open_model(tmp_path / name).encode(TEXTS) for name in "ab"]
    np.testing.assert_allclose(np.abs(found[0]), np.abs(found[1]), atol=1e-5)
    encode.run(bundle, tmp_path / "texts.txt", tmp_path / "int8", prompt="query", precision="int8")
    with pytest.raises(DataError, match="int8: holds vectors of int8; encode without --quantize"):
        export.run(bundle, tmp_path / "c", format="bundle", principal_components=tmp_path / "int8")


def test_its_average_with_the_model_that_it_was_made_of_is_refused(bundle, tmp_path):
    stored(bundle, tmp_path / "v")
    export.run(bundle, tmp_path / "projected", format="bundle", principal_components=tmp_path / "v")
    assert bundles.read_model_json(tmp_path / "projected")["lineage"]["projected"]["model"] == files.folder_digest(
        bundle
    )
    with pytest.raises(DataError, match="has no ancestor in common"):
        lineage.check([tmp_path / "projected", bundle])


WRONG = {
    "another model": ({"model": "0" * 64}, {}, "holds vectors of another model (000000000000) than"),
    "cut": ({"dims": 8}, {}, "holds the first 8 of 16 values; encode without --dims"),
    "few": ({"count": 9}, {}, "holds 9 vectors, fewer than their 16 values; encode more texts"),
    "too many values": ({}, {"dims": 17}, "--dims=17: the embedding of "),
    "packed too": ({}, {"quantization": "int8_blocks"}, "--principal_components and --quantization are two exports"),
    "another form": ({}, {"format": "onnx"}, " goes with --format=bundle; export the bundle that it writes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_and_nothing_is_written(bundle, tmp_path, case):
    vectors, options, message = WRONG[case]
    vectors = dict(vectors)
    stored(bundle, tmp_path / "v", vectors.pop("count", 40), **vectors)
    with pytest.raises((DataError, UsageError)) as caught:
        export.run(bundle, tmp_path / "out", **{"format": "bundle", "principal_components": tmp_path / "v", **options})
    assert message in str(caught.value) and not (tmp_path / "out").exists()


def test_a_model_that_reads_images_and_a_packed_one_are_refused(bundle, tokenizer, tmp_path):
    stored(bundle, tmp_path / "v")
    export.run(bundle, tmp_path / "packed", format="bundle", quantization="mixed_channels")
    with pytest.raises(UsageError, match="packed is quantised, and the projection would not be"):
        export.run(tmp_path / "packed", tmp_path / "out", format="bundle", dims=4)
    images = write_model(
        tmp_path / "images", word_tokenizer(tmp_path / "t.json", made_up_texts(20)), module=small_dual_encoder
    )
    with pytest.raises(UsageError, match="are for models of texts, and .*images reads images"):
        export.run(images, tmp_path / "out", format="bundle", dims=4)


@pytest.mark.slow
def test_it_is_exported_as_any_model(bundle, tmp_path):
    stored(bundle, tmp_path / "v")
    export.run(bundle, tmp_path / "narrow", format="bundle", principal_components=tmp_path / "v", dims=6)
    export.run(tmp_path / "narrow", tmp_path / "st")  # which compares the vectors itself
    assert files.read_manifest(tmp_path / "st")["form"] == "sentence-transformers"
