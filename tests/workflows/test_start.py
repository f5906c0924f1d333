"""The parameters that a run starts from: those of the model, with new rows and new parts where the recipe has more."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from tiny_models import small_module, word_tokenizer

from embed import arrays, files, sharding, sources, trees
from embed.data.denoisers import Denoiser
from embed.data.language_features import Denoised
from embed.data.tasks import Mixture, Task
from embed.data.text_features import Lengths
from embed.errors import ConfigError, DataError
from embed.models import api
from embed.models.lora import Lora
from embed.objectives.language_model import SequenceToSequence
from embed.sharding import MeshShape
from embed.workflows import packed_bundle
from embed.workflows.start import Start

VOCAB_SIZE = 64


def target_of(model, mesh):
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    placed = sharding.shardings(model.axes, shapes, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, placed)


@pytest.fixture(scope="module")
def stored(bundle):
    return trees.flatten(arrays.load_numpy(bundle))


@pytest.fixture
def read(recipe_of, bundle):
    """read(module, **fields of the recipe) -> ({path: parameter} of a start from the tiny bundle, how they were asked for)."""

    def run(module, mesh=None, **fields):
        mesh = mesh or sharding.make_mesh(devices=jax.devices()[:1])
        model = api.build(module)
        target = target_of(model, mesh)
        init = lambda key: jax.tree.map(lambda x: jax.random.normal(key, x.shape), target)  # noqa: E731
        model = dataclasses.replace(model, init=init)  # compiled sooner than the module's own
        with jax.set_mesh(mesh):
            found = Start(recipe_of(init_from=str(bundle), model=module, **fields), model).read(target)
        return trees.flatten(found), trees.flatten(target)

    return run


def test_the_same_model_starts_with_its_parameters_laid_out_as_asked(read, stored, capsys):
    found, target = read(small_module(VOCAB_SIZE), sharding.make_mesh(MeshShape(2, 2, 2)))
    assert list(found) == list(target) and set(found) == set(stored)
    for path, x in found.items():
        np.testing.assert_array_equal(x, stored[path])
        assert x.sharding == target[path].sharding
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_start_that_is_quantised_is_said_to_be(recipe_of, bundle, tmp_path, capsys):
    packed_bundle.run(bundle, tmp_path / "packed", "mixed_channels")
    capsys.readouterr()
    model = api.build(small_module(VOCAB_SIZE))
    target = target_of(model, sharding.make_mesh(devices=jax.devices()[:1]))
    params = Start(recipe_of(init_from=str(tmp_path / "packed"), model=small_module(VOCAB_SIZE)), model).read(target)
    expected = trees.flatten(arrays.load_numpy(tmp_path / "packed"))
    for path, x in trees.flatten(params).items():
        np.testing.assert_array_equal(x, expected[path])
    printed = capsys.readouterr().out
    assert (
        printed == f"start      {tmp_path / 'packed'} is quantised as mixed_channels; its values are what learns on\n"
    )


@pytest.mark.slow
def test_a_part_that_is_new_starts_at_random_by_the_seed_and_the_run_says_so(read, stored, bundle, capsys):
    module = small_module(VOCAB_SIZE).clone(projection=(24, 16, 10), matryoshka_dims=())
    found, target = read(module, seed=5)
    assert list(found) == list(target) and set(found) - set(stored) == {"projection_2/kernel"}
    assert capsys.readouterr().out == f"start      projection_2/kernel start at random: {bundle} has none\n"
    for path in stored:
        np.testing.assert_array_equal(found[path], stored[path])
    np.testing.assert_array_equal(found["projection_2/kernel"], jax.random.normal(jax.random.key(5), (16, 10)))


def test_an_encoder_of_another_shape_is_refused_before_anything_is_drawn(recipe_of, bundle):
    module = small_module(VOCAB_SIZE).clone(encoder=small_module(VOCAB_SIZE).encoder.clone(mlp_dim=24))
    with pytest.raises(DataError, match="params does not match the model: encoder/stack/layers/mlp"):
        Start(recipe_of(init_from=str(bundle), model=module), api.build(module))


def test_tokens_that_were_added_start_as_the_mean_of_their_pieces(read, stored, tokenizer, tmp_path, capsys):
    content = json.loads(tokenizer.content())
    size = tokenizer.vocab_size
    added = {"a b": size, "c d e": size + 1}
    for token, number in added.items():
        content["added_tokens"].append(
            {"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True,
             "special": False}
        )  # fmt: skip
    longer = tmp_path / "tokenizer.json"
    longer.write_text(json.dumps(content))
    rows = VOCAB_SIZE + 3
    found, _ = read(small_module(rows), tokenizer=type(tokenizer)(str(longer)))
    assert "start      2 tokens that" in capsys.readouterr().out
    old, new = stored["encoder/embedding/table"], np.asarray(found["encoder/embedding/table"])
    ids = json.loads(tokenizer.content())["model"]["vocab"]
    wanted = np.concatenate([old, np.repeat(old.mean(0, keepdims=True), 3, 0)])
    for token, number in added.items():
        wanted[number] = old[[ids[piece] for piece in token.split()]].mean(0)
    assert new.shape == (rows, 16)
    np.testing.assert_allclose(new, wanted, rtol=1e-5, atol=1e-7)


def test_another_vocabulary_is_refused(recipe_of, bundle, word_list, tmp_path):
    other = word_tokenizer(tmp_path / "tokenizer.json", word_list[::-1])
    with pytest.raises(
        DataError, match="trained with another vocabulary than .*tokenizer.json; use .* added at its end"
    ):
        Start(recipe_of(init_from=str(bundle), tokenizer=other), api.build(small_module(VOCAB_SIZE)))


@pytest.mark.slow
def test_a_decoder_starts_as_the_encoder_and_the_run_says_so(read, stored, tmp_path, capsys):
    module = small_module(VOCAB_SIZE)
    features = [Denoised([Denoiser(0.25, prefix=True)])]
    texts = Task("corpus", sources.JsonLines(str(tmp_path / "corpus.jsonl"), {"text": "text"}))
    given = {"objective": SequenceToSequence(), "features": features, "mixture": Mixture("corpus", [texts])}
    found, target = read(module.clone(decoder=module.encoder.clone(causal=True)), lengths=Lengths(), **given)
    assert list(found) == list(target)
    for path, x in found.items():
        source = path.replace("decoder/", "encoder/").replace("/cross_attention", "/attention")
        np.testing.assert_array_equal(x, stored[source], err_msg=path)
        assert x.sharding == target[path].sharding
    assert "the decoder starts as the encoder of " in capsys.readouterr().out


def test_adapters_do_not_leave_new_parameters_at_random(recipe_of, bundle):
    module = small_module(VOCAB_SIZE).clone(projection=(24, 16, 10), matryoshka_dims=())
    recipe = recipe_of(init_from=str(bundle), model=module, lora=Lora("kernel", rank=2))
    with pytest.raises(
        ConfigError, match="projection_2/kernel would start at random and stay so: .* Recipe.lora trains adapters alone"
    ):
        Start(recipe, api.build(module))
    same = small_module(VOCAB_SIZE)
    Start(recipe_of(init_from=str(bundle), model=same, lora=Lora("kernel", rank=2)), api.build(same))


def test_what_a_run_has_learned_beside_its_model_starts_anew_and_the_run_says_so(read, bundle, capsys, monkeypatch):
    more = {"learned": {"loss/t": {}, "heads/class/w": {}}, "moving": {"centres/class": {}}}
    manifest = files.read_manifest(bundle)
    monkeypatch.setattr(files, "read_manifest", lambda folder: {**manifest, "trees": {**manifest["trees"], **more}})
    read(small_module(VOCAB_SIZE))
    said = (
        f"start      of {bundle} the model is taken; what else its run has learned starts anew: loss, heads, centres\n"
    )
    assert said in capsys.readouterr().out
