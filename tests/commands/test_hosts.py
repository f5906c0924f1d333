"""Encoding, mining and evaluation on several hosts give what one gives; a host that is killed, and all started again."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from compiling import on_devices

from embed import arrays, bundles, checkpoints, documents, trees

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORDS = ["red", "green", "river", "stone", "engine", "paper", "winter", "quick"]


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory, write_suite):
    """A folder with a small trained model, texts, pairs and a suite."""
    folder = tmp_path_factory.mktemp("hosts") / "work"
    shutil.copytree(trained, folder)
    choose = random.Random(3)
    sentence = lambda: " ".join(choose.choices(WORDS, k=choose.randint(2, 9)))  # noqa: E731
    texts = [{"id": f"text-{i}", "text": f"{sentence()} {i}"} for i in range(90)]
    pairs = [{"query": f"{sentence()} {i}", "positive": f"{sentence()} {i}"} for i in range(80)]
    for name, rows in (("texts", texts), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_suite(folder, [{"question": p["query"], "answer": p["positive"]} for p in pairs])
    return folder


ENCODE = ("encode", "model", "--input=texts.jsonl", "--format=npy", "--shard_size=8")
MINE = ("mine", "model", "--pairs", "pairs.jsonl", "--negatives=2")
EVALUATE = ("evaluate", "model", "--suite=suite.json", "--vectors=vectors", "--baselines=random,bm25")


@pytest.fixture(scope="module")
def alone(folder, run_embed):
    for command, output in ((ENCODE, "encoded"), (MINE, "mined"), ((*EVALUATE[:3], *EVALUATE[4:]), "scores")):
        done = run_embed(folder, *command, f"--output={output}", EMBED_VECTORS="off")
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [2, pytest.param(4, marks=pytest.mark.long)])
def test_encoding_is_divided_over_hosts(alone, run_on_hosts, hosts):
    output = f"encoded-{hosts}"
    run_on_hosts(alone, hosts, *ENCODE, f"--output={output}", devices=2)
    own, reference = (sorted(p.name for p in (alone / o).iterdir()) for o in (output, "encoded"))
    assert own == reference
    for name in own:
        if name.endswith(".npy"):
            np.testing.assert_allclose(np.load(alone / output / name), np.load(alone / "encoded" / name), atol=1e-6)
        elif name.endswith(".txt"):
            assert (alone / output / name).read_text() == (alone / "encoded" / name).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [2])
def test_mining_finds_the_same_negatives(alone, run_on_hosts, hosts):
    run_on_hosts(alone, hosts, *MINE, f"--output=mined-{hosts}")
    own, reference = (documents.read_json(alone / o / "pairs.json") for o in (f"mined-{hosts}", "mined"))
    assert (alone / f"mined-{hosts}/pairs.jsonl.gz").read_bytes() == (alone / "mined/pairs.jsonl.gz").read_bytes()
    assert own["pairs"] == reference["pairs"]


def flat(tree, at: str = "") -> dict:
    """The values of nested dicts by their paths."""
    if not isinstance(tree, dict):
        return {at: tree}
    return {path: value for name, inner in tree.items() for path, value in flat(inner, f"{at}/{name}").items()}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("hosts", [4])
def test_evaluation_gives_the_same_scores(alone, run_on_hosts, hosts):
    kept = f"--vectors=vectors-{hosts}"
    printed = run_on_hosts(alone, hosts, *EVALUATE, kept, f"--output=scores-{hosts}", devices=2)
    assert "items to embed" in printed and "scoring model" in printed
    ours, theirs = (flat(documents.read_json(alone / o / "results.json")) for o in (f"scores-{hosts}", "scores"))
    scores = [p for p, v in theirs.items() if isinstance(v, float)]
    assert len(scores) > 10
    for path in scores:
        assert ours[path] == pytest.approx(theirs[path], abs=1e-5), path
    # What the main host kept is embedded by nobody.
    again = run_on_hosts(alone, hosts, *EVALUATE[:3], kept, f"--output=again-{hosts}")
    assert "model: 0 items to embed" in again


@pytest.fixture(scope="module")
def three(alone):
    """The folder with two more models, the first of them worse: which are kept differs from the order they are given in."""
    names = ("model.json", bundles.tokenizer_file(alone / "model").name)
    contents = {name: (alone / "model" / name).read_bytes() for name in names}
    leaves = trees.flatten(arrays.load_numpy(alone / "model"))
    draw = np.random.default_rng(0)
    for name, noise in (("noise", 3.0), ("other", 0.1)):
        changed = {p: x + (noise * x.std() * draw.standard_normal(x.shape)).astype(x.dtype) for p, x in leaves.items()}
        checkpoints.write_bundle(alone / name, trees.unflatten(changed), contents)
    return alone


@pytest.mark.slow
@pytest.mark.parametrize(("method", "hosts"), [("weighted", 2), pytest.param("greedy", 4, marks=pytest.mark.long)])
def test_averaging_gives_the_same_model(three, run_embed, run_on_hosts, method, hosts):
    more = {"weighted": "--weights=0.25,0.25,0.5", "greedy": "--suite=suite.json"}[method]
    given = ("average", "noise", "other", "model", "--unrelated", f"--method={method}", more)
    one, many = f"average-{method}", f"average-{method}-{hosts}"
    if not (three / one).exists():
        done = run_embed(three, *given, f"--output={one}")
        assert done.returncode == 0, done.stderr
    printed = run_on_hosts(three, hosts, *given, f"--output={many}", devices=2)
    assert f"wrote {many}" in printed
    reference = trees.flatten(arrays.load_numpy(three / one))
    for path, value in trees.flatten(arrays.load_numpy(three / many)).items():
        np.testing.assert_array_equal(value, reference[path])
    if method == "greedy":
        ours, theirs = (documents.read_json(three / o / "soup.json")["trials"] for o in (many, one))
        assert theirs[0]["mean"] < max(trial["mean"] for trial in theirs[:3])
        assert [t["weights"] for t in ours] == [t["weights"] for t in theirs]
        for own, trial in zip(ours, theirs):
            assert own["mean"] == pytest.approx(trial["mean"], abs=1e-6)


SLOW = """
import sys, time
from embed import hosts
hosts.Watch.__init__.__kwdefaults__.update(beat=0.2, lost=3.0)
hosts.join()
time.sleep(8 if hosts.is_main() else 1)  # long enough to be seen alive
print("done")
hosts.leave(0)
"""


@pytest.mark.slow
def test_a_host_that_is_done_first_is_not_taken_for_lost(port):
    """The main host may write for long what all have made."""
    env = {**os.environ, "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    command = [sys.executable, "-c", SLOW]
    running = [subprocess.Popen(command, env={**env, "JAX_PROCESS_ID": str(i)}, cwd=ROOT) for i in range(2)]
    try:
        assert [p.wait(120) for p in running] == [0, 0]
    finally:
        for p in running:
            p.kill()


@pytest.mark.slow
def test_every_host_refuses_an_output_that_is_there(folder, run_on_hosts):
    (folder / "taken").mkdir()
    (folder / "taken" / "results.json").write_text("{}")
    with pytest.raises(AssertionError, match=r"already exists(.|\n)*already exists") as caught:
        run_on_hosts(folder, 2, "average", "model", "--output=taken")
    assert "exit codes [74, 74]" in str(caught.value)


RUN = (
    "train",
    "--gin_file=tiny.gin",
    "--gin.TRAIN_STEPS=12",
    "--gin.CHECKPOINT_EVERY=2",
    "--gin.sharding.MeshShape.fsdp=2",
)


def launched(folder, run: str, **environment) -> subprocess.Popen:
    """Two hosts on this machine, started by the launcher that starts them again."""
    environment = {
        **os.environ, "XLA_FLAGS": on_devices(2), "EMBED": str(folder / "embed.sh"),
        "PROCESSES": "2", "PAUSE": "1", "GRACE": "50", **environment,
    }  # fmt: skip
    command = ["bash", str(ROOT / "launch/gpu.sh"), *RUN, f"--run_dir={folder / run}"]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(6000)
@pytest.mark.parametrize("victim", [1, 0])
def test_a_killed_host_is_noticed_and_the_run_ends_with_the_same_bits(folder, victim, trained):
    work = folder.parent / f"killed-{victim}"
    shutil.copytree(trained, work)
    script = work / "embed.sh"
    # Relative paths of the recipe are those of the folder.
    script.write_text(f'#!/bin/sh\ncd {work}\necho $$ > pid-$JAX_PROCESS_ID\nexec {sys.executable} -m embed "$@"\n')
    script.chmod(0o755)
    whole = launched(work, "whole")
    printed, _ = whole.communicate(timeout=1500)
    assert whole.returncode == 0, printed
    running = launched(work, "killed")
    begun = time.time()
    while not (work / "killed/checkpoints/4/MANIFEST.json").exists():
        assert running.poll() is None, running.communicate()[0]
        assert time.time() - begun < 1500
        time.sleep(0.05)
    pids = [int((work / f"pid-{i}").read_text()) for i in (0, 1)]
    os.kill(pids[victim], signal.SIGKILL)
    killed = time.time()
    while pathlib.Path(f"/proc/{pids[1 - victim]}").exists() and time.time() - killed < 100:
        time.sleep(0.1)
    noticed = time.time() - killed
    printed, _ = running.communicate(timeout=1500)
    assert running.returncode == 0, printed
    assert "start 2 of at most 11" in printed and noticed < 45
    assert "resuming at step" in printed
    ends = [trees.flatten(arrays.load_numpy(work / run / "checkpoints/12")) for run in ("whole", "killed")]
    assert ends[0].keys() == ends[1].keys()
    for path, value in ends[0].items():
        assert value.tobytes() == ends[1][path].tobytes(), path
