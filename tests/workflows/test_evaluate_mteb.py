"""MTEB on several models and views: what is run, how it is summed up. MTEB and the models are stand-ins here."""

import types

import jax
import pytest

from embed import documents
from embed.errors import DataError, UsageError
from embed.evaluation import mteb, references
from embed.inference import model as inference
from embed.workflows import evaluate_mteb

# Scores of the tasks of two types, by model and view.
SCORES = {
    "one": {"a": 0.9, "b": 0.3, "c": 0.6},
    "one-4": {"a": 0.5, "b": 0.1, "c": 0.3},
    "two": {"a": 0.8, "b": 0.2, "c": 0.7},
    "two-4": {"a": 0.5, "b": 0.0, "c": 0.2},
}
TYPES = {"a": "Retrieval", "b": "Retrieval", "c": "STS"}


@pytest.fixture
def runs(monkeypatch):
    """The (path, max_length) of models that were opened, and the names of encoders that were run, with the folder."""
    opened, ran = [], []

    def check_dims(dims):
        if not 1 <= dims <= 8:
            raise DataError(f"dims = {dims}; this model gives 1 to 8")

    def open_model(path, max_length=None):
        opened.append((path, max_length))
        return types.SimpleNamespace(
            embedding_dim=8, digest="d" * 64, prompts={}, max_length=max_length, dtype="float32", check_dims=check_dims
        )

    def evaluate(encoder, tasks, folder):
        name = encoder._meta["name"].removeprefix("embed/").removesuffix("-8")
        ran.append((encoder._meta["name"], tasks, folder.is_dir()))
        return {task: {"type": TYPES[task], "score": score} for task, score in SCORES[name].items()}

    monkeypatch.setattr(inference, "open_model", open_model)
    monkeypatch.setattr(mteb, "chosen_tasks", lambda names: ["tasks of", names])
    monkeypatch.setattr(mteb, "evaluate", evaluate)
    return opened, ran


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_every_model_is_run_in_every_view_and_summed_up(runs, tmp_path, capsys, monkeypatch):
    published = {"another": {"task": 0.625, "type": 0.5}, "half": {"task": 0.5}}
    monkeypatch.setattr(references, "of_benchmark", lambda name: published if name == "bench" else {})
    monkeypatch.setattr(references, "source", lambda name: f"paper of {name}")
    opened, ran = runs
    models = {"one": "runs/one", "two": "runs/two"}
    evaluate_mteb.run(models, "bench", tmp_path / "a" / "b", dims=[8, 4], max_length=99)
    assert opened == [("runs/one", 99), ("runs/two", 99)]
    tasks = ["tasks of", "bench"]
    assert ran == [(f"embed/{name}", tasks, True) for name in ("one-8", "one-4", "two-8", "two-4")]
    told = capsys.readouterr().out
    assert told.startswith("one 8: 2 tasks of bench\none 4: 2 tasks of bench\n")
    rows = {cells(line)[0]: cells(line)[1:] for line in told.splitlines() if line.startswith("| ")}
    # By hand: the mean of 3 tasks, and of the means of 2 types; ranks by wins over the other three.
    assert rows == {
        "model": ["Mean (Task)", "Mean (TaskType)", "Borda"],
        "one 8": ["60.00", "60.00", "1"],
        "one 4": ["30.00", "30.00", "3"],
        "two 8": ["56.67", "60.00", "2"],
        "two 4": ["23.33", "22.50", "4"],
        "another (paper of another)": ["62.50", "50.00", "-"],
        "half (paper of half)": ["50.00", "-", "-"],
    }
    assert f"wrote {tmp_path}/a/b/summary.json and MTEB's own files beside it" in told
    summary = documents.read_json(tmp_path / "a" / "b" / "summary.json")
    assert summary["mteb"] == "bench" and summary["borda"] == {"one 8": 1, "one 4": 3, "two 8": 2, "two 4": 4}
    assert summary["scores"]["two 4"]["c"] == {"type": "STS", "score": 0.2}


def test_the_full_size_is_what_is_run_unless_told(runs, tmp_path, capsys):
    evaluate_mteb.run({"one": "x"}, "bench", tmp_path)
    evaluate_mteb.run({"one": "x"}, "bench", tmp_path)  # goes on in the same folder
    assert [name for name, _, _ in runs[1]] == ["embed/one-8"] * 2


def test_several_hosts_are_refused_before_anything_is_opened(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UsageError, match="^--mteb runs MTEB itself, which knows one host; start it on one$"):
        evaluate_mteb.run({"one": "x"}, "bench", tmp_path / "out")
    assert runs == ([], []) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"dims": [8, 16]}, DataError, "dims = 16; this model gives 1 to 8"),
        ({"dims": [-5]}, DataError, "dims = -5"),
        ({"precisions": ["int9"]}, UsageError, "--quantize: 'int9'"),
    ],
)
def test_views_that_a_model_does_not_have_are_refused_before_anything_is_written(runs, tmp_path, given, kind, message):
    with pytest.raises(kind, match=message):
        evaluate_mteb.run({"one": "runs/one"}, "bench", tmp_path / "out", **given)
    assert not (tmp_path / "out").exists() and not runs[1]
