"""A tiny model with a vocabulary of words, and recipes of few made-up rows that are prepared without tensorflow."""

import json

import pytest
from tiny_models import small_module, word_tokenizer, write_model

from embed.data import records, seqio_tasks
from embed.data.record_encoder import RecordEncoder
from embed.data.tasks import Mixture, Task
from embed.data.text_features import Lengths
from embed.losses.contrastive import Contrastive
from embed.objectives.pairs import Pairs
from embed.sources.record_files import JsonLines
from embed.text import PROMPTS
from embed.training.loop import Schedule
from embed.workflows.recipe import Recipe

WORDS = [*"abcdefghijklmnopqrstuvwxyz", *" ".join(PROMPTS.values()).split()]
VOCAB_SIZE = 64


@pytest.fixture(scope="session")
def word_list() -> list[str]:
    """The words of the tokenizer's vocabulary: letters, and those of the prompts."""
    return WORDS


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    return word_tokenizer(tmp_path_factory.mktemp("words") / "tokenizer.json", WORDS)


@pytest.fixture(scope="session")
def bundle(tokenizer, tmp_path_factory):
    """The tiny model's bundle; tests must not change it."""
    prompts = {**PROMPTS, "own": "own: {content}"}
    return write_model(tmp_path_factory.mktemp("model") / "bundle", tokenizer, vocab_size=VOCAB_SIZE, prompts=prompts)


@pytest.fixture
def task_of(tmp_path):
    """task_of(name, rows) -> a task of a file of pairs with these rows."""

    def make(name: str, rows, fields=("query", "target"), **settings) -> Task:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Task(name, JsonLines(str(path), {field: field for field in fields}), **settings)

    return make


@pytest.fixture
def recipe_of(task_of, tokenizer, tmp_path):
    """recipe_of(**fields) -> a recipe of two tasks of letters, with 6 and 4 rows; `cache_dir` is new."""

    def make(**fields) -> Recipe:
        rows = [{"query": f"{a} {b}", "target": b} for a, b in zip("abcdefghij", "klmnopqrst")]
        given = {
            "mixture": Mixture("letters", [task_of("one", rows[:6]), task_of("two", rows[6:])]),
            "objective": Pairs(Contrastive()),
            "optimizer": None,
            "schedule": Schedule(steps=5),
            "batch_size": 8,
            "cache_dir": str(tmp_path / "caches"),
            "model": small_module(VOCAB_SIZE),
            "tokenizer": tokenizer,
            "lengths": Lengths(query=12, target=16),
            **fields,
        }
        return Recipe(**given)

    return make


@pytest.fixture
def without_seqio(monkeypatch) -> list[str]:
    """Encodes tasks with our own encoder in the place of seqio; the names of those that were."""
    names = []

    def examples(task, tokenizer, features):
        names.append(task.name)
        encoder = RecordEncoder(features, tokenizer, task.query_prompt, task.target_prompt)
        rows = encoder([{"location": location, **record} for location, record in task.source.examples()])
        yield from (records.pack(row, seqio_tasks.written_fields(features)) for row in rows)

    monkeypatch.setattr(seqio_tasks, "examples", examples)
    return names
