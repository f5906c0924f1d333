"""`embed reproduce` as a user runs it: arms and seeds run once, judged, resumed; what is wrong with a claim is told."""

import dataclasses
import json
import re
import shutil

import pytest

from embed.documents import read_json
from embed.errors import DataError
from embed.workflows import reproduce
from embed.workflows.claims import Claim, Comparison

CLAIM = """# Some steps are better than none.
from __gin__ import dynamic_registration

from embed.workflows import claims

claims.Claim.title = 'training helps'
claims.Claim.paper = 'folklore'
claims.Claim.figure = 'much'
claims.Claim.suite = '$data/suite.json'
claims.Claim.dims = (256, 64)
claims.Claim.prepared = {
    'start': ['train --gin_file=short.gin --run_dir=$run/run --gin.TRAIN_STEPS=1 --gin.LEARNING_RATE=1e-6'],
}
claims.Claim.arms = {
    'none': ['average $start/run --output=$model'],
    'some': [
        'train --gin_file=short.gin --run_dir=$run/run --gin.TRAIN_STEPS=8 --gin.LEARNING_RATE=1e-2 --gin.SEED=$seed',
        'average $run/run --output=$model',
    ],
}
claims.Claim.comparisons = [@full/claims.Comparison(), @small/claims.Comparison()]
full/claims.Comparison.better = 'some'
full/claims.Comparison.than = 'none'
full/claims.Comparison.metric = 'pairs/ndcg_at_10'
small/claims.Comparison.better = 'some'
small/claims.Comparison.than = 'none'
small/claims.Comparison.view = '64'
small/claims.Comparison.least = 99.0
"""


@pytest.fixture(scope="module")
def folder(prepared, tmp_path_factory, write_retrieval):
    """A folder with a claim and the data that it refers to."""
    folder = tmp_path_factory.mktemp("reproduce") / "work"
    shutil.copytree(prepared, folder)
    rows = [json.loads(x) for x in (folder / "second.jsonl").read_text().splitlines()]
    write_retrieval(folder / "given" / "dev", rows)
    task = {"name": "pairs", "type": "retrieval", "path": "dev"}
    (folder / "given" / "suite.json").write_text(json.dumps({"name": "small", "tasks": [task]}))
    (folder / "short.gin").write_text((folder / "tiny.gin").read_text().replace("WARMUP_STEPS = 2", "WARMUP_STEPS = 0"))
    (folder / "helps.gin").write_text(CLAIM)
    return folder


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_claim_is_run_judged_and_not_run_again(folder, run_embed):
    # Killed in the second arm; then run to its end; then again, when nothing is left to do; then where only the record is.
    given = ["reproduce", "helps.gin", "--data=given", "--record=measured"]
    killed = run_embed(folder, *given, "--output=out", EMBED_FAIL_AT="train.after_step_8")
    assert killed.returncode == 65 and "ended with -9" in killed.stderr and "log.txt" in killed.stderr
    done = run_embed(folder, *given, "--output=out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("embed train") == 3 and "preparing" not in done.stdout
    record, table = (folder / "measured" / name for name in ("helps.json", "claims.md"))
    arms = read_json(record)["arms"]
    scores = {arm: [own["seeds"][s]["scores"] for s in "012"] for arm, own in arms.items()}
    at_full = {arm: [views["256"]["pairs/ndcg_at_10"] for views in own] for arm, own in scores.items()}
    assert at_full["none"][0] == at_full["none"][1]  # nothing that depends on the seed
    assert len(set(at_full["some"])) > 1
    differences = [100 * (b - t) for b, t in zip(at_full["some"], at_full["none"])]
    told = table.read_text()
    assert "some > none: pairs/ndcg_at_10" in told and "folklore" in told
    assert f"{sum(differences) / 3:+.2f}" in told
    assert "smaller than claimed" in told or "within noise" in told or "reversed" in told  # no 99 points
    before = record.read_bytes(), told
    for output in ("out", "elsewhere"):
        again = run_embed(folder, *given, f"--output={output}")
        assert again.returncode == 0 and "measured before" in again.stdout and ": embed " not in again.stdout
        assert (record.read_bytes(), table.read_text()) == before


@pytest.mark.slow
def test_claims_are_listed_with_what_they_need(folder, run_embed):
    done = run_embed(folder, "reproduce", "--list")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\| mined_negatives +\| --data --source +\| 4 x 3 ", done.stdout)
    assert re.search(r"\| cross_lingual .*\| not testable ", done.stdout)


@pytest.mark.parametrize(
    ("change", "given", "code", "message"),
    [
        (("", ""), ["--output=x"], 64, "claim bad needs --data"),
        (("'some': [", "'sme': ["), [], 78, "no arm 'some'; did you mean 'sme'"),
        (("$seed", "$sed"), [], 78, r"\$sed in .*did you mean 'seed'"),
        (("'start':", "'run':"), [], 78, "prepared 'run': a name in small letters"),
        (("$start/run", "$strt/run"), [], 78, "did you mean 'start'"),
        pytest.param(
            ("'pairs/ndcg_at_10'", "'pairs/ndcg_at_11'"),
            [],
            65,
            "nothing called 'pairs/ndcg_at_11' was scored; did you mean",
            marks=[pytest.mark.slow, pytest.mark.long],
        ),
        (("claims.Claim.dims", "claims.Claim.seeds = (0, 1)\nclaims.Claim.dims"), [], 78, "at least three"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(folder, run_embed, tmp_path, change, given, code, message):
    cheap = CLAIM.replace("TRAIN_STEPS=8", "TRAIN_STEPS=1")
    (folder / "bad.gin").write_text(cheap.replace(*change) if change[0] else cheap)
    done = run_embed(folder, "reproduce", "bad.gin", *(given or ["--data=given", f"--output={tmp_path / 'out'}"]))
    assert done.returncode == code, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_claim_that_cannot_be_tested_says_why(folder, run_embed, tmp_path):
    lines = CLAIM.splitlines()
    text = "\n".join([*lines[:8], "claims.Claim.untestable = 'needs a pod'"])
    (folder / "pod.gin").write_text(text + "\n")
    done = run_embed(folder, "reproduce", "pod.gin", f"--output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "not testable: needs a pod" in (tmp_path / "out" / "claims.md").read_text()


@pytest.mark.parametrize(
    ("kinds", "found", "verdict"),
    [
        (["better", "better"], ["reproduced", "reproduced"], "reproduced"),
        (["better", "shown"], ["reproduced", "not judged: reversed"], "reproduced"),
        (["better", "no worse"], ["reversed", "reversed"], "reversed"),
        (["better"] * 3, ["reversed", "reproduced", "reproduced"], "2 of 3 reproduced; 1 of 3 reversed"),
        (
            ["better"] * 4,
            ["reversed", "same sign, within noise", "reproduced", "smaller than claimed"],
            "1 of 4 reproduced; 1 of 4 smaller than claimed; 1 of 4 same sign, within noise; 1 of 4 reversed",
        ),
    ],
)
def test_the_verdict_of_a_claim_hides_nothing(kinds, found, verdict):
    comparisons = [Comparison("a", "b", kind=kind) for kind in kinds]
    assert reproduce._verdict(comparisons, found) == verdict


ARMS = {"one": ["average a --output=$model"], "two": ["average b --output=$model"]}
SMALL_CLAIM = Claim("t", "p", "f", ARMS, [Comparison("one", "two")])


def experiment(folder, claim, digests=None, **more):
    return reproduce.Experiment("c", claim, folder, folder / "c.json", {}, digests or {}, **more)


def results(score, **more):
    means = {view: {"mean of the types": x} for view, x in {"4": score, **more}.items()}
    return {
        "models": {"model": {"means": means, "results": {}}},
        "environment": {"embed": "1", "python": "3", "packages": {"jax": "0"}, "devices": {"kind": "cpu"}},
    }


def verdict(folder, claim):
    return experiment(folder, claim).result()["verdict"]


def test_a_record_of_other_lines_does_not_count(tmp_path):
    for number, (seed, arm) in enumerate((s, a) for s in (0, 1, 2) for a in ARMS):
        assert verdict(tmp_path, SMALL_CLAIM) == f"not measured yet ({number} of 6 runs)"
        experiment(tmp_path, SMALL_CLAIM)._keep(arm, seed, results(0.5), 1.0)
    assert verdict(tmp_path, SMALL_CLAIM) == "not reproduced"
    for changed in ({"arms": {**ARMS, "two": ["average c --output=$model"]}}, {"dims": (4,)}, {"tasks": ("x",)}):
        count = 3 if "arms" in changed else 0
        changed_claim = dataclasses.replace(SMALL_CLAIM, **changed)
        assert verdict(tmp_path, changed_claim) == f"not measured yet ({count} of 6 runs)"


def test_a_claim_that_is_not_chosen_is_judged_by_its_record(tmp_path):
    """The data that is given is that of the chosen claims."""
    claim = dataclasses.replace(SMALL_CLAIM, suite="$data/suite.json")
    for seed in (0, 1, 2):
        for arm in ARMS:
            experiment(tmp_path, claim, {"data": "first"})._keep(arm, seed, results(0.5), 1.0)
    assert experiment(tmp_path, claim, {"data": "second"}).result()["verdict"] == "not measured yet (0 of 6 runs)"
    for digests in ({}, {"data": "second"}):
        assert experiment(tmp_path, claim, digests, chosen=False).result()["verdict"] == "not reproduced"
    for changed in ({"arms": {**ARMS, "two": ["average c --output=$model"]}}, {"dims": (4,)}):
        other = experiment(tmp_path, dataclasses.replace(claim, **changed), chosen=False)
        assert other.result()["verdict"].startswith("not measured yet")


def test_more_seeds_keep_what_was_measured_and_the_table_says_which_are_missing(tmp_path):
    scores = {"one": (0.52, 0.53, 0.525, 0.51, 0.52), "two": (0.50, 0.50, 0.50, 0.50, 0.50)}
    more = dataclasses.replace(SMALL_CLAIM, seeds=(0, 1, 2, 3, 4))
    for seed in (0, 1, 2):
        for arm in ARMS:
            experiment(tmp_path, SMALL_CLAIM)._keep(arm, seed, results(scores[arm][seed]), 60.0)
    assert verdict(tmp_path, SMALL_CLAIM) == "reproduced"
    assert verdict(tmp_path, more) == "reproduced; 3 of 5 seeds measured so far"
    experiment(tmp_path, more)._keep("one", 3, results(scores["one"][3]), 60.0)
    # A seed that one arm alone has does not count yet.
    assert verdict(tmp_path, more) == "reproduced; 3 of 5 seeds measured so far"
    for seed, arm in ((3, "two"), (4, "one"), (4, "two")):
        experiment(tmp_path, more)._keep(arm, seed, results(scores[arm][seed]), 60.0)
    result = experiment(tmp_path, more).result()
    assert result["verdict"] == "reproduced" and result["seeds"] == [0, 1, 2, 3, 4] and result["seconds"] == 600
    reproduce.write_table({"c": result}, tmp_path)
    table = (tmp_path / "claims.md").read_text()
    assert "| `c`   | t            | p: f               | reproduced |     5 |      10 |" in table
    assert "verdict: reproduced (5 seeds, 10 minutes)" in table
    experiment(tmp_path, more).check_record()
    changed = dataclasses.replace(more, arms={**more.arms, "one": [*more.arms["one"], "average $run --output=$model"]})
    with pytest.raises(
        DataError, match="'one' was measured with another --data, --pictures, --source or claim than these"
    ):
        experiment(tmp_path, changed).check_record()


def test_what_is_lost_from_one_view_to_another_is_compared(tmp_path):
    """The better arm loses one point where the other loses three, and is worse in both views."""
    comparison = Comparison("one", "two", from_view="4", view="2")
    claim = dataclasses.replace(SMALL_CLAIM, comparisons=[comparison])
    for seed in (0, 1, 2):
        experiment(tmp_path, claim)._keep("one", seed, results(0.50 + seed / 100, **{"2": 0.49 + seed / 100}), 1.0)
        experiment(tmp_path, claim)._keep("two", seed, results(0.60, **{"2": 0.57}), 1.0)
    result = experiment(tmp_path, claim).result()["comparisons"][0]
    assert result["better"] == pytest.approx([-0.01] * 3) and result["than"] == pytest.approx([-0.03] * 3)
    assert result["mean"] == pytest.approx(2.0) and result["verdict"] == "reproduced"
    error = dataclasses.replace(SMALL_CLAIM, comparisons=[Comparison("two", "one", view="2", is_error=True)])
    worse = experiment(tmp_path, error).result()["comparisons"][0]
    assert worse["comparison"] == "two < one: mean of the types at 2" and worse["mean"] < 0  # the lower score is better
    unknown = dataclasses.replace(SMALL_CLAIM, comparisons=[dataclasses.replace(comparison, from_view="8")])
    with pytest.raises(DataError, match="nothing called '8' was scored"):
        experiment(tmp_path, unknown).result()


def test_the_table_alone_runs_nothing(folder, run_embed, tmp_path):
    record = tmp_path / "record"
    given = ["reproduce", "helps.gin", "--table", f"--record={record}", f"--output={tmp_path / 'out'}"]
    refused = run_embed(folder, *given)
    assert refused.returncode == 64 and "claim helps needs --data" in refused.stderr
    done = run_embed(folder, *given, "--data=given")
    assert done.returncode == 0, done.stderr
    assert "not measured yet (0 of 6 runs)" in (record / "claims.md").read_text()
    assert not (tmp_path / "out").exists() and [p.name for p in record.iterdir()] == ["claims.md"]
    both = run_embed(folder, "reproduce", "--list", "--table")
    assert both.returncode == 64 and "give one of the two" in both.stderr


@pytest.mark.parametrize("given", [[], ["--all", "helps.gin"], ["nothing"]])
def test_a_claim_or_all_is_given(folder, run_embed, given):
    done = run_embed(folder, "reproduce", *given)
    assert done.returncode == 64
