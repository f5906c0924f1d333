"""Results that are read back: every value is checked, and an error names its path inside the file."""

import copy
import json
import math

import pytest

from embed import digests
from embed.errors import DataError
from embed.evaluation import html, report, stored


def write(path, content):
    path.write_text(json.dumps(digests.sealed(content)))
    return path


def refused(path, *parts):
    with pytest.raises(DataError) as caught:
        stored.read_results(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and len(message) < 500
    for part in parts:
        assert part in message


def test_results_are_read_as_they_are(results, tmp_path):
    assert stored.read_results(write(tmp_path / "r.json", results)) == digests.sealed(results)


def test_further_facts_of_a_model_and_of_the_environment_are_kept(results, tmp_path):
    results["environment"]["XLA_FLAGS"] = ""
    results["models"]["small"]["further"] = 3
    assert stored.read_results(write(tmp_path / "r.json", results)) == digests.sealed(results)


def test_null_is_not_a_number(results, tmp_path):
    small = results["models"]["small"]
    small["results"]["pairs"]["128"]["cosine_spearman"] = None
    small["means"]["128"]["sts"] = None
    small["intervals"]["pairs"]["128"] = [None, None]
    found = stored.read_results(write(tmp_path / "r.json", results))
    assert math.isnan(found["models"]["small"]["results"]["pairs"]["128"]["cosine_spearman"])
    assert "| pairs | Spearman | - | - | - |" in " ".join(report.table(found).split())
    assert "pairs" in html.page(found, {})


CHANGES = [
    (("suite",), 3, "suite is 3, expected a text"),
    (("suite",), "", "suite is empty"),
    (("command",), "embed", "command is 'embed', expected a list"),
    (("command",), [3], "command[0] is 3"),
    (("environment",), None, "environment is None, expected an object"),
    (("environment", "packages", "jax"), 1, "environment.packages.jax"),
    (("environment", "devices", "count"), -1, "environment.devices.count is -1"),
    (("tasks",), [], "tasks is [], expected an object"),
    (("tasks", "foxes"), "x", "tasks.foxes is 'x', expected an object"),
    (("tasks", "foxes", "main"), None, "tasks.foxes.main"),
    (("tasks", "foxes", "languages"), "de", "tasks.foxes.languages"),
    (("tasks", "foxes", "more"), 1, "tasks.foxes.more is not a field"),
    (("models",), {"": {}}, "a name in models is empty"),
    (("models", "small"), 3, "models.small is 3"),
    (("models", "small", "results"), [], "models.small.results"),
    (("models", "small", "results", "foxes"), {}, "with an entry"),
    (("models", "small", "results", "foxes", "128"), 0.5, "models.small.results.foxes.128 is 0.5"),
    (("models", "small", "results", "foxes", "128", "ndcg_at_10"), "0.5", "expected a finite number or null"),
    (("models", "small", "results", "foxes", "128", "ndcg_at_10"), True, "expected a finite number or null"),
    (("models", "small", "results", "foxes", "128", "ndcg_at_10"), [0.5], "expected a finite number or null"),
    (("models", "small", "results", "foxes", "128", "ndcg_at_10"), 10**400, "expected a finite number or null"),
    (("models", "small", "results", "foxes", "128"), {"mrr_at_10": 1}, "lacks the main score 'ndcg_at_10'"),
    (("models", "small", "results", "birds"), {"128": {"a": 1}}, "of a task that 'tasks' does not have"),
    (("models", "small", "intervals", "foxes", "128"), [0.1], "expected a list of 2"),
    (("models", "small", "means"), {}, "means lacks the view"),
    (("models", "small", "means", "128"), {"sts": 1}, "lacks the 'mean of the types'"),
    (("models", "small", "means", "9"), {"mean of the types": 1}, "views lacks the view '9'"),
    (("models", "small", "views"), "128", "models.small.views"),
    (("models", "small", "views"), [{"name": "128"}], "models.small.views[0].dim is missing"),
    (("models", "small", "views"), [{"name": "7", "dim": 7, "precision": "float32", "bytes": 28}], "lacks the view"),
    (("models", "small", "max_length"), "long", "models.small.max_length"),
    (("models", "small", "texts", "all"), 1.5, "models.small.texts.all"),
    (("models", "small", "prompts", "foxes"), ["q"], "models.small.prompts.foxes"),
    (("differences",), {"against": "small"}, "differences.rows is missing"),
    (("models", "small", "further"), {"a": 1}, "models.small.further is {'a': 1}, expected a text or a number"),
    (("environment", "further"), [1], "environment.further is [1], expected a text or a number"),
    (("remarks",), "none", "remarks is 'none'"),
    (("surplus",), 1, "surplus is not a field"),
]  # fmt: skip


@pytest.mark.parametrize("path, value, part", CHANGES)
def test_a_senseless_value_is_refused_with_its_path(results, tmp_path, path, value, part):
    content = copy.deepcopy(results)
    inside = content
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = value
    refused(write(tmp_path / "r.json", content), part, "restore the file, or run the evaluation again")


@pytest.mark.parametrize("field", ["suite_digest", "command", "environment"])
def test_a_missing_field_is_named(results, tmp_path, field):
    del results[field]
    refused(write(tmp_path / "r.json", results), f"{field} is missing")


def test_a_lone_surrogate_in_a_name_is_refused(results, tmp_path):
    results["models"]["\ud800"] = results["models"].pop("bm25")
    refused(write(tmp_path / "r.json", results), "a name in models holds a lone surrogate")


def test_nesting_without_end_is_refused(results, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(results)[:-1] + ', "remarks": ' + "[" * 100_000 + "]" * 100_000 + "}")
    refused(path)


def every_path(value, path=()):
    """Yields the path of everything in a JSON value."""
    if path:
        yield path
    for key, inside in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from every_path(inside, (*path, key))


@pytest.mark.slow
def test_every_value_replaced_by_any_other_is_refused_or_gives_tables(results, tmp_path):
    tried = 0
    for path in list(every_path(results)):
        inside = results
        for name in path[:-1]:
            inside = inside[name]
        before = inside[path[-1]]
        for value in (None, "x", -1, 2.5, True, [], {}, [[1]], {"a": {"b": 1}}, 1e308):
            inside[path[-1]] = value
            written = write(tmp_path / "r.json", results)
            inside[path[-1]] = before
            tried += 1
            try:
                found = stored.read_results(written)
            except DataError as e:
                assert "\n" not in str(e)
                continue
            report.table(found), report.loss_table(found), html.page(found, {})
    assert tried > 1500
