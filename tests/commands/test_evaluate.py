"""`embed evaluate --compare` and its errors at the command line: results that are there, scores that are not defined, names."""

import json
import shutil
import unicodedata

import pytest
from compiling import FAST

from embed import digests
from embed.commands.main import main

ENVIRONMENT = {
    "embed": "1",
    "python": "3",
    "platform": "x",
    "packages": {"jax": None},
    "devices": {"kind": "cpu", "count": 1, "processes": 1},
    "XLA_FLAGS": FAST,
}


def call(capsys, *arguments) -> tuple[int, str, str]:
    """Runs `embed` in this process; returns (exit code, stdout, stderr)."""
    with pytest.raises(SystemExit) as e:
        main(list(map(str, arguments)))
    out = capsys.readouterr()
    return e.value.code, out.out, out.err


def results(model="m", task="pairs", score=None) -> dict:
    view = {"name": "8", "dim": 8, "precision": "float32", "bytes": 32}
    means = {"sts": score, "mean of the types": score, "mean of the tasks": score}
    return {
        "format": 3,
        "samples_digest": "0",
        "suite": "s",
        "suite_digest": "d",
        "command": ["embed", "evaluate"],
        "environment": ENVIRONMENT,
        "tasks": {task: {"type": "sts", "group": "sts", "main": "cosine_spearman", "languages": [], "notes": []}},
        "models": {
            model: {
                "model": "x",
                "views": [view],
                "results": {task: {"8": {"cosine_spearman": score}}},
                "intervals": {task: {"8": [score, score]}},
                "means": {"8": means},
            }
        },
    }


@pytest.fixture
def kept(tmp_path):
    """A function that writes a results.json into a folder and returns the folder."""

    def write(folder, content):
        (tmp_path / folder).mkdir()
        digests.write_sealed(tmp_path / folder / "results.json", content)
        return tmp_path / folder

    return write


def test_scores_that_are_not_defined_are_compared(kept, tmp_path, capsys):
    one, two = kept("one", results()), kept("two", results("n", score=0.5))
    code, out, err = call(capsys, "evaluate", "--compare", one, two, f"--output={tmp_path / 'both'}")
    assert code in (0, None), err
    assert "| pairs | Spearman |   - | 50.00 [50.00, 50.00] |" in out
    again = tmp_path / "again"
    code, repeated, err = call(capsys, "evaluate", "--compare", tmp_path / "both", f"--output={again}")
    assert code in (0, None), err
    tables = [(tmp_path / folder / "results.md").read_text().split("\n\n")[:4] for folder in ("both", "again")]
    assert tables[0] == tables[1] and "| pairs | Spearman |" in tables[0][3]
    assert json.loads((again / "results.json").read_text())["models"]["m"]["means"]["8"]["sts"] is None


def test_a_senseless_value_is_one_line_with_its_path(kept, tmp_path, capsys):
    content = results(score="high")
    code, _, err = call(capsys, "evaluate", "--compare", kept("one", content), f"--output={tmp_path / 'out'}")
    assert code == 65 and err.count("\n") == 1 and "models.m.results.pairs.8.cosine_spearman is 'high'" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["models", "tasks"])
def test_results_of_nothing_are_refused(kept, tmp_path, capsys, name):
    content = results(score=0.5) | {name: {}}
    code, _, err = call(capsys, "evaluate", "--compare", kept("one", content), f"--output={tmp_path / 'out'}")
    assert code == 65 and err.count("\n") == 1 and "results.json: " in err and "restore the file" in err
    assert not (tmp_path / "out").exists()


def test_no_control_character_of_a_name_reaches_the_terminal(kept, tmp_path, capsys):
    content = results("\x1b[31mm|n\n", "\u202epairs\x07", 0.5)
    code, out, err = call(capsys, "evaluate", "--compare", kept("one", content), f"--output={tmp_path / 'out'}")
    assert code in (0, None), err
    assert not any(unicodedata.category(c) == "Cc" and c != "\n" for c in out + err) and "\u202e" not in out
    assert "\\x1b[31mm|n\\n" in out and "\\x1b\\[31mm\\|n\\\\n" not in out


@pytest.mark.parametrize("model, part", [("=bundle", "has no name"), ("name=", "has no path")])
def test_a_model_needs_a_name_and_a_path(tmp_path, capsys, model, part):
    given = ("evaluate", model, f"--suite={tmp_path / 's.json'}", f"--output={tmp_path / 'out'}")
    code, _, err = call(capsys, *given)
    assert code == 64 and err.count("\n") == 1 and repr(model) in err and part in err and "NAME=MODEL" in err


@pytest.fixture(scope="module")
def model(trained, tmp_path_factory, write_suite):
    """A folder with a model and a suite."""
    folder = tmp_path_factory.mktemp("evaluate") / "work"
    shutil.copytree(trained / "model", folder / "model")
    write_suite(folder, [{"question": f"red river {i}", "answer": f"deep stone {i}"} for i in range(6)])
    return folder


REFUSED = {
    "a model called as a baseline": (("bm25=model", "--baselines=bm25"), 64, "both called 'bm25'"),
    "weights twice": (("model", "--weights=float32,float32"), 64, "'model' would be scored twice"),
    "unknown weights": (("model", "--weights=float32,int5"), 64, "--weights: 'int5'"),
    "no second model": (("model", "other"), 65, "other"),
    "no room": (("model", "--max_length=1"), 78, "max_length = 1 leaves no room for a text"),
    "unknown prompt": (("model", "--suite=prompts.json"), 78, "prompts.json: task 'pairs': no prompt is called 'nope'"),
    "no UTF-8": (("model", "--against=\udcff"), 64, "is not valid UTF-8"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_refused_before_anything_is_scored(model, monkeypatch, capsys, kind):
    given, code, message = REFUSED[kind]
    suite = json.loads((model / "suite.json").read_text())
    suite["tasks"][0]["prompt"] = "nope"
    (model / "prompts.json").write_text(json.dumps(suite))
    monkeypatch.chdir(model)
    before = sorted(p.name for p in model.iterdir())
    found, out, err = call(capsys, "evaluate", "--suite=suite.json", "--output=out", "--vectors=vectors", *given)
    assert found == code and err.count("\n") == 1 and message in err, err
    assert "embedded" not in out and sorted(p.name for p in model.iterdir()) == before
