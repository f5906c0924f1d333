"""`embed compile` on the devices at hand: what it says, what it refuses. tests/parity compiles for TPUs."""

import json
import shutil

import pytest
from compiling import on_devices

from embed.documents import read_json

HEAD = ["compile", "--gin_file=tiny.gin"]


@pytest.fixture
def folder(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "work")


@pytest.mark.slow
def test_every_step_is_told_and_written(folder, run_embed):
    done = run_embed(folder, *HEAD, "--output=needs.md")
    assert done.returncode == 0, done.stderr
    rows = read_json(folder / "needs.json")["steps"]
    assert [r["name"] for r in rows] == ["train", "evaluate", "encode"]
    for row in rows:
        assert row["work"]["flops"] > 0 and row["lasting"] > 0 and row["work"]["unknown_loops"] == 0
        # Run and not of the model are the loss, and keys outside of the window; nothing is computed twice.
        assert 1.0 <= row["work"]["flops"] / row["model_flops"] < 1.5
    table = (folder / "needs.md").read_text()
    assert "| tiny " in table and table.count("\n| tiny") == 3
    assert "exchanged: nothing" in done.stdout


@pytest.mark.slow
@pytest.mark.long
def test_micro_batches_take_less_memory_and_one_more_forward_pass(folder, run_embed):
    found = {}
    for parts in (1, 4):
        output = f"--output={parts}.md"
        done = run_embed(folder, *HEAD, "--steps=train", f"--micro_batches={parts}", "--gin.BATCH_SIZE=64", output)
        assert done.returncode == 0, done.stderr
        (found[parts],) = read_json(folder / f"{parts}.json")["steps"]
    assert found[4]["temporary"] < found[1]["temporary"]
    ratio = found[4]["work"]["flops"] / found[1]["work"]["flops"]
    assert 1.2 < ratio < 1.4  # four passes where there were three


@pytest.mark.long
@pytest.mark.slow
def test_meshes_exchange_and_split_the_work(folder, run_embed):
    eight = {"XLA_FLAGS": on_devices(8)}
    given = ["--steps=train", "--gin.BATCH_SIZE=64", "--mesh=8,1,1", "--mesh=1,8,1", "--mesh=-1,2,2"]
    done = run_embed(folder, *HEAD, *given, "--output=needs.md", **eight)
    assert done.returncode == 0, done.stderr
    data, fsdp, both = read_json(folder / "needs.json")["steps"]
    assert [r["mesh"] for r in (data, fsdp, both)] == [[8, 1, 1], [1, 8, 1], [2, 2, 2]]
    assert fsdp["lasting"] < 0.5 * data["lasting"]  # parameters and moments lie over eight devices
    assert all(r["work"]["collectives"] for r in (data, fsdp, both))
    assert data["model_flops"] == fsdp["model_flops"]


@pytest.mark.parametrize("content", [{"steps": [{"cells": ["a", "b"]}]}, {"steps": [3]}, {"steps": 3}, {}])
def test_a_table_of_another_version_is_not_added_to(folder, run_embed, content):
    """It is told before anything is compiled."""
    (folder / "old.json").write_text(json.dumps(content))
    refused = run_embed(folder, *HEAD, "--add", "--output=old.md")
    assert (
        refused.returncode == 65 and "old.json: another version of embed wrote it, with other columns" in refused.stderr
    )
    assert "compile" not in refused.stdout and not (folder / "old.md").exists()


@pytest.mark.long
@pytest.mark.slow
def test_a_table_is_added_to(folder, run_embed):
    for name, mesh in (("b", "2,1,1"), ("a", "1,2,1"), ("a", "2,1,1")):
        (folder / "recipes" / "family").mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "tiny.gin", folder / "recipes" / "family" / f"{name}.gin")
        given = [
            f"--gin_file=recipes/family/{name}.gin",
            "--steps=train",
            f"--mesh={mesh}",
            "--output=needs.md",
            "--add",
        ]
        done = run_embed(folder, "compile", *given, XLA_FLAGS=on_devices(2))
        assert done.returncode == 0, done.stderr
    rows = read_json(folder / "needs.json")["steps"]
    assert [(r["recipe"], r["mesh"]) for r in rows] == [
        ("family/a", [1, 2, 1]), ("family/a", [2, 1, 1]), ("family/b", [2, 1, 1]),
    ]  # fmt: skip
    table = (folder / "needs.md").read_text()
    assert table.count("| family/") == 3


@pytest.mark.long
@pytest.mark.slow
def test_advice_names_the_best_of_what_was_tried(folder, run_embed):
    two = {"XLA_FLAGS": on_devices(2)}
    done = run_embed(folder, *HEAD, "--advise", "--output=tried.md", **two)
    assert done.returncode == 0, done.stderr
    rows = read_json(folder / "tried.json")["steps"]
    assert {tuple(r["mesh"]) for r in rows} >= {(2, 1, 1), (1, 2, 1)} and {r["layers"]["remat"] for r in rows} >= {
        "none",
        "full",
    }
    assert {r["layers"]["unrolled"] for r in rows} == {True, False}
    # Of chips that nothing is known of the least that is run is best, and recomputing runs more.
    best = min(rows, key=lambda r: (r["work"]["flops"], r["lasting"] + r["temporary"]))
    assert rows[0] == best and best["layers"]["remat"] == "none"
    data, fsdp, tensor = best["mesh"]
    assert f"advice     here: MeshShape.data = {data}, fsdp = {fsdp}, tensor = {tensor}, remat = 'none'" in done.stdout


@pytest.mark.slow
@pytest.mark.long
def test_adapters_take_less_than_the_whole_model(folder, run_embed):
    text = "\n".join(x for x in (folder / "tiny.gin").read_text().splitlines() if "ema_decay" not in x)
    (folder / "tiny.gin").write_text(text)
    whole = run_embed(folder, *HEAD, "--steps=train", "--output=whole.md")
    assert whole.returncode == 0, whole.stderr
    (folder / "tiny.gin").write_text(f"{text}\nfrom embed.models import lora\nrecipe.Recipe.lora = @lora.Lora()\n")
    done = run_embed(folder, *HEAD, "--steps=train", "--output=adapters.md")
    assert done.returncode == 0, done.stderr
    (before,), (after,) = (read_json(folder / f"{n}.json")["steps"] for n in ("whole", "adapters"))
    assert after["lasting"] < before["lasting"]  # no moments of what does not learn


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (["--steps=train,serve"], 64, "no step 'serve'; known: train, evaluate, encode"),
        (["--mesh=2,2"], 64, "--mesh=2,2: three numbers, DATA,FSDP,TENSOR"),
        (["--mesh=3,1,1"], 78, "does not fit 1 devices"),
        (["--micro_batches=3"], 78, "does not split"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(folder, run_embed, given, code, message):
    done = run_embed(folder, *HEAD, *given)
    assert done.returncode == code and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_without_libtpu_a_slice_is_refused_with_what_to_do(folder, run_embed):
    pytest.importorskip("jax")
    try:
        import libtpu  # noqa: F401

        pytest.skip("libtpu is here")
    except ImportError:
        pass
    done = run_embed(folder, *HEAD, "--topology=v5e:2x2")
    assert done.returncode == 78 and "pip install 'embed[tpu]'" in done.stderr
