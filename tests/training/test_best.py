"""The best step: by which side of a metric, never by a score that is no number, and forgotten with what it was judged by."""

import math

import pytest

from embed import bundles, files
from embed.errors import ConfigError
from embed.metrics import higher_is_better
from embed.training.best import Best

METRICS = {
    "mean of the types": True,
    "sts/spearman": True,
    "validation/accuracy": True,
    "regression/kendalltau": True,
    "validation/loss": False,
    "validation/loss@32": False,
    "regression/rmse": False,
    "regression/mae": False,
    "scenes/depth_rmse": False,
    "scenes/normals_degrees": False,
}


@pytest.mark.parametrize("metric", METRICS)
def test_an_error_is_best_when_it_is_lowest(tmp_path, metric):
    assert higher_is_better(metric) is METRICS[metric]
    one, lines = Best(tmp_path, metric), []
    best = None
    for step, score in ((2, 0.5), (4, 0.75), (6, 0.25)):
        best = one.after(best, {metric: score, "other": 9.0}, step, lines.append)
    assert (best["step"], best["score"]) == ((4, 0.75) if METRICS[metric] else (6, 0.25)) and not lines


@pytest.mark.parametrize("metric", ["a/ndcg", "validation/loss"])
@pytest.mark.parametrize("scores", [(0.5, math.nan, 0.5), (math.nan, 0.5, math.inf), (0.5, -math.inf, math.nan)])
def test_what_is_no_number_is_never_the_best(tmp_path, metric, scores):
    one, lines, best = Best(tmp_path, metric), [], None
    for step, score in enumerate(scores, 1):
        best = one.after(best, {metric: score}, step, lines.append)
    assert best["score"] == 0.5
    assert len(lines) == sum(not math.isfinite(x) for x in scores) and "cannot be the best one" in lines[0]
    one.write(best)
    assert bundles.read_best(tmp_path) == best


def test_a_metric_that_is_not_scored_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="Recipe.best_metric = 'a/ndgc': is not scored; did you mean 'a/ndcg'"):
        Best(tmp_path, "a/ndgc").after(None, {"a/ndcg": 1.0}, 2, print)
    assert Best(tmp_path, None).after(None, {"a/ndcg": 1.0}, 2, print) is None


def scored(folder, *steps, best=None, **more):
    for step in steps:
        (folder / "evaluation" / str(step)).mkdir(parents=True)
        files.write_json(folder / "evaluation" / str(step) / "scores.json", {})
        (folder / "checkpoints" / str(step)).mkdir(parents=True)
    record = {"step": best, "score": 0.5, "metric": "m", "scored_on": "d", **more}
    files.write_json(folder / bundles.BEST, record)
    return record


def test_what_was_best_is_kept_by_a_run_that_goes_on_as_it_was(tmp_path):
    record, lines = scored(tmp_path, 2, 4, 6, best=4), []
    assert Best(tmp_path, "m", "d").read(6, lines.append) == record and not lines
    assert Best(tmp_path, "m", "d").evaluations_since(record, 6) == 1
    files.write_json(
        tmp_path / bundles.BEST, {n: record[n] for n in ("step", "score", "metric")}
    )  # of an older version
    assert Best(tmp_path, "m", "d").read(6, lines.append)["step"] == 4


FORGOTTEN = {
    "by another metric": (("other", "d"), 6, "the run is judged by another metric now"),
    "by none": ((None, "d"), 6, "the run is not judged any more"),
    "on other tasks": (("m", "e"), 6, "other tasks are scored now"),
    "fallen back": (("m", "d"), 2, "its checkpoint is damaged or gone"),
}


@pytest.mark.parametrize("case", FORGOTTEN)
def test_what_was_best_is_forgotten_with_what_it_was_judged_by(tmp_path, case):
    (metric, scored_on), first, reason = FORGOTTEN[case]
    lines = []
    scored(tmp_path, 2, 4, 6, best=4)
    assert Best(tmp_path, metric, scored_on).read(first, lines.append) is None
    assert lines == [f"note       the best step so far, 4 by m, is forgotten: {reason}"]
    assert not (tmp_path / bundles.BEST).exists()
    left = sorted(int(p.name) for p in (tmp_path / "evaluation").iterdir())
    assert left == [step for step in (2, 4, 6) if step <= first]


def test_a_best_step_whose_checkpoint_is_gone_is_forgotten(tmp_path):
    scored(tmp_path, 2, 4, best=4)
    (tmp_path / "checkpoints" / "4").rmdir()
    assert Best(tmp_path, "m", "d").read(4, lambda line: None) is None
