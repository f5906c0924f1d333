"""The caches of a recipe, before a run needs them."""

import dataclasses

import pytest

from embed.data.tasks import Mixture
from embed.errors import ConfigError, StorageError
from embed.files import FolderLock
from embed.text import PROMPTS
from embed.workflows import prepare


def test_the_caches_of_all_tasks_are_there_and_found_again(recipe_of, without_seqio, capsys):
    recipe = recipe_of()
    found = prepare.run(recipe)
    assert [(c.name, len(c)) for c in found] == [("one", 6), ("two", 4)] and without_seqio == ["one", "two"]
    assert capsys.readouterr().out.count("preparing its cache") == 2
    assert [c.folder for c in prepare.run(recipe)] == [c.folder for c in found] and len(without_seqio) == 2


def test_prompts_are_those_of_the_recipe(recipe_of, without_seqio, tokenizer):
    plain, asked = (prepare.run(recipe_of(prompts=own))[0] for own in (None, {"query": "task: {content}"}))
    first = [tokenizer.decode(c.read([0])[0]["query"]) for c in (plain, asked)]
    assert first == [f"[CLS] {words} [SEP]" for words in (PROMPTS["query"].replace("{content}", "a k"), "task: a k")]


def test_lists_that_no_task_has_are_refused_unless_the_mixture_is_narrowed(recipe_of, task_of, without_seqio):
    with_lists = task_of(
        "lists", [{"query": "a", "target": "b", "negatives": ["c"]}] * 4, ("query", "target", "negatives")
    )
    plain = recipe_of().mixture.tasks[0]
    with pytest.raises(ConfigError, match="num_negatives = 2"):
        prepare.run(recipe_of(num_negatives=2, mixture=Mixture("m", [plain])))
    both = Mixture("m", [plain, with_lists])
    assert len(prepare.run(recipe_of(num_negatives=2, mixture=both))) == 2
    narrowed = dataclasses.replace(both, only=(plain.name,))
    assert len(prepare.run(recipe_of(num_negatives=2, mixture=narrowed))) == 1


def test_a_folder_that_another_run_uses_is_refused(recipe_of, without_seqio):
    recipe = recipe_of()
    with FolderLock(recipe.cache_dir), pytest.raises(StorageError, match=f"{recipe.cache_dir}"):
        prepare.run(recipe)
    assert without_seqio == []
