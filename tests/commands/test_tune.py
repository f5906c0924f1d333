"""`embed tune` as a user runs it: tasks alone, the grid, the table and a gin file that training takes."""

import json
import re
import shutil

import pytest

from embed.documents import read_json

SEARCHED = """
EVALUATE_EVERY = 2
TRAIN_STEPS = 8
CHECKPOINT_EVERY = 100
WARMUP_STEPS = 0
recipe.Recipe.suite = 'suite.json'
recipe.Recipe.best_metric = 'dev/ndcg_at_10'
recipe.Recipe.num_negatives = 1
"""


@pytest.fixture(scope="module")
def folder(prepared, tmp_path_factory, write_retrieval):
    """A folder with a recipe of two tasks that has a suite."""
    folder = tmp_path_factory.mktemp("tune") / "work"
    shutil.copytree(prepared, folder)
    rows = [json.loads(x) for x in (folder / "second.jsonl").read_text().splitlines()]
    write_retrieval(folder / "dev", rows)
    task = {"name": "dev", "type": "retrieval", "path": "dev"}
    (folder / "suite.json").write_text(json.dumps({"name": "small", "tasks": [task]}))
    names = [line.partition(" = ")[0] for line in SEARCHED.splitlines() if line]
    kept = [x for x in (folder / "tiny.gin").read_text().splitlines() if x.partition(" = ")[0] not in names]
    (folder / "searched.gin").write_text("\n".join(kept) + SEARCHED)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_rates_follow_from_steps_and_the_best_of_the_grid_is_written(folder, run_embed):
    given = ["tune", "--gin_file=searched.gin", "--output=rates", "--factors=2"]
    done = run_embed(folder, *given)
    assert done.returncode == 0, done.stderr
    best = {
        name: read_json(folder / "rates" / "alone" / str(i) / "run" / "best.json")
        for i, name in enumerate(("first", "second"))
    }
    total = sum(own["step"] for own in best.values())
    table = (folder / "rates" / "rates.md").read_text()
    for name, own in best.items():
        assert re.search(rf"\| {name} +\| +{own['step']} \|.*\| +{own['step'] / total:.3f} \|", table), table
    scores = [read_json(p)["score"] for p in sorted((folder / "rates" / "mixtures").glob("*/run/best.json"))]
    assert len(scores) == 3 and f"{100 * max(scores):.2f}" in done.stdout
    again = run_embed(folder, *given)
    assert again.returncode == 0 and "embed train" not in again.stdout
    (folder / "found.gin").write_text(
        "# Both.\nfrom __gin__ import dynamic_registration\ninclude 'searched.gin'\ninclude 'rates/rates.gin'\n"
    )
    trained = run_embed(folder, "train", "--gin_file=found.gin", "--run_dir=out", "--gin.TRAIN_STEPS=1")
    assert trained.returncode == 0, trained.stderr
    other = run_embed(folder, *given[:-1], "--factors=3")
    assert other.returncode == 65 and "was begun with another factors" in other.stderr


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (["--gin_file=tiny.gin"], 78, "Recipe.best_metric is not bound"),
        (["--gin_file=searched.gin", "--gin.tasks.Mixture.only=('first',)"], 64, "one task, 'first'"),
        (["--gin_file=searched.gin", "--gin.tasks.Mixture.only=('frst',)"], 78, "no task 'frst'; did you mean 'first'"),
        (["--gin_file=searched.gin", "--factors=a"], 64, "--factors=a: not numbers"),
        (["--gin_file=searched.gin", "--factors=0"], 64, "all above 0"),
    ],
)
def test_what_cannot_be_searched_is_told_in_one_line(folder, run_embed, tmp_path, given, code, message):
    done = run_embed(folder, "tune", f"--output={tmp_path / 'out'}", *given)
    assert done.returncode == code, done.stderr
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
