"""What is wrong with a teacher is said before a run begins: sizes, sides, other prompts, a teacher that is the student."""

import dataclasses
import shutil
import types

import numpy as np
import pytest
from tiny_models import build

from embed import files
from embed.data import vector_store
from embed.data.features import Vectors
from embed.data.tasks import Mixture
from embed.data.text_features import Lengths, pairs
from embed.errors import ConfigError, DataError
from embed.losses.contrastive import Contrastive
from embed.losses.distillation import CandidateKL, EmbeddingDistillation, MarginMSE
from embed.losses.matryoshka import Matryoshka
from embed.losses.total import Total
from embed.objectives.pairs import Pairs
from embed.text import PROMPTS
from embed.workflows import init_from, teacher, train

TOWERS = ("query", "target")
PROMPT = {"query": PROMPTS["query"], "target": PROMPTS["document"]}


@pytest.fixture
def stored(tmp_path):
    """stored(dim, **identity) -> a folder of a teacher's vectors of both sides; a callable value is called with the side."""

    def make(dim=16, **identity) -> str:
        folder = tmp_path / "taught"
        shutil.rmtree(folder, ignore_errors=True)
        for side in ("query", "target"):
            given = {name: x(side) if callable(x) else x for name, x in identity.items()}
            vector_store.write(folder / side, np.arange(3), np.ones((3, dim)), identity={"side": side, **given})
        return str(folder)

    return make


@pytest.fixture
def notes_of(recipe_of):
    """notes_of(loss, folder, **fields) -> the notes of a recipe that learns from the folder with this loss."""

    def notes_of(loss, folder, **fields):
        recipe = init_from.complete(recipe_of(objective=Pairs(loss), teacher_vectors=folder, **fields))
        return teacher.check(recipe, build(recipe.model))

    return notes_of


# Sizes and sides.


@pytest.mark.parametrize(
    ("loss", "dim", "message"),
    [
        (
            EmbeddingDistillation(towers=TOWERS),
            15,
            r"the embedding has 16 values and the teacher's vectors 15; give .* = \(16, 15\)",
        ),
        (
            EmbeddingDistillation(towers=TOWERS, student="intermediate"),
            16,
            r"embedding has 24 values and the teacher's vectors 16",
        ),
        (EmbeddingDistillation(towers=TOWERS, projection=(16, 40)), 30, r"projection = \(16, 40\); .* give \(16, 30\)"),
        (
            Total({"a": Contrastive(), "b": Matryoshka(EmbeddingDistillation(towers=TOWERS), (8, 4))}),
            6,
            "has 8 values and .* 6",
        ),
    ],
)
def test_vectors_of_a_size_that_the_loss_cannot_use_are_refused(notes_of, stored, loss, dim, message):
    with pytest.raises(ConfigError, match=message):
        notes_of(loss, stored(dim))


@pytest.mark.parametrize(
    ("loss", "dim"),
    [
        (EmbeddingDistillation(towers=TOWERS), 16),
        (EmbeddingDistillation(towers=TOWERS), 40),
        (EmbeddingDistillation(towers=TOWERS, student="intermediate"), 24),
        (EmbeddingDistillation(towers=TOWERS, projection=(16, 40)), 40),
        (Matryoshka(EmbeddingDistillation(towers=TOWERS), (8, 4)), 8),
    ],
)
def test_vectors_of_a_size_that_fits_are_taken(notes_of, stored, loss, dim):
    assert notes_of(loss, stored(dim)) == []


def test_a_run_that_is_refused_writes_nothing(recipe_of, stored, without_seqio, tmp_path):
    recipe = recipe_of(objective=Pairs(EmbeddingDistillation(towers=TOWERS)), teacher_vectors=stored(15))
    with pytest.raises(ConfigError, match="the teacher's vectors 15"):
        train.run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_vectors_of_the_other_side_and_of_no_feature_are_refused(recipe_of, stored):
    folder = stored()
    for of, path, error, message in (
        (
            "target",
            f"{folder}/query",
            DataError,
            "holds the vectors of the query side, and 'target' is on the target side; give",
        ),
        (
            "targets",
            f"{folder}/target",
            ConfigError,
            "Vectors.of = 'targets': no feature of texts .*; did you mean 'target'",
        ),
    ):
        features = [pairs(Lengths(12, 16)), Vectors("teacher_target", of, path)]
        recipe = recipe_of(
            features=features, lengths=Lengths(), objective=Pairs(EmbeddingDistillation(towers=("target",)))
        )
        with pytest.raises(error, match=message):
            teacher.check(recipe, build(recipe.model))


# Prompts.


def test_a_prompt_that_has_changed_since_is_noted(notes_of, stored):
    tasks = lambda side: {"one": "old: {content}", "two": PROMPT[side], "gone": "x {content}"}  # noqa: E731
    (query, target) = notes_of(EmbeddingDistillation(towers=TOWERS), stored(tasks=tasks))
    assert (
        "taught/query: was encoded when the query prompt of task 'one' was 'old: {content}', and it is 'task: search"
        in query
    )
    assert "taught/target: was encoded when the target prompt of task 'one'" in target
    assert notes_of(EmbeddingDistillation(towers=TOWERS), stored(tasks=lambda side: {"one": PROMPT[side]})) == []


# A teacher that is the student.


@pytest.fixture
def of_itself(stored, bundle):
    """of_itself(**identity) -> the vectors of the tiny bundle in the usual prompts."""
    usual = {"source": files.folder_digest(bundle), "prompts": lambda side: [PROMPT[side]]}
    return lambda dim=16, **identity: stored(dim, **{**usual, **identity})


TAUGHT = EmbeddingDistillation(towers=TOWERS)


@pytest.mark.parametrize(
    "loss", [TAUGHT, Total({"a": TAUGHT}), Matryoshka(TAUGHT, (8, 4))], ids=["alone", "total", "prefix"]
)
def test_a_run_that_learns_from_its_start_alone_is_refused(notes_of, of_itself, bundle, loss):
    """Prefixes of one vector are equal too."""
    with pytest.raises(ConfigError) as caught:
        notes_of(loss, of_itself(), init_from=str(bundle))
    assert f"taught/query is {bundle}, which the run starts from, and no other loss is learned" in str(caught.value)
    assert "give another teacher, or a loss beside EmbeddingDistillation" in str(caught.value)


def test_beside_another_loss_it_is_noted(notes_of, of_itself, bundle):
    both = Total({"contrastive": Contrastive(), "distillation": TAUGHT})
    assert notes_of(both, of_itself(), init_from=str(bundle)) == [
        "the teacher is the model that the run starts from: EmbeddingDistillation holds it near its start, no more"
    ]


@pytest.mark.parametrize(
    ("loss", "identity", "fields"),
    [
        (TAUGHT, {"source": "another"}, {}),
        (TAUGHT, {"prompts": ["other: {content}"]}, {}),  # a model may learn to do without its prompt
        (TAUGHT, {}, {"init_from": None}),
        (dataclasses.replace(TAUGHT, projection=(16, 16)), {}, {}),
        (TAUGHT, {}, {"model": None, "model_changes": {"pooling": {"type": "LastPooling"}}}),
        (dataclasses.replace(TAUGHT, student="intermediate"), {"dim": 24}, {}),
    ],
)
def test_whoever_learns_something_else_from_its_start_is_left_alone(
    notes_of, of_itself, bundle, loss, identity, fields
):
    assert notes_of(loss, of_itself(**identity), **{"init_from": str(bundle), **fields}) == []


# Tasks without hard negatives.


@pytest.mark.parametrize(
    ("objective", "notes"),
    [
        (Pairs(Contrastive()), []),
        (
            Pairs(Total({"a": MarginMSE(), "b": MarginMSE()})),
            ["MarginMSE: nothing is learned from batches of tasks without hard negatives, which are b, c"],
        ),
        (
            Pairs(Total({"a": MarginMSE(), "b": CandidateKL()})),
            [
                "MarginMSE and CandidateKL: nothing is learned from batches of tasks without hard negatives, which are b, c"
            ],
        ),
    ],
)
def test_tasks_that_a_loss_of_candidates_learns_nothing_from_are_noted(recipe_of, objective, notes):
    free = Mixture("m", recipe_of().mixture.tasks)
    recipe = recipe_of(
        objective=objective, mixture=free, num_negatives=2, teacher_scores=None if not notes else "s.jsonl"
    )
    caches = [types.SimpleNamespace(name=name, columns={"negatives": n}) for name, n in (("a", 3), ("b", 0), ("c", 0))]
    assert teacher.notes_of_tasks(recipe, caches) == notes
    assert teacher.notes_of_tasks(recipe, caches[:1]) == []
