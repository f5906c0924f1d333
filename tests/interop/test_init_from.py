"""`init_from` a foreign folder: what a recipe takes from it, what it may change, and what starts at random."""

import dataclasses
import json
import types

import jax
import numpy as np
import optax
import pytest

from embed import bundles, sharding, trees
from embed import sources as data_sources
from embed.data import tasks, tokenizers
from embed.data.text_features import Lengths
from embed.errors import ConfigError, DataError
from embed.models import api
from embed.models.pooling import LastPooling
from embed.text import PROMPTS
from embed.training import loop
from embed.workflows import init_from, start
from embed.workflows.recipe import Recipe


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The recipes' cache folder, shared so that the folder is converted once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def recipe(cache, rounds):
    """recipe(**fields) -> a recipe that starts from the foreign Gemma."""

    def make(**fields) -> Recipe:
        task = tasks.Task("first", data_sources.JsonLines("none.jsonl", {"query": "a", "target": "b"}))
        given = {
            "mixture": tasks.Mixture("made up", [task, dataclasses.replace(task, name="second", query_prompt="mine")]),
            "objective": None,
            "optimizer": optax.sgd(0.1),
            "schedule": loop.Schedule(steps=2),
            "batch_size": 8,
            "cache_dir": str(cache),
            "init_from": str(rounds("gemma3_text").theirs),
            **fields,
        }
        return Recipe(**given)

    return make


@pytest.mark.slow
def test_model_tokenizer_prompts_and_length_are_the_folders(recipe, cache, rounds, foreign):
    done = init_from.complete(recipe())
    (folder,) = cache.iterdir()
    assert done.init_from == str(folder) and folder.name.startswith("start-")
    foreign.assert_same_bundle(folder, rounds("gemma3_text").first)
    description = bundles.read_model_json(folder)
    assert json.loads(json.dumps(api.describe(done.model))) == description["architecture"]
    assert description["lineage"]["converted_from"] == str(rounds("gemma3_text").theirs)
    assert done.tokenizer == tokenizers.HuggingFace(str(folder / "tokenizer.json"), "[PAD]")
    assert done.tokenizer.digest == description["tokenizer"]["digest"]
    assert done.prompts == description["prompts"] and done.max_length == 48
    first, second = done.mixture.tasks
    assert (first.query_prompt, first.target_prompt) == ("find: {content}", "text: {content}")
    assert second.query_prompt == "mine> {content}"


def test_the_folder_is_converted_once(recipe, cache):
    init_from.complete(recipe())
    (folder,) = cache.iterdir()
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    init_from.complete(recipe(model_changes={"encoder.dropout": 0.1}))
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before and list(cache.iterdir()) == [folder]


def test_what_the_recipe_binds_is_kept(recipe):
    own = {"query": "ask: {content}"}
    done = init_from.complete(recipe(prompts=own, max_length=31, lengths=Lengths(query=8, target=16)))
    assert done.max_length == 31
    assert done.prompts["query"] == "ask: {content}" and done.prompts["document"] == "text: {content}"
    assert done.mixture.tasks[0].query_prompt == "ask: {content}"


def test_without_init_from_nothing_is_taken(recipe, rounds):
    module = api.from_description(bundles.read_model_json(rounds("gemma3_text").first)["architecture"])
    tokenizer = tokenizers.HuggingFace("tokenizer.json")
    own = {"init_from": None, "model": module, "tokenizer": tokenizer, "lengths": Lengths(query=8, target=16)}
    done = init_from.complete(recipe(**own, prompts={"mine": "m {content}"}))
    assert done.model is module and done.tokenizer is tokenizer and done.max_length == 16
    assert done.prompts == {**PROMPTS, "mine": "m {content}"}
    assert done.mixture.tasks[0].query_prompt == PROMPTS["query"]


def test_a_bundle_is_used_where_it_lies(recipe, cache, rounds):
    first = rounds("gemma3_text").first
    done = init_from.complete(recipe(init_from=str(first)))
    assert done.init_from == str(first)


def test_changes_replace_dotted_fields(recipe):
    changes = {
        "encoder.dropout": 0.25,
        "encoder.window": 6,
        "matryoshka_dims": (10, 2),
        "pooling": {"type": "LastPooling"},
    }
    plain, done = init_from.complete(recipe()), init_from.complete(recipe(model_changes=changes))
    assert (done.model.encoder.dropout, done.model.encoder.window) == (0.25, 6)
    assert done.model.matryoshka_dims == (10, 2) and type(done.model.pooling) is LastPooling
    same = plain.model.clone(
        encoder=plain.model.encoder.clone(dropout=0.25, window=6), pooling=LastPooling(), matryoshka_dims=(10, 2)
    )
    assert api.describe(done.model) == api.describe(same)
    assert done.model_changes == {}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("encoder.drop_out", "dropout"),
        ("encodr.dropout", "encoder"),
        ("matryoshka_dim", "matryoshka_dims"),
        ("poolin.type", "pooling"),
        ("encoder.dropout.rate", None),
    ],
)
def test_wrong_names_of_changes(name, near, recipe):
    with pytest.raises(ConfigError) as e:
        init_from.complete(recipe(model_changes={name: 0.1}))
    assert "\n" not in str(e.value)
    assert name.split(".")[-1] in str(e.value)
    assert near is None or f"did you mean {near!r}" in str(e.value)


def test_no_changes_of_a_model_of_its_own(recipe):
    with pytest.raises(ConfigError, match="model_changes goes with the model of init_from"):
        recipe(model=object(), model_changes={"encoder.dropout": 0.1})


def test_a_start_that_is_none(recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="not a run folder, checkpoint step or bundle"):
        init_from.complete(recipe(init_from=str(tmp_path / "empty")))
    with pytest.raises(DataError, match="nowhere: no such folder"):
        init_from.complete(recipe(init_from=str(tmp_path / "nowhere")))


def read_start(done, capsys):
    """Returns what a run of this recipe would start from, and what it says."""
    model = api.build(done.model)
    mesh = sharding.make_mesh()
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    placed = sharding.shardings(model.axes, shapes, mesh)
    target = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, placed)
    with jax.set_mesh(mesh):
        found = trees.flatten(start.Start(done, model).read(target))
    return {path: np.asarray(x) for path, x in found.items()}, capsys.readouterr().out, trees.flatten(target)


def test_training_starts_from_the_folders_parameters(recipe, foreign, rounds, capsys):
    found, said, _ = read_start(init_from.complete(recipe()), capsys)
    wanted = foreign.parameters(rounds("gemma3_text").first)
    assert list(found) == list(wanted) and "at random" not in said
    assert all(found[path].tobytes() == wanted[path].tobytes() for path in wanted)


@pytest.mark.slow
def test_a_missing_projection_starts_at_random(recipe, plain, foreign, capsys):
    maps = {"projection": (16, 8)}
    done = init_from.complete(recipe(init_from=str(plain), prompts={"mine": "m {content}"}, model_changes=maps))
    found, said, target = read_start(done, capsys)
    assert said.count("\n") <= 2 and "projection_0/kernel, projection_1/kernel start at random" in said
    wanted = foreign.parameters(done.init_from)
    assert set(found) == {*wanted, "projection_0/kernel", "projection_1/kernel"} and list(found) == list(target)
    assert all(found[path].tobytes() == wanted[path].tobytes() for path in wanted)
    for number, shape in enumerate(((12, 16), (16, 8))):
        kernel = found[f"projection_{number}/kernel"]
        assert kernel.shape == shape and 0.5 < np.std(kernel) * shape[0] ** 0.5 < 1.5


def test_another_vocabulary_is_refused(recipe, plain, tmp_path):
    other = tmp_path / "tokenizer.json"
    other.write_bytes((plain / "tokenizer.json").read_bytes() + b"\n")
    done = init_from.complete(recipe(tokenizer=tokenizers.HuggingFace(str(other), "[PAD]")))
    with pytest.raises(DataError, match="trained with another vocabulary than"):
        start.Start(done, types.SimpleNamespace())


@pytest.mark.slow
def test_an_encoder_of_another_shape_is_refused(recipe, capsys):
    done = init_from.complete(recipe(model_changes={"encoder.mlp_dim": 24}))
    with pytest.raises(DataError, match="params does not match the model: encoder/stack/layers/mlp"):
        read_start(done, capsys)
    # Before anything is drawn at random or read: a large model would not fit where a small one is looked for.
    with pytest.raises(DataError, match="params does not match the model: encoder/stack/layers/mlp"):
        start.Start(done, api.build(done.model))


def test_added_tokens_start_as_the_mean_of_their_pieces(recipe, rounds, foreign, tmp_path, capsys):
    import tokenizers as hugging_face

    before = init_from.complete(recipe())
    extended = hugging_face.Tokenizer.from_str(before.tokenizer.content().decode())
    size = before.tokenizer.vocab_size
    first, second = "a cat", "the dog"
    assert extended.add_tokens([first, second]) == 2
    (tmp_path / "tokenizer.json").write_text(extended.to_str())
    tokenizer = tokenizers.HuggingFace(str(tmp_path / "tokenizer.json"), before.tokenizer.pad_token)
    rows = max(before.model.encoder.vocab_size, size) + 3
    done = init_from.complete(recipe(tokenizer=tokenizer, model_changes={"encoder.vocab_size": rows}))
    found, said, _ = read_start(done, capsys)
    assert "2 tokens that" in said and "start as the mean of their pieces" in said
    wanted = foreign.parameters(rounds("gemma3_text").first)
    old, new = wanted["encoder/embedding/table"], found["encoder/embedding/table"]
    assert new.shape == (rows, old.shape[1])
    untouched = [i for i in range(len(old)) if i not in (size, size + 1)]
    np.testing.assert_array_equal(new[untouched], old[untouched])
    plain = before.tokenizer._open()[0]
    for number, token in ((size, first), (size + 1, second)):
        pieces = plain.encode(token, add_special_tokens=False).ids
        np.testing.assert_allclose(new[number], old[pieces].mean(0), rtol=1e-5, atol=1e-7)
    assert all(found[path].tobytes() == x.tobytes() for path, x in wanted.items() if path != "encoder/embedding/table")


def test_a_vocabulary_that_moves_a_token_is_no_extension(recipe, tmp_path):
    import json

    before = init_from.complete(recipe())
    content = json.loads(before.tokenizer.content())
    vocab = content["model"]["vocab"]
    one, other = list(vocab)[-2:]
    if isinstance(vocab, dict):
        vocab[one], vocab[other] = vocab[other], vocab[one]
    else:
        vocab[-2:] = [other, one]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = tokenizers.HuggingFace(str(tmp_path / "tokenizer.json"), before.tokenizer.pad_token)
    with pytest.raises(DataError, match="trained with another vocabulary than .*tokens added at its end"):
        start.Start(init_from.complete(recipe(tokenizer=tokenizer)), types.SimpleNamespace())
