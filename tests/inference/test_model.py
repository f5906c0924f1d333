"""A MODEL opened: verified first, refused when anything in it is not what it was."""

import random
import shutil

import jax
import numpy as np
import pytest

import embed
from embed import arrays, checkpoints, documents, files, sharding, trees
from embed.errors import DataError
from embed.inference import weights
from embed.inference.model import _to_serve, open_model
from embed.models import layout


@pytest.fixture
def copied(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "copy")


def commit_again(folder) -> None:
    """Makes a changed bundle's manifest agree with its files."""
    trees = files.read_manifest(folder)["trees"]
    files.write_manifest(folder, trees=trees)


def assert_serves(opened, stored) -> None:
    """Asserts that the open model has the parameters that a checkpoint holds, as it lays them out."""
    found, wanted = opened.params, layout.apart(stored)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_load_opens_a_bundle(bundle, model):
    found = embed.load(bundle)
    texts = ["bada kolo", "mira"]
    np.testing.assert_array_equal(found.encode(texts), model.encode(texts))
    assert found.digest == files.folder_digest(bundle) and found.folder == bundle
    assert found.matryoshka_dims == (16, 8, 4)
    assert found.prompts["query"].endswith("{content}")
    assert embed.load(str(bundle), max_length=20).encoder.texts.max_length == 20


def test_the_length_is_the_longest_of_training(model):
    assert model.encoder.texts.max_length == 48


@pytest.mark.slow
def test_a_run_folder_opens_at_its_newest_step_and_at_its_best(tmp_path, vocabulary, write_tiny):
    steps = tmp_path / "run" / "checkpoints"
    steps.mkdir(parents=True)
    folders = {step: write_tiny(tmp_path / f"b{step}", vocabulary, seed=step) for step in (2, 10)}
    for step, folder in folders.items():
        shutil.move(folder, steps / str(step))
    newest, best = (arrays.load_numpy(steps / str(s)) for s in (10, 2))
    assert not np.array_equal(*(jax.tree.leaves(t)[0] for t in (newest, best)))
    assert_serves(open_model(tmp_path / "run"), newest)
    files.write_json(tmp_path / "run" / "best.json", {"step": 2, "score": 1.0, "metric": "ndcg_at_10"})
    assert_serves(open_model(tmp_path / "run"), best)


def test_what_a_run_exports_is_served_and_not_what_it_learns(bundle, model, tmp_path):
    params = arrays.load_numpy(bundle)
    ema = jax.tree.map(lambda x: x[::-1].copy(), params)
    small = ("model.json", "tokenizer.model")
    contents = {name: (bundle / name).read_bytes() for name in small}
    saver = checkpoints.Saver(tmp_path / "checkpoints")
    saver.save(1, {"params": ema, "learned": {"model": params}}, contents)
    saver.save(2, {"params": params, "ema": ema}, contents)
    saver.close()
    assert_serves(open_model(tmp_path / "checkpoints" / "1"), ema)
    # Older versions saved the average beside the parameters; these must not be served in its place.
    with pytest.raises(DataError, match="2: an older version of embed saved a moving average.*export the model with"):
        open_model(tmp_path / "checkpoints" / "2")


@pytest.mark.slow
def test_a_model_that_is_large_for_a_device_lies_over_several_and_gives_the_same(bundle, model, monkeypatch):
    size = sum(x.nbytes for x in jax.tree.leaves(model.params))
    monkeypatch.setattr(sharding, "device_memory", lambda devices: size / 2)
    found = open_model(bundle)
    assert found.encoder.mesh.shape["fsdp"] == 4 and found.encoder.mesh.size == len(jax.devices())
    kernel = found.params["encoder"]["stack"]["layers"]["mlp"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4
    texts = ["bada kolo", "mira"]
    np.testing.assert_allclose(found.encode(texts), model.encode(texts), atol=1e-6)
    assert open_model(bundle, devices=jax.devices()[:1]).encoder.mesh.size == 1


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_other_parameters_are_given_as_a_checkpoint_has_them(bundle, devices):
    opened = open_model(bundle, devices=jax.devices()[:devices])
    stored = arrays.load_numpy(bundle)
    texts = ["bada kolo", "mira"]
    np.testing.assert_array_equal(opened.with_params(stored).encode(texts), opened.encode(texts))
    other = jax.tree.map(lambda x: x[::-1].copy(), stored)
    assert np.abs(opened.with_params(other).encode(texts) - opened.encode(texts)).max() > 1e-2


def test_a_deep_model_is_compiled_as_one_scanned_block(bundle, model, monkeypatch):
    """Layers apart run faster on a CPU, but each is compiled on its own."""
    monkeypatch.setattr("embed.inference.model._APART", 1)
    deep = open_model(bundle)
    assert "layers" in deep.params["encoder"]["stack"] and "layer_0" in model.params["encoder"]["stack"]
    texts = ["bada kolo", "mira"]
    np.testing.assert_allclose(deep.encode(texts), model.encode(texts), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bfloat16", "int4_blocks", "mixed_channels"])
def test_weights_are_rounded_before_they_are_laid_out(bundle, kind):
    opened = open_model(bundle, weights=kind)
    stored = arrays.load_numpy(bundle)
    assert_serves(opened, weights.rounded(stored, kind, opened.encoder.model.axes))
    assert opened.digest.endswith(f"-{kind}")
    assert np.abs(opened.encode(["bada kolo"]) - open_model(bundle).encode(["bada kolo"])).max() > 1e-5


@pytest.mark.slow
def test_kernels_are_in_the_type_of_computation_once_and_for_all(bundle):
    """Every call would cast them otherwise."""
    found = trees.flatten(open_model(bundle, dtype="bfloat16").params)
    kernels = {path: x.dtype for path, x in found.items() if path.startswith("encoder") and path.endswith("kernel")}
    assert kernels and set(kernels.values()) == {jax.numpy.bfloat16.dtype}
    assert {x.dtype.name for path, x in found.items() if path not in kernels} == {"float32"}


@pytest.mark.slow
def test_random_weights_give_other_vectors_of_the_same_shape(bundle, model):
    texts = ["bada kolo", "mira"]
    untrained = open_model(bundle, random=True)
    found = untrained.encode(texts)
    assert found.shape == (2, 16) and untrained.digest == "random"
    assert np.abs(found - model.encode(texts)).max() > 1e-2


@pytest.mark.parametrize("seed", range(2))
def test_a_flipped_byte_anywhere_is_refused(copied, seed):
    draw = random.Random(seed)
    paths = sorted(p for p in copied.rglob("*") if p.is_file() and p.name != files.MANIFEST and p.stat().st_size)
    for path in draw.sample(paths, min(6, len(paths))):
        intact = path.read_bytes()
        damaged = bytearray(intact)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(damaged))
        for untrained in (False, True):
            with pytest.raises(DataError, match="damaged") as caught:
                open_model(copied, random=untrained)
            assert str(path) in str(caught.value)
        path.write_bytes(intact)
    open_model(copied)


def test_a_swapped_tokenizer_is_refused(copied, other_vocabulary):
    (copied / "tokenizer.model").write_bytes(other_vocabulary)
    with pytest.raises(DataError, match="tokenizer.model"):
        open_model(copied)
    commit_again(copied)
    with pytest.raises(DataError, match="not the one the model was trained with"):
        open_model(copied)


def test_other_tokenizer_options_are_refused(copied):
    description = documents.read_json(copied / "model.json")
    description["tokenizer"]["add_eos"] = False
    files.write_json(copied / "model.json", description)
    commit_again(copied)
    with pytest.raises(DataError, match="not the one the model was trained with"):
        open_model(copied)


def test_another_architecture_is_refused_with_the_difference(copied):
    description = documents.read_json(copied / "model.json")
    description["architecture"]["projection"] = [24, 12]
    description["architecture"]["matryoshka_dims"] = []
    files.write_json(copied / "model.json", description)
    commit_again(copied)
    with pytest.raises(DataError, match="projection_1"):
        open_model(copied)


@pytest.mark.parametrize(
    "change, words", [({"type": "Embeder"}, "did you mean 'Embedder'"), ({"rank": 3}, "no field 'rank'")]
)
def test_an_unknown_architecture_is_a_data_error(copied, change, words):
    description = documents.read_json(copied / "model.json")
    description["architecture"].update(change)
    files.write_json(copied / "model.json", description)
    commit_again(copied)
    with pytest.raises(DataError, match=words):
        open_model(copied)


@pytest.mark.parametrize("field", ["architecture", "tokenizer", "prompts", "lengths"])
def test_a_model_json_without_a_field_is_a_data_error(copied, field):
    description = documents.read_json(copied / "model.json")
    del description[field]
    files.write_json(copied / "model.json", description)
    commit_again(copied)
    with pytest.raises(DataError, match=field):
        open_model(copied)


def test_a_bundle_written_anew_at_the_same_place_opens_with_its_own_vocabulary(
    tmp_path, vocabulary, other_vocabulary, write_tiny
):
    path = write_tiny(tmp_path / "b", vocabulary)
    text = "task bada kolo mira"
    before = open_model(path).encoder.texts.tokens([text], "query")[0]
    write_tiny(path, other_vocabulary, seed=1, overwrite=True)
    after = open_model(path).encoder.texts.tokens([text], "query")[0]
    assert list(before) != list(after)


def test_garbage_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a run folder"):
        open_model(tmp_path)


def test_a_model_is_served_with_the_attention_of_the_platform_it_is_on():
    """One that was trained with cuDNN's is opened on a CPU too."""
    serve = lambda encoder: _to_serve({"type": "Embedder", "encoder": encoder}, None)["encoder"]  # noqa: E731
    assert serve({"type": "Gemma", "attention": "cudnn"})["attention"] == "auto"
    assert "attention" not in serve({"type": "OfAUser"})
