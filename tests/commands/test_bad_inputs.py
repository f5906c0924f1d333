"""Bad inputs from the commands' own declarations: each is one line with an exit code of ours, and nothing half-written."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import shutil

import bad_inputs
import pytest
from corruption import recommit

from embed import digests
from embed.commands.main import main

CODES = {64, 65, 69, 70, 74, 75, 78}
DRAWN = int(os.environ.get("EMBED_BAD_INPUTS", "25"))


def reseal(name: str):
    """Returns what gives a sealed file the digest of what it holds now."""

    def commit(folder: pathlib.Path) -> None:
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads((folder / name).read_text(encoding="utf-8"))  # UTF-16 is to stay what it is
            if isinstance(value, dict) and "digest" in value:
                digests.write_sealed(folder / name, value)

    return commit


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory, run_embed, write_suite):
    folder = tmp_path_factory.mktemp("bad") / "work"
    shutil.copytree(trained, folder)
    rows = [{"query": f"red river {i}", "positive": f"deep stone {i}"} for i in range(12)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "texts.jsonl").write_text(
        "".join(json.dumps({"id": str(i), "text": r["query"]}) + "\n" for i, r in enumerate(rows))
    )
    write_suite(folder, [{"question": row["query"], "answer": row["positive"]} for row in rows])
    for line in (
        ("export", "model", "exported"),
        ("export", "model", "program", "--format=stablehlo"),
        ("encode", "model", "--input=texts.jsonl", "--output=encoded", "--format=npy", "--shard_size=5"),
        ("evaluate", "model", "--suite=suite.json", "--output=scores", "--vectors=off"),
    ):
        done = run_embed(folder, *line)
        assert done.returncode == 0, done.stderr
    return folder


def of_files(folder: pathlib.Path):
    """The cases of every JSON file that a command reads, with the command that reads it."""
    convert = ("convert", "exported", "OUT")
    for name in (
        "config.json",
        "tokenizer_config.json",
        "sentence_bert_config.json",
        "modules.json",
        "1_Pooling/config.json",
    ):
        yield from bad_inputs.of_json(folder, f"exported/{name}", convert)
    yield from bad_inputs.of_json(folder, "exported/config_sentence_transformers.json", convert)
    yield from bad_inputs.of_json(folder, "suite.json", ("evaluate", *bad_inputs.LINES["evaluate"]))
    search = ("search", "model", "red", "--corpus=texts.jsonl")
    yield from bad_inputs.of_json(folder, "model/model.json", search, recommit)
    yield from bad_inputs.of_json(folder, "model/MANIFEST.json", search)
    yield from bad_inputs.of_json(folder, "program/model.json", ("verify", "program"), recommit)
    encode = ("encode", "model", "--input=texts.jsonl", "--output=encoded", "--format=npy", "--shard_size=5")
    for name in ("job.json", "summary.json", "part-00000.json"):
        yield from bad_inputs.of_json(folder, f"encoded/{name}", encode, reseal(name), is_bad=name == "job.json")
    yield from bad_inputs.of_json(
        folder, "scores/results.json", ("evaluate", "--compare", "scores", "--output=OUT"), reseal("results.json")
    )
    train = ("train", "--gin_file=tiny.gin", "--run_dir=run", "--gin.TRAIN_STEPS=3")
    # A damaged checkpoint is set aside, and the run goes on from the one before.
    for case in bad_inputs.of_json(folder, "run/checkpoints/2/meta.json", train, recommit):
        yield dataclasses.replace(case, is_bad=case.is_bad and not case.name.endswith("is a folder"))


def attempt(case: bad_inputs.Case, folder: pathlib.Path, work: pathlib.Path) -> tuple[int, str, str]:
    """Runs a case in a copy of the folder; returns the exit code and what was printed."""
    shutil.copytree(folder, work, symlinks=True)
    if case.change is not None:
        case.change(work)
    words = [word.replace("OUT", "new-output") for word in case.words]
    out, err = io.StringIO(), io.StringIO()
    here = pathlib.Path.cwd()
    os.chdir(work)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(words)
    finally:
        os.chdir(here)
    shutil.rmtree(work)
    return ended.value.code, out.getvalue(), err.getvalue()


def check(case: bad_inputs.Case, folder: pathlib.Path, work: pathlib.Path) -> str | None:
    """Returns what is wrong with how a case ended, or None."""
    try:
        code, _, err = attempt(case, folder, work)
    except BaseException as e:
        shutil.rmtree(work, ignore_errors=True)
        return f"{case.name}: {type(e).__name__}: {str(e)[:300]}"
    lines = [line for line in err.splitlines() if line.startswith("embed: ")]
    if code == 0:
        return f"{case.name}: accepted" if case.is_bad else None
    if code not in CODES or len(lines) != 1 or "Traceback" in err:
        return f"{case.name}: exit code {code}, {err[:300]!r}"
    return None


@pytest.mark.long
@pytest.mark.slow
def test_bad_inputs_drawn_from_all_declarations(folder, tmp_path):
    cases = [*bad_inputs.of_options(), *bad_inputs.of_gin(), *of_files(folder)]
    assert len({case.name for case in cases}) > 750
    drawn = bad_inputs.drawn(cases, DRAWN, seed=int(os.environ.get("EMBED_BAD_SEED", "0")))
    wrong = [problem for case in drawn if (problem := check(case, folder, tmp_path / "work"))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_many_bad_inputs(folder, tmp_path):
    cases = [*bad_inputs.of_options(), *bad_inputs.of_gin(), *of_files(folder)]
    drawn = bad_inputs.drawn(cases, int(os.environ.get("EMBED_MANY_BAD_INPUTS", "80")), seed=1)
    wrong = [problem for case in drawn if (problem := check(case, folder, tmp_path / "work"))]
    assert not wrong, f"{len(wrong)} of {len(drawn)}:\n" + "\n".join(wrong)
