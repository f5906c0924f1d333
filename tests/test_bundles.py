"""How a MODEL on a command line is found, and what its small files say."""

import json

import jax.numpy as jnp
import pytest

from embed import bundles, checkpoints, files
from embed.errors import DataError


def description(**changes) -> dict:
    made = bundles.model_json(
        {"type": "Embedder", "encoder": {"type": "Gemma"}, "projection": [4]},
        tokenizer_options={"kind": "sentencepiece", "add_bos": True},
        tokenizer_digest="0" * 64,
        prompts={"query": "q: {content}"},
        matryoshka_dims=(4, 2),
        lengths={"query": 8, "target": 16},
        lineage={"seed": 1},
    )
    return {**made, **changes}


def write(path, value: float = 1.0, **changes):
    contents = bundles.contents(description(**changes), "tokenizer.model", b"\x00\x01")
    return checkpoints.write_bundle(path, {"x": jnp.full((3,), float(value))}, contents)


@pytest.fixture
def run_dir(tmp_path):
    """A run folder with checkpoints 2, 9 and 10."""
    for step in (2, 9, 10):
        write(tmp_path / "run" / "checkpoints" / str(step), step)
    return tmp_path / "run"


def best(run_dir, step: int) -> None:
    files.write_json(run_dir / bundles.BEST, {"step": step, "score": 0.5, "metric": "ndcg_at_10"})


# model.json and the small files


def test_model_json_holds_what_opening_needs():
    found = json.loads(json.dumps(description()))
    assert found["format"] == bundles.FORMAT
    assert found["architecture"] == {"type": "Embedder", "encoder": {"type": "Gemma"}, "projection": [4]}
    assert found["tokenizer"] == {"kind": "sentencepiece", "add_bos": True, "digest": "0" * 64}
    assert found["matryoshka_dims"] == [4, 2] and found["lengths"] == {"query": 8, "target": 16}
    assert found["prompts"] == {"query": "q: {content}"} and found["lineage"] == {"seed": 1}


def test_contents_are_the_small_files_by_name():
    found = bundles.contents({"format": 1}, "tokenizer.json", b"{}", meta={"step": 3}, best=[1])
    assert set(found) == {"model.json", "tokenizer.json", "meta.json", "best.json"}
    assert found["tokenizer.json"] == b"{}"
    assert json.loads(found["meta.json"]) == {"step": 3} and json.loads(found["model.json"]) == {"format": 1}


def test_model_json_comes_back(tmp_path):
    assert bundles.read_model_json(write(tmp_path / "b")) == description()


@pytest.mark.parametrize("found", [2, 0, None, "1"])
def test_another_format_is_refused(tmp_path, found):
    folder = write(tmp_path / "b", format=found)
    with pytest.raises(DataError, match="upgrade embed") as caught:
        bundles.read_model_json(folder)
    assert repr(found) in str(caught.value) and str(folder) in str(caught.value)


def test_a_model_json_without_format_is_refused(tmp_path):
    files.write_json(tmp_path / "model.json", {"architecture": {}})
    with pytest.raises(DataError, match="format None"):
        bundles.read_model_json(tmp_path)


@pytest.mark.parametrize("content", ["[]", "null", "{"])
def test_a_model_json_that_is_no_object_is_refused(tmp_path, content):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(DataError, match="model.json"):
        bundles.read_model_json(tmp_path)


def test_the_tokenizer_file_is_the_one_that_model_json_is_of(tmp_path):
    folder = write(tmp_path / "b")
    (folder / "tokenizer.json").write_text("{}")  # a stray one
    (folder / "tokenizer.model").write_text("")
    for kind, name in (("huggingface", "tokenizer.json"), ("sentencepiece", "tokenizer.model")):
        description = {**bundles.read_model_json(folder), "tokenizer": {"kind": kind}}
        (folder / "model.json").write_text(json.dumps(description))
        assert bundles.tokenizer_file(folder).name == name


def test_a_bundle_without_tokenizer_is_refused(tmp_path):
    folder = write(tmp_path / "b")
    bundles.tokenizer_file(folder).unlink()
    with pytest.raises(DataError, match="holds no tokenizer.model, which model.json is of"):
        bundles.tokenizer_file(folder)


# resolve


def test_a_bundle_and_a_step_folder_are_themselves(run_dir, tmp_path):
    bundle = write(tmp_path / "b")
    assert bundles.resolve(bundle) == bundle
    assert bundles.resolve(str(bundle)) == bundle
    assert bundles.resolve(run_dir / "checkpoints" / "2") == run_dir / "checkpoints" / "2"


def test_a_run_gives_its_newest_checkpoint(run_dir):
    assert bundles.resolve(run_dir) == run_dir / "checkpoints" / "10"


def test_a_run_gives_its_best_checkpoint_when_there_is_one(run_dir):
    best(run_dir, 2)
    assert bundles.read_best(run_dir) == {"step": 2, "score": 0.5, "metric": "ndcg_at_10"}
    assert bundles.resolve(run_dir) == run_dir / "checkpoints" / "2"


def test_a_best_checkpoint_that_is_gone_gives_the_newest(run_dir):
    best(run_dir, 5)
    assert bundles.resolve(run_dir) == run_dir / "checkpoints" / "10"
    best(run_dir, 2)
    (run_dir / "checkpoints" / "2" / files.MANIFEST).unlink()
    assert bundles.resolve(run_dir) == run_dir / "checkpoints" / "10"


def test_steps_without_manifest_are_passed_over(run_dir):
    (run_dir / "checkpoints" / "10" / files.MANIFEST).unlink()
    (run_dir / "checkpoints" / "11.damaged").mkdir()
    assert bundles.resolve(run_dir) == run_dir / "checkpoints" / "9"


def test_a_run_without_checkpoints_is_told_to_train(tmp_path):
    (tmp_path / "run" / "checkpoints" / "1").mkdir(parents=True)
    with pytest.raises(DataError, match="no checkpoint yet"):
        bundles.resolve(tmp_path / "run")


def test_no_best_without_evaluations(tmp_path):
    assert bundles.read_best(tmp_path) is None


def test_a_best_json_without_a_step_is_a_data_error(run_dir):
    files.write_json(run_dir / bundles.BEST, {"score": 0.5})
    with pytest.raises(DataError, match="best.json"):
        bundles.resolve(run_dir)


@pytest.mark.parametrize("kind", ["missing", "empty folder", "file", "manifest only", "model.json only"])
def test_garbage_is_not_a_model(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "file":
        path.write_text("hello")
    elif kind != "missing":
        path.mkdir()
    if kind == "manifest only":
        files.write_manifest(path)
    if kind == "model.json only":
        files.write_json(path / "model.json", description())
    with pytest.raises(DataError, match="not a run folder, checkpoint step or bundle") as caught:
        bundles.resolve(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "modules.json"])
def test_a_folder_of_another_tool_is_told_how_to_come_in(name, tmp_path):
    (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match="embed convert"):
        bundles.resolve(tmp_path)
