"""Damage to what `embed export` and `embed evaluate` leave: `verify` and `--compare` find it."""

import contextlib
import io
import json
import os
import pathlib
import random
import shutil

import corruption
import pytest

from embed import errors
from embed.commands.main import main

KINDS = {kind.exit_code: kind for kind in vars(errors).values() if hasattr(kind, "exit_code")}


def embed(*arguments) -> None:
    """Runs a command in this process; what it refuses is the error that it says in one line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    if ended.value.code:
        (line,) = [line for line in err.getvalue().splitlines() if line.startswith("embed: ")]
        assert "Traceback" not in err.getvalue(), err.getvalue()
        raise KINDS[ended.value.code](line)


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory, run_embed, write_suite):
    folder = tmp_path_factory.mktemp("corrupt") / "work"
    shutil.copytree(trained, folder)
    words = ["red", "river", "deep", "stone", "cloud", "paper", "green", "winter"]
    choose = random.Random(0)
    pairs = [{"question": " ".join(choose.sample(words, 3)), "answer": f"{w} {i}"} for i, w in enumerate(3 * words)]
    write_suite(folder, pairs)
    for line in (
        ("export", "model", "program", "--format=stablehlo"),
        ("export", "model", "transformer"),
        ("export", "run", "other", "--format=stablehlo"),
        ("evaluate", "a=model", "--baselines=bm25", "--suite=suite.json", "--output=scores", "--vectors=off"),
        ("evaluate", "b=run", "--suite=suite.json", "--output=scores-other", "--vectors=off"),
    ):
        done = run_embed(folder, *line)
        assert done.returncode == 0, done.stderr
    return folder


def verified(folder: pathlib.Path) -> dict[str, bytes]:
    """Returns the files of an export that `embed verify` accepts, but for the card, which its owner may edit."""
    embed("verify", folder)
    return {name: content for name, content in corruption.contents(folder).items() if name != "README.md"}


def verified_files(folder: pathlib.Path) -> dict[str, bytes]:
    """The same without torch: `verify` has found all files in order when it asks for what runs them."""
    with contextlib.suppress(errors.UsageError):
        embed("verify", folder)
    return {name: content for name, content in corruption.contents(folder).items() if name != "README.md"}


def listed(read):
    """Returns a reader that leaves files out which the manifest does not name, as a copy that somebody made."""

    def files_of(folder: pathlib.Path) -> dict[str, bytes]:
        found = read(folder)
        names = json.loads(found["MANIFEST.json"])["files"]
        return {name: content for name, content in found.items() if name in names}

    return files_of


def compared(output: pathlib.Path):
    """Returns a reader of an evaluation: the results that `embed evaluate --compare` makes of it."""

    def results(folder: pathlib.Path) -> dict:
        shutil.rmtree(output, ignore_errors=True)
        embed("evaluate", "--compare", folder, f"--output={output}")
        found = json.loads((output / "results.json").read_text())
        return {name: found[name] for name in ("suite", "suite_digest", "tasks", "models", "environment")}

    return results


def cases(folder: pathlib.Path, work: pathlib.Path) -> list[corruption.Case]:
    program, transformer, scores = (folder / name for name in ("program", "transformer", "scores"))
    return [
        corruption.Case("verify", program, program, None, listed(verified), folder / "other"),
        corruption.Case("verify", transformer, transformer, None, listed(verified_files), program),
        corruption.Case("compare", scores, scores, None, compared(work / "both"), folder / "scores-other"),
    ]


def check(folder, work, count, seed=0):
    counts = corruption.trials(cases(folder, work), work / "damaged", count, seed)
    print(dict(counts))
    assert counts[corruption.REFUSED] > 0.4 * count


@pytest.mark.long
@pytest.mark.slow
def test_no_damage_to_exports_and_scores_is_silent(folder, tmp_path):
    check(folder, tmp_path, 30)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_none_of_many_damages_is_silent(folder, tmp_path):
    check(folder, tmp_path, int(os.environ.get("EMBED_CORRUPTIONS", "80")), 1000)
