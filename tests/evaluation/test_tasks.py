"""What every task has, and the mean of scores, of which there may be none."""

import dataclasses
import inspect
import math

import numpy as np
import pytest

from embed.evaluation import readers, tasks


@pytest.mark.parametrize("values, mean", [([0.25, 0.5, 0.75], 0.5), ([1], 1.0), ([0.1] * 10, 0.1)])
def test_the_mean_is_a_plain_number(values, mean):
    found = tasks.mean(np.array(values))
    assert type(found) is float and found == pytest.approx(mean, rel=1e-12)


def test_the_mean_of_nothing_is_no_number_and_no_warning():
    assert math.isnan(tasks.mean(np.zeros(0))) and math.isnan(tasks.mean([]))


def test_a_score_that_is_not_defined_makes_the_mean_so():
    assert math.isnan(tasks.mean(np.array([1.0, np.nan])))


@pytest.mark.parametrize("kind", readers.TYPES)
def test_every_type_of_task_is_what_the_runner_knows_of_one(kind):
    own = readers.TYPES[kind][0]
    fields = {field.name: field for field in dataclasses.fields(own)}
    assert own.type == kind and issubclass(own, tasks.Base)
    assert {"name", "prompt", "main", "languages", "remarks"} <= fields.keys()
    assert fields["remarks"].kw_only and fields["remarks"].default == ()
    for method in ("parts", "score"):
        ours, wanted = (inspect.signature(getattr(c, method)).parameters for c in (own, tasks.Task))
        assert list(ours) == list(wanted)
