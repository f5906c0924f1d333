"""`embed average` as a user runs it: soups chosen by a suite, sweeps, and models that do not belong together."""

import json
import shutil

import pytest

from embed.documents import read_json

TASKS = [
    {"name": "pairs", "type": "retrieval", "path": "dev"},
    {"name": "similar", "type": "sts", "path": "sts.tsv"},
]


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory, run_embed, write_retrieval):
    """A folder with a base, two runs that start from it, one that does not, and a suite."""
    folder = tmp_path_factory.mktemp("average") / "work"
    shutil.copytree(trained, folder)
    (folder / "run").rename(folder / "base")
    rows = [json.loads(x) for x in (folder / "first.jsonl").read_text().splitlines()][:20]
    write_retrieval(folder / "dev", rows)
    pairs = "red river\tred river\t5\ngreen stone\tslow north\t1\nblue\tblue cloud\t3\nslow\tslow engine\t4\n"
    (folder / "sts.tsv").write_text(f"sentence1\tsentence2\tscore\n{pairs}")
    (folder / "suite.json").write_text(json.dumps({"name": "small", "tasks": TASKS}))
    for seed, (name, start) in enumerate({"one": ["base"], "two": ["base"], "stranger": []}.items(), 1):
        given = [f"--gin.recipe.Recipe.init_from={folder}" for folder in start] + [f"--gin.recipe.Recipe.seed={seed}"]
        done = run_embed(folder, "train", "--gin_file=tiny.gin", f"--run_dir={name}", "--gin.TRAIN_STEPS=2", *given)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("method", "more"),
    [
        pytest.param("greedy", [], marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param("learned", ["--trials=8"], marks=pytest.mark.slow),
        pytest.param("uniform", [], marks=pytest.mark.slow),
        pytest.param("weighted", ["--weights=0.25,0.75"], marks=pytest.mark.slow),
    ],
)
def test_soup_and_ingredients_are_scored_side_by_side(folder, run_embed, method, more):
    output = f"soup-{method}"
    given = ["one", "two", f"--method={method}", "--suite=suite.json", f"--output={output}", *more]
    done = run_embed(folder, "average", *given)
    assert done.returncode == 0, done.stderr
    told = read_json(folder / output / "soup.json")
    trials, kept = told["trials"], [t for t in told["trials"] if t["kept"]][-1]
    assert [t["weights"] for t in trials[:2]] == [[1, 0], [0, 1]]
    assert set(kept["scores"]) == {"pairs", "similar"}
    if method in ("greedy", "learned"):
        assert kept["mean"] == max(t["mean"] for t in trials)
        assert len(trials) <= 8
    else:
        assert kept["weights"] == [0.25, 0.75] if method == "weighted" else [0.5, 0.5]
    weights = {i["weight"] for i in read_json(folder / output / "model.json")["lineage"]["inputs"]}
    assert weights == set(kept["weights"])
    table = (folder / output / "soup.md").read_text()
    assert table in done.stdout and "| one/checkpoints/2 " in table and "mean of the types" in table
    assert (folder / output / "soup.png").read_bytes().startswith(b"\x89PNG")
    # The soup that was written is the one that was scored.
    done = run_embed(folder, "evaluate", output, "--suite=suite.json", f"--output=scores-{method}", "--vectors=off")
    assert done.returncode == 0, done.stderr
    (model,) = read_json(folder / f"scores-{method}" / "results.json")["models"].values()
    means = next(iter(model["means"].values()))
    assert means["mean of the types"] == pytest.approx(kept["mean"], abs=1e-4)


@pytest.mark.slow
def test_a_sweep_keeps_the_best_alpha(folder, run_embed):
    given = ["base", "one", "--method=interpolate", "--alpha=0,0.5,1", "--output=sweep"]
    done = run_embed(folder, "average", *given, "--suite=suite.json", "--tasks=similar")
    assert done.returncode == 0, done.stderr
    sweep = read_json(folder / "sweep" / "sweep.json")
    assert all(set(scores) == {"similar"} for scores in sweep["scores"].values())
    assert list(sweep["means"]) == ["0", "0.5", "1"]
    assert sweep["means"][f"{sweep['best']:g}"] == max(sweep["means"].values())
    inputs = read_json(folder / "sweep" / "model.json")["lineage"]["inputs"]
    assert [i["weight"] for i in inputs] == [1 - sweep["best"], sweep["best"]]
    assert (folder / "sweep" / "sweep.png").is_file() and "best at alpha" in (folder / "sweep" / "sweep.md").read_text()


@pytest.mark.slow
def test_models_of_no_common_start_are_averaged_only_when_told(folder, run_embed):
    done = run_embed(folder, "average", "one", "stranger", "--output=wild")
    assert done.returncode == 65
    assert "no ancestor in common" in done.stderr and "--unrelated" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (folder / "wild").exists()
    assert run_embed(folder, "average", "one", "stranger", "--output=wild", "--unrelated").returncode == 0
    assert run_embed(folder, "average", "base", "one", "two", "--output=family").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--method=greedy"], "--method=greedy chooses weights by scores; give a --suite"),
        (["--method=learned", "--suite=suite.json", "--trials=2"], "--trials=2: the 2 inputs alone take 2"),
        (["--tasks=similar"], "--tasks names tasks of a suite; give the --suite"),
        (["--alpha=0.5"], "--alpha goes with --method=interpolate"),
        (["--method=interpolate", "--alpha=0,1"], "a sweep needs several alphas and a suite"),
        (["--method=weighted", "--suite=suite.json", "--weights=1"], "needs --weights with 2 values"),
    ],
)
def test_options_that_do_not_go_together(trained, tmp_path, run_embed, given, message):
    for name in ("one", "two"):
        shutil.copytree(trained / "run", tmp_path / name)
    (tmp_path / "suite.json").write_text(json.dumps({"name": "small", "tasks": TASKS}))
    done = run_embed(tmp_path, "average", "one", "two", "--output=none", *given)
    assert done.returncode == 64
    assert message in done.stderr and not (tmp_path / "none").exists()
