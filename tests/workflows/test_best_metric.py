"""What a run is judged by is something that it scores."""

import types

import pytest

from embed.errors import ConfigError
from embed.workflows import best_metric

TASKS = [types.SimpleNamespace(name="sts", main="spearman"), types.SimpleNamespace(name="reg", main="kendalltau")]
SUITE = types.SimpleNamespace(tasks=TASKS, groups={"sts": "sts", "reg": "regression"})


@pytest.mark.parametrize("name", ["sts/spearman", "reg/rmse", "regression", "mean of the types", "mean of the tasks"])
def test_scores_of_the_suite(name):
    best_metric.check(name, SUITE, False)
    with pytest.raises(ConfigError, match=f"Recipe.best_metric = '{name}'"):
        best_metric.check(name, None, True)


@pytest.mark.parametrize("name", ["validation/loss", "validation/loss@64", "validation/accuracy"])
def test_values_of_held_out_examples_with_a_suite_and_without(name):
    for suite in (SUITE, None):
        best_metric.check(name, suite, True)
        with pytest.raises(ConfigError, match=f"Recipe.best_metric = '{name}'"):
            best_metric.check(name, suite, False)


@pytest.mark.parametrize("name", ["validation/los", "validation/distillation", "stz/spearman", "mean of the type"])
def test_what_is_not_scored_or_has_no_side_that_is_better(name):
    with pytest.raises(ConfigError, match=f"Recipe.best_metric = '{name}'"):
        best_metric.check(name, SUITE, True)
    with pytest.raises(ConfigError, match="did you mean 'validation/loss'"):
        best_metric.check("validation/los", SUITE, True)
