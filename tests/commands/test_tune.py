"""`embed tune` as a user runs it: what is trained, what is written, that training takes it; and what cannot be searched."""

import json
import re
import shutil
import sys

import pytest
from searching import Lines

from embed.commands.main import main
from embed.documents import read_json
from embed.workflows import command_lines

SEARCHED = """
EVALUATE_EVERY = 2
TRAIN_STEPS = 8
CHECKPOINT_EVERY = 100
WARMUP_STEPS = 0
recipe.Recipe.suite = 'suite.json'
recipe.Recipe.best_metric = 'mean of the types'
recipe.Recipe.num_negatives = 1
"""


@pytest.fixture(scope="module")
def folder(prepared, tmp_path_factory, write_suite):
    """A folder with recipes of two tasks that have a suite of two types, and another suite to report on."""
    folder = tmp_path_factory.mktemp("tune") / "work"
    shutil.copytree(prepared, folder)
    rows = [json.loads(x) for x in (folder / "second.jsonl").read_text().splitlines()]
    (folder / "test").mkdir()
    write_suite(folder, rows[:25])
    write_suite(folder / "test", rows[25:])
    names = [line.partition(" = ")[0] for line in SEARCHED.splitlines() if line]
    kept = [x for x in (folder / "tiny.gin").read_text().splitlines() if x.partition(" = ")[0] not in names]
    (folder / "searched.gin").write_text("\n".join(kept) + SEARCHED)
    lines = [x for x in SEARCHED.splitlines() if "best_metric" not in x]
    (folder / "open.gin").write_text("\n".join([*kept, *lines]) + "\n")
    return folder


@pytest.fixture
def lines(monkeypatch, folder) -> Lines:
    """The lines that a search runs, which only seem to; the test stands in the folder."""
    monkeypatch.chdir(folder)
    lines = Lines()
    monkeypatch.setattr(command_lines, "_call", lines)
    return lines


def tune(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["tune", *arguments])
    return ended.value.code


BAYESIAN = ["--search=bayesian", "--trials=12", "--dirichlet=4", "--test_suite=test/suite.json"]


@pytest.mark.slow
def test_a_bayesian_search_leaves_mixtures_their_soup_and_both_scores(folder, lines, tmp_path, capsys):
    pytest.importorskip("bayes_opt")
    given = ["--gin_file=open.gin", *BAYESIAN, f"--output={tmp_path / 'out'}"]
    assert tune(*given) == 0
    out = capsys.readouterr().out
    assert (
        "tune: 16 runs: 2 of a task alone, 3 of a grid, 4 of random mixtures (Dirichlet), 7 of proposed mixtures\n"
        in out
    )
    assert "tune: chosen by 'mean of the types', suite suite.json (retrieval, sts)\n" in out
    assert "tune: reported on test/suite.json, which is scored once, in the end\n" in out
    assert [lines.count(command) for command in ("train", "average", "evaluate")] == [16, 1, 2]
    names = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    wanted = {"job.json", "alone", "mixtures", "final", "search.md", "search.json"}
    assert names - {"search.png", "rates.png"} == {*wanted, *(f"mixture-{n}.gin" for n in (1, 2, 3))}
    outcome = read_json(tmp_path / "out" / "search.json")
    best = max(outcome["trials"], key=lambda trial: trial["score"])
    assert outcome["chosen"][0]["trial"] == best["number"] > outcome["seeds"] == 7
    assert best["score"] > max(t["score"] for t in outcome["trials"][:7])
    assert re.search(r"Over the best seed, points of mean of the types on test/suite.json: mixture-1 \+\d", out)
    assert outcome["test"]["soup"]["retrieval"] == pytest.approx(outcome["dev"]["soup"]["retrieval"] - 0.05)
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.*")}
    assert tune(*given) == 0 and len(lines.ran) == 19  # nothing is run again
    assert "tune: going on; 16 of 16 runs are finished\n" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (tmp_path / "out").glob("*.*")} == before
    capsys.readouterr()
    for change, message in (("--seed=1", "another seed (0, now 1)"), ("--mixtures=2", "another mixtures (3, now 2)")):
        assert tune(*given, change) == 65 and message in capsys.readouterr().err
    assert tune("--gin_file=open.gin", f"--output={tmp_path / 'out'}", "--gin.recipe.Recipe.best_metric=sts") == 65
    assert "another given, search" in capsys.readouterr().err


@pytest.mark.slow
def test_the_rates_that_are_found_go_after_the_recipe(folder, lines, tmp_path, run_embed):
    pytest.importorskip("bayes_opt")
    given = ["--start=recipe", "--trials=4", "--dirichlet=1", "--mixtures=1"]
    assert tune("--gin_file=searched.gin", "--search=bayesian", *given, f"--output={tmp_path / 'out'}") == 0
    assert [lines.count(command) for command in ("train", "average", "evaluate")] == [4, 0, 1]
    outcome = read_json(tmp_path / "out" / "search.json")
    assert outcome["trials"][0]["kind"] == "recipe"
    assert outcome["trials"][0]["rates"] == pytest.approx({"first": 2 / 3, "second": 1 / 3}, abs=1e-6)
    assert outcome["test"] == {} and not outcome["soup"]
    (folder / "both.gin").write_text(
        "from __gin__ import dynamic_registration\n"
        f"include 'searched.gin'\ninclude '{tmp_path / 'out' / 'mixture-1.gin'}'\n"
    )
    again = ["--gin_file=both.gin", "--search=bayesian", *given, f"--output={tmp_path / 'again'}"]
    assert tune(*again) == 0
    assert read_json(tmp_path / "again" / "search.json")["trials"][0]["rates"] == outcome["chosen"][0]["rates"]


def test_a_grid_search_leaves_a_table_and_the_best_rates(folder, lines, tmp_path, capsys):
    out = tmp_path / "out"
    assert tune("--gin_file=searched.gin", f"--output={out}", "--factors=2") == 0
    assert lines.count("train") == len(lines.ran) == 5
    table = (out / "rates.md").read_text()
    assert re.search(r"\| first +\| +300 \|.*\| +0.750 \|", table), table
    printed = capsys.readouterr().out
    assert "rates.md, rates.gin; best mean of the types 59.75 with first 0.750, second 0.250" in printed
    assert "tasks.Mixture.rates = {'first': 0.75, 'second': 0.25}" in (out / "rates.gin").read_text()


def test_a_search_whose_trials_all_fail_names_the_first_error_and_its_log(lines, tmp_path, capsys):
    pytest.importorskip("bayes_opt")
    lines.fails = lambda folder: 70
    given = ["--gin_file=searched.gin", "--search=bayesian", "--start=recipe", "--trials=4", "--dirichlet=2"]
    for _ in range(2):
        assert tune(*given, f"--output={tmp_path / 'out'}") == 65
        log = tmp_path / "out" / "mixtures" / "1" / "log.txt"
        assert capsys.readouterr().err == (
            "embed: all 3 mixtures that the search begins with failed; the first ended with 70: embed: it went wrong (all of it: "
            f"{log}); correct that and remove {tmp_path / 'out'}\n"
        )
    assert lines.count("train") == 3


def test_a_task_that_cannot_be_trained_alone_ends_the_search(lines, tmp_path, capsys):
    lines.fails = lambda folder: 70
    assert tune("--gin_file=searched.gin", f"--output={tmp_path / 'out'}") == 65
    assert re.match(r"embed: tune: first alone ended with 70: embed: it went wrong", capsys.readouterr().err)


@pytest.mark.slow
@pytest.mark.parametrize(("code", "ends_with"), [(74, 65), (75, 75), (-9, 65)])
def test_what_may_go_well_another_time_ends_the_search_and_is_tried_again(lines, tmp_path, capsys, code, ends_with):
    pytest.importorskip("bayes_opt")
    given = ["--gin_file=searched.gin", "--search=bayesian", "--start=recipe", "--trials=4", "--dirichlet=2"]
    lines.fails = lambda folder: code if folder == "2" else 0
    assert tune(*given, f"--output={tmp_path / 'out'}") == ends_with
    lines.fails = lambda folder: 0
    assert tune(*given, f"--output={tmp_path / 'out'}") == 0
    assert "failed" not in (tmp_path / "out" / "search.md").read_text()


def test_a_missing_package_is_told_before_anything_is_trained(lines, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "bayes_opt", None)
    assert tune("--gin_file=searched.gin", "--search=bayesian", f"--output={tmp_path / 'out'}") == 64
    assert capsys.readouterr().err == ("embed: --search=bayesian needs a package; run: pip install 'embed[tuning]'\n")
    assert not lines.ran and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_failed_trial_stands_in_the_table(lines, tmp_path, capsys):
    pytest.importorskip("bayes_opt")
    lines.fails = lambda folder: 70 if folder == "3" else 0
    given = ["--gin_file=searched.gin", "--search=bayesian", "--start=recipe", "--trials=5", "--dirichlet=2"]
    assert tune(*given, f"--output={tmp_path / 'out'}") == 0
    table = (tmp_path / "out" / "search.md").read_text()
    assert re.search(r"\|\s+3 \| Dirichlet, failed +\| +- \|", table), table
    assert "mixture 3 of 5 (Dirichlet) failed: it ended with 70: embed: it went wrong" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_rates_follow_from_steps_and_the_best_of_the_grid_is_written(folder, run_embed):
    given = ["tune", "--gin_file=searched.gin", "--output=rates", "--factors=2"]
    done = run_embed(folder, *given)
    assert done.returncode == 0, done.stderr
    best = {
        name: read_json(folder / "rates" / "alone" / str(i) / "run" / "best.json")
        for i, name in enumerate(("first", "second"), 1)
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


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_search_of_twelve_trials_killed_twice_repeats_none(folder, run_embed):
    pytest.importorskip("bayes_opt")
    given = ["tune", "--gin_file=open.gin", *BAYESIAN, "--start=recipe", "--output=search"]
    for point in ("tune.after_trial_3", "tune.before_trial_8"):
        killed = run_embed(folder, *given, EMBED_FAIL_AT=point)
        assert killed.returncode == -9, killed.stderr
    inside = run_embed(folder, *given, EMBED_FAIL_AT="train.after_step_5")  # of the run, which ends the search
    assert inside.returncode == 65 and "ended with -9" in inside.stderr
    done = run_embed(folder, *given)
    assert done.returncode == 0, done.stderr
    logs = [(folder / "search" / "mixtures" / str(n) / "log.txt").read_text() for n in range(1, 13)]
    assert [log.count("starting at step 0") for log in logs] == [1] * 12
    assert [log.count("resuming at step 4") for log in logs] == [0] * 7 + [1] + [0] * 4
    outcome = read_json(folder / "search" / "search.json")
    scores = [trial["score"] for trial in outcome["trials"]]
    assert len(scores) == 12 and max(scores) >= max(scores[: outcome["seeds"]])
    assert set(outcome["test"]) >= {"soup", "mixture-1"} and outcome["test"]["soup"]["mean of the types"] > 0
    bundle = read_json(folder / "search" / "final" / "soup" / "model.json")
    assert len(bundle["lineage"]["inputs"]) == 3, bundle["lineage"]


OF_RECIPE = ["--gin_file=searched.gin", "--search=bayesian", "--start=recipe"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (["--gin_file=tiny.gin"], 78, "Recipe.best_metric is not bound"),
        (["--gin_file=searched.gin", "--gin.tasks.Mixture.only=('first',)"], 64, "one task, 'first'"),
        (["--gin_file=searched.gin", "--gin.tasks.Mixture.only=('frst',)"], 78, "no task 'frst'; did you mean 'first'"),
        (["--gin_file=searched.gin", "--factors=a"], 64, "--factors=a: not numbers"),
        (["--gin_file=searched.gin", "--factors=0"], 64, "all above 0"),
        (["--gin_file=searched.gin", "--search=gird"], 64, "--search=gird; did you mean 'grid'"),
        (["--gin_file=searched.gin", "--trials=9"], 64, "--trials has an effect with --search=bayesian only"),
        ([*OF_RECIPE, "--start=here"], 64, "--start=here; known: recipe, steps"),
        ([*OF_RECIPE, "--whole"], 64, "--whole has no effect with --start=recipe"),
        ([*OF_RECIPE, "--trials=11"], 64, "begins with 11 mixtures, and none is left to propose; give more than 11"),
        ([*OF_RECIPE, "--gin.tasks.Mixture.rates=proportional"], 78, "--start=recipe begins with rates that are given"),
        ([*OF_RECIPE, "--test_suite=suite.json"], 64, "holds what Recipe.suite does, which mixtures are chosen by"),
        ([*OF_RECIPE, "--test_suite=nowhere.json"], 65, "nowhere.json: no such file"),
        ([*OF_RECIPE, "--gin.recipe.Recipe.best_metric=retrival"], 78, "'retrival'; did you mean 'retrieval'"),
        (
            ["--gin_file=tiny.gin", "--search=bayesian"],
            78,
            "Recipe.suite is not bound: mixtures are chosen by the types",
        ),
    ],
)
def test_what_cannot_be_searched_is_told_in_one_line(folder, run_embed, tmp_path, given, code, message):
    done = run_embed(folder, "tune", f"--output={tmp_path / 'out'}", *given)
    assert done.returncode == code, done.stderr
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
