"""launch/benchmark.sh: what it would run, what it refuses; and how its jobs tell ratios and targets."""

import importlib.util
import json
import pathlib
import shlex
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "launch" / "benchmarks"


@pytest.fixture
def benchmark(tmp_path):
    (tmp_path / "source").mkdir()

    def run(*given, **environment):
        environment = {"DRY_RUN": "1", "OUTPUT": str(tmp_path / "out"), "PATH": "/usr/bin:/bin", **environment}
        command = [str(ROOT / "launch" / "benchmark.sh"), *given]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_all_jobs_are_scripts_that_are_there(benchmark, tmp_path):
    (tmp_path / "texts.jsonl").touch()
    done = benchmark("source", ROUNDS="2", TEXTS="texts.jsonl")
    assert done.returncode == 0, done.stderr
    calls = [shlex.split(x)[2:] for x in done.stdout.splitlines() if x.startswith("+ ")]
    assert [pathlib.Path(c[0]).stem for c in calls] == ["encode", "train", "train", "search", "soup", "serve"]
    for script, *given in calls:
        assert (ROOT / script).is_file() and "--rounds=2" in given and f"--output={tmp_path / 'out'}" in given
        assert (str(tmp_path / "source") in given) == ("search" not in script)
    assert f"--texts={tmp_path / 'texts.jsonl'}" in calls[0] and "--job=cached" in calls[2]


def test_on_a_gpu_its_own_environment_is_used(benchmark):
    done = benchmark("source", "accelerator")
    assert done.stdout.startswith("+ .venv-cuda/bin/python launch/benchmarks/accelerator.py --output=")


def test_one_job_alone(benchmark):
    done = benchmark("source", "search")
    assert sum(x.startswith("+ ") for x in done.stdout.splitlines()) == 1 and "{search}.{md,json}" in done.stdout


def test_images(benchmark, tmp_path):
    assert "launch/benchmarks/views.py --output=" in benchmark("source", "views").stdout
    (tmp_path / "vit.onnx").touch()
    done = benchmark("vit.onnx", "encode_images")
    assert f"launch/benchmarks/encode_images.py {tmp_path / 'vit.onnx'} --output=" in done.stdout
    refused = benchmark("source", "encode_images")
    assert refused.returncode == 66 and "source: no file; give a Dinov2 as ONNX" in refused.stderr


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ((), 64, "launch/benchmark.sh SOURCE"),
        (("nowhere",), 66, "nowhere: no folder"),
        (("source", "x"), 64, "no job 'x'"),
    ],
)
def test_what_cannot_be_is_refused(benchmark, given, code, message):
    done = benchmark(*given)
    assert done.returncode == code and message in done.stderr


@pytest.fixture(scope="module")
def turns():
    spec = importlib.util.spec_from_file_location("turns", SCRIPTS / "turns.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_ratio_is_held_against_its_target(turns):
    assert turns.Ratio("a", 1.3, 1.3).met and not turns.Ratio("a", 1.29, 1.3).met
    assert turns.Ratio("a", 0.6, 0.6, at_most=True).met and not turns.Ratio("a", 0.61, 0.6, at_most=True).met
    assert turns.Ratio("a", 5.0).met is None


def test_both_sides_take_turns(turns):
    order = []
    seconds = turns.take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 3 and [len(s) for s in seconds.values()] == [3, 3]


def test_the_table_and_the_numbers_are_written(turns, tmp_path, capsys):
    ratios = [
        turns.Ratio("speed", 1.234, 1.3),
        turns.Ratio("cosine", 0.99995, 0.9999, digits=6),
        turns.Ratio("told", 2.0),
    ]
    turns.finish("encode", ratios, {"seconds": [1, 2]}, "some text", str(tmp_path))
    text = (tmp_path / "encode.md").read_text()
    assert text in capsys.readouterr().out
    assert "| speed | 1.23 | at least 1.30 | missed |" in text and "| told | 2.00 | - | - |" in text
    assert "| cosine | 0.999950 | at least 0.999900 | met |" in text
    found = json.loads((tmp_path / "encode.json").read_text())
    assert found["ratios"][0] == {
        "what": "speed", "value": 1.234, "target": 1.3, "at_most": False, "digits": 2, "met": False,
    }  # fmt: skip
    assert found["seconds"] == [1, 2] and found["machine"]["cores"] >= 1
