"""What a recipe takes from the model that it starts from. Foreign folders of every kind are read in tests/interop."""

import dataclasses
import json
import shutil

import pytest

from embed import bundles
from embed.data import tokenizers
from embed.errors import ConfigError, DataError
from embed.interop import hub
from embed.models import api
from embed.models.pooling import LastPooling
from embed.text import PROMPTS
from embed.workflows import init_from

FREE = {"model": None, "tokenizer": None}


def test_without_a_start_the_recipe_says_everything(recipe_of):
    recipe = recipe_of(prompts={"mine": "m {content}", "query": "q {content}"})
    done = init_from.complete(recipe)
    assert done.model is recipe.model and done.tokenizer is recipe.tokenizer and done.init_from is None
    assert done.prompts == {**PROMPTS, "mine": "m {content}", "query": "q {content}"}
    assert (done.max_length, done.text_normalization) == (16, "NFC, strip")
    assert init_from.complete(recipe_of(max_length=9, text_normalization="none")).max_length == 9


def test_a_bundle_gives_what_the_recipe_does_not(recipe_of, bundle):
    done = init_from.complete(recipe_of(init_from=str(bundle), **FREE))
    description = bundles.read_model_json(bundle)
    assert done.init_from == str(bundle)
    assert json.loads(json.dumps(api.describe(done.model))) == description["architecture"]
    assert done.tokenizer == tokenizers.HuggingFace(str(bundle / "tokenizer.json"))
    assert (done.prompts, done.max_length, done.text_normalization) == (description["prompts"], 48, "NFC, strip")


def test_what_the_recipe_says_is_kept(recipe_of, bundle):
    own = recipe_of(init_from=str(bundle), max_length=7, text_normalization="none", prompts={"query": "q {content}"})
    done = init_from.complete(own)
    assert done.model is own.model and done.tokenizer is own.tokenizer
    assert (done.max_length, done.text_normalization) == (7, "none")
    assert done.prompts == {**bundles.read_model_json(bundle)["prompts"], "query": "q {content}"}


def test_tasks_get_their_prompts_as_templates(recipe_of):
    recipe = recipe_of(prompts={"query": "q {content}"})
    one, two = recipe.mixture.tasks
    tasks = [one, dataclasses.replace(two, query_prompt="mine: {content}", target_prompt="none")]
    done = init_from.complete(dataclasses.replace(recipe, mixture=dataclasses.replace(recipe.mixture, tasks=tasks)))
    found = [(task.query_prompt, task.target_prompt) for task in done.mixture.tasks]
    assert found == [("q {content}", PROMPTS["document"]), ("mine: {content}", "{content}")]


def test_a_run_and_its_step_are_starts(recipe_of, bundle, tmp_path):
    step = tmp_path / "run" / "checkpoints" / "7"
    step.parent.mkdir(parents=True)
    shutil.copytree(bundle, step)
    for name in (tmp_path / "run", step):
        assert init_from.complete(recipe_of(init_from=str(name), **FREE)).init_from == str(step)


def test_changes_replace_dotted_fields(recipe_of, bundle):
    changes = {"encoder.dropout": 0.25, "matryoshka_dims": (4, 2), "pooling": {"type": "LastPooling"}}
    done = init_from.complete(recipe_of(init_from=str(bundle), model_changes=changes, **FREE))
    assert (done.model.encoder.dropout, done.model.matryoshka_dims) == (0.25, (4, 2))
    assert type(done.model.pooling) is LastPooling and done.model_changes == {}
    assert done.model.encoder.width == 16


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder.drop_out", "'encoder.drop_out': no field 'drop_out'; did you mean 'dropout'?"),
        ("encoder.type", "'encoder.type': no field 'type'; did you mean 'dtype'?"),
        ("type", "'type': no field 'type'; known: "),
        ("encodr.dropout", "'encodr.dropout': no part 'encodr'; did you mean 'encoder'?"),
        ("projection.0", "'projection.0': no part 'projection'; known: encoder, pooling"),
        ("encoder.dropout.rate", "'encoder.dropout.rate': no part 'dropout'"),
    ],
)
def test_wrong_names_of_changes_are_refused(recipe_of, bundle, name, message):
    with pytest.raises(ConfigError) as caught:
        init_from.complete(recipe_of(init_from=str(bundle), model_changes={name: 0.1}, **FREE))
    assert str(caught.value).startswith(f"Recipe.model_changes: {message}") and "\n" not in str(caught.value)


def test_a_folder_that_is_no_start_is_refused_before_a_hub_is_asked(recipe_of, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "fetch", lambda name: pytest.fail("asked"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: not a run folder, checkpoint step or bundle"):
        init_from.complete(recipe_of(init_from=str(tmp_path / "empty"), **FREE))


def test_a_foreign_model_is_converted_into_the_caches(recipe_of, bundle, monkeypatch):
    asked = []
    monkeypatch.setattr(init_from.foreign, "bundle_of", lambda *given: asked.append(given) or bundle)
    recipe = recipe_of(init_from="org/one", **FREE)
    assert init_from.complete(recipe).init_from == str(bundle) and asked == [("org/one", recipe.cache_dir, "start")]


def test_a_decoder_that_the_objective_does_not_train_is_left_out(recipe_of, bundle, tmp_path, capsys):
    folder = tmp_path / "with_decoder"
    shutil.copytree(bundle, folder)
    description = json.loads((folder / "model.json").read_text())
    encoder = description["architecture"]["encoder"]
    description["architecture"]["decoder"] = {**encoder, "causal": True}
    (folder / "model.json").write_text(json.dumps(description))
    completed = init_from.complete(recipe_of(init_from=str(folder), model=None, tokenizer=None))
    assert completed.model.decoder is None
    assert f"the decoder of {folder} is left out: the objective does not train it" in capsys.readouterr().out
