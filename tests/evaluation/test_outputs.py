"""What an evaluation leaves behind: results.json and its neighbours, differences, and several results as one."""

import copy
import functools
import json
import math
import re

import numpy as np
import pytest

from embed import digests, documents, files
from embed.errors import DataError, UsageError
from embed.evaluation import bm25, bootstrap, outputs, plots, report, runner
from embed.evaluation.bootstrap import Sample
from embed.evaluation.embeddings import Embeddings
from embed.evaluation.paired_tasks import Sts, Summarization
from embed.evaluation.ranked_tasks import Retrieval
from embed.evaluation.suites import Suite
from embed.evaluation.views import View

ENVIRONMENT = {
    "embed": "1",
    "python": "3",
    "platform": "x",
    "packages": {},
    "devices": {"kind": "cpu", "count": 1, "processes": 1},
}
VIEWS = [View(12), View(4), View(12, "int8")]


def suite_of_two() -> Suite:
    ids = [f"d{j}" for j in range(30)]
    queries = [f"q{i}" for i in range(20)]
    foxes = Retrieval(
        "foxes", "query", "ndcg_at_10", ("en",), queries, [f"word{i} of many" for i in range(20)],
        ids, [f"text word{j}" for j in range(30)], [""] * 30, {q: {f"d{i}": 1.0} for i, q in enumerate(queries)},
    )  # fmt: skip
    pairs = Sts(
        "pairs", "sentence similarity", "cosine_spearman", (), [f"a {i}" for i in range(25)],
        [f"b {i}" for i in range(25)], list(np.random.default_rng(0).uniform(0, 5, 25)),
    )  # fmt: skip
    return Suite("made up", [foxes, pairs], {"foxes": "code search", "pairs": "sts"}, "abc")


def scores(suite, make_model, dim, constant, search) -> runner.Results:
    return runner.run(suite, Embeddings(make_model(dim, constant=constant), lambda p: p), VIEWS, search)


@functools.cache
def scores_of_two(*of_model) -> runner.Results:
    return scores(suite_of_two(), *of_model)


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch):
    """Intervals of 100 draws instead of 1000, for time."""
    for name in ("interval", "difference"):
        monkeypatch.setattr(bootstrap, name, functools.partial(getattr(bootstrap, name), draws=100))


@pytest.fixture
def pictures(monkeypatch):
    """Pictures that are not drawn, for time."""
    if not plots.available():
        pytest.skip("matplotlib is not installed")
    for name in ("dimensions", "sizes", "bars"):
        monkeypatch.setattr(plots, name, lambda results: b"\x89PNG")


@pytest.fixture
def undrawn(monkeypatch):
    """Results without pictures, for time."""
    monkeypatch.setattr(plots, "available", lambda: False)


@pytest.fixture
def evaluate(make_model, search):
    """A function that scores stand-ins under names, by the seed that is their dimension, and returns what is collected."""

    def evaluated(*names, suite=None, constant=False, command=("embed", "evaluate")):
        collected = outputs.Collected(suite or suite_of_two(), ENVIRONMENT, command)
        for name in names:
            of_model = make_model, 12 + len(name), constant, search
            found = copy.deepcopy(scores_of_two(*of_model)) if suite is None else scores(suite, *of_model)
            collected.add(name, {"model": f"runs/{name}", "prompts": {}}, VIEWS, found)
        return collected

    return evaluated


# collected


def test_results_hold_all_that_was_scored(evaluate):
    collected = evaluate("m", "other", command=["embed", "evaluate", "m"])
    collected.note("foxes", "something left out")
    found = collected.results()
    assert found["format"] == outputs.FORMAT and found["suite"] == "made up" and found["suite_digest"] == "abc"
    assert found["command"] == ["embed", "evaluate", "m"] and found["environment"] == ENVIRONMENT
    foxes = {"type": "retrieval", "group": "code search", "main": "ndcg_at_10", "languages": ["en"]}
    assert {**foxes, "notes": ["something left out"]}.items() <= found["tasks"]["foxes"].items()
    assert found["tasks"]["pairs"]["notes"] == [] and list(found["models"]) == ["m", "other"]
    model = found["models"]["m"]
    assert model["model"] == "runs/m" and set(model["results"]["foxes"]) == {"12", "4", "12 int8"}
    assert model["views"][2] == {"name": "12 int8", "dim": 12, "precision": "int8", "bytes": 16}
    assert set(model["means"]["4"]) == {"code search", "sts", "mean of the types", "mean of the tasks"}
    assert "differences" not in found


def test_the_interval_of_the_first_view_holds_the_main_score(evaluate):
    model = evaluate("m").results()["models"]["m"]
    for task, main in (("foxes", "ndcg_at_10"), ("pairs", "cosine_spearman")):
        assert list(model["intervals"][task]) == ["12"]
        low, high = model["intervals"][task]["12"]
        assert low < model["results"][task]["12"][main] < high


def test_samples_are_kept_for_every_view(evaluate):
    collected = evaluate("m", "other")
    names = {f"{m}/{t}/{v}" for m in ("m", "other") for t in ("foxes", "pairs") for v in ("12", "4", "12 int8")}
    assert set(collected.samples) == names
    for key, sample in collected.samples.items():
        model, task, view = key.split("/")
        main = {"foxes": "ndcg_at_10", "pairs": "cosine_spearman"}[task]
        score = collected.results()["models"][model]["results"][task][view][main]
        assert sample.of(np.arange(len(sample))) == pytest.approx(score)


def test_a_level_has_one_view_and_no_means_of_types_it_lacks(evaluate):
    pytest.importorskip("bm25s")
    collected = evaluate("m")
    foxes = suite_of_two().tasks[0]
    collected.add_level("bm25", bm25.DESCRIPTION, {"foxes": bm25.score(foxes)})
    level = collected.results()["models"]["bm25"]
    assert level["model"] == bm25.DESCRIPTION and list(level["results"]["foxes"]) == ["all"]
    assert level["means"] == {"all": {"code search": level["results"]["foxes"]["all"]["ndcg_at_10"]}}
    assert len(collected.samples["bm25/foxes/all"]) == 20


# differences


def test_differences_are_those_of_the_same_items(evaluate):
    pytest.importorskip("bm25s")
    collected = evaluate("m", "other")
    collected.add_level("bm25", "words", {"foxes": bm25.score(suite_of_two().tasks[0])})
    found = collected.results("m")["differences"]
    assert found["against"] == "m"
    assert [(r["task"], r["model"], r["view"]) for r in found["rows"]] == [
        ("foxes", "other", "12"),
        ("pairs", "other", "12"),
        ("foxes", "bm25", "all"),  # against the first view of the other
    ]
    models = collected.results()["models"]
    for row in found["rows"]:
        main = {"foxes": "ndcg_at_10", "pairs": "cosine_spearman"}[row["task"]]
        scores = (
            models[row["model"]]["results"][row["task"]][row["view"]][main],
            models["m"]["results"][row["task"]]["12"][main],
        )
        assert row["difference"] == pytest.approx(scores[0] - scores[1])
        assert row["interval"][0] <= row["difference"] <= row["interval"][1]


def test_views_of_other_names_and_other_data_have_no_difference(evaluate):
    """The same model at 4 and at 12 values is not compared as if both were one view; neither are other queries."""
    found = evaluate("m", "other").results()
    samples = evaluate("m", "other").samples
    cut = copy.deepcopy(found)
    for task in ("foxes", "pairs"):
        cut["models"]["other"]["results"][task] = {"4": cut["models"]["other"]["results"][task]["4"]}
        cut["models"]["m"]["results"][task].pop("4")
    assert outputs.with_differences(cut, samples, "m")["differences"]["rows"] == []
    found["models"]["m"]["data"] = {"foxes": "one", "pairs": "same"}
    found["models"]["other"]["data"] = {"foxes": "two", "pairs": "same"}
    rows = outputs.with_differences(found, samples, "m")["differences"]["rows"]
    assert [row["task"] for row in rows] == ["pairs"]


def test_an_unknown_model_to_compare_with_is_refused(evaluate):
    with pytest.raises(UsageError, match="--against=othr; did you mean 'other'"):
        evaluate("m", "other").results("othr")


def test_samples_of_other_items_are_refused_with_the_task(evaluate):
    collected = evaluate("m", "other")
    collected.samples["other/foxes/12"] = Sample("mean", np.zeros(3))
    with pytest.raises(DataError, match="foxes: other and m: 3 items against 20"):
        collected.results("m")


def test_models_without_samples_have_no_differences(evaluate):
    found = evaluate("m", "other").results()
    assert outputs.with_differences(found, {}, "m")["differences"]["rows"] == []


def test_a_model_that_tells_summaries_apart_is_compared_with_one_that_does_not(evaluate):
    texts = Summarization(
        "sums", "summarization", "cosine_spearman", (), [["h1"], ["h2"], ["h3"]],
        [["a", "b", "c"], ["d", "e", "f"], ["g", "h", "i"]], [[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [2.0, 3.0, 1.0]],
    )  # fmt: skip
    suite = Suite("s", [texts], {"sums": "summarization"}, "d")
    collected, flat = evaluate("m", suite=suite), evaluate("flat", suite=suite, constant=True)
    collected.samples |= flat.samples
    results = collected.results()
    results["models"] |= flat.results()["models"]
    (row,) = outputs.with_differences(results, collected.samples, "m")["differences"]["rows"]
    assert row["model"] == "flat" and math.isnan(row["difference"])


# files


def test_everything_is_written_and_named(evaluate, tmp_path, pictures):
    collected = evaluate("m", "other")
    results = collected.results("m")
    written = outputs.write(results, collected.samples, tmp_path)
    assert sorted(written) == sorted(p.name for p in tmp_path.iterdir())
    assert {"report.html", "results.json", "results.md", "samples.npz"} <= set(written)
    assert {"dimensions.png", "bytes.png", "types.png"} <= set(written)
    kept = documents.read_json(tmp_path / "results.json")
    assert kept.pop("samples_digest") == files.sha256_file(tmp_path / "samples.npz")
    assert kept.pop("digest") == digests.sealed(documents.read_json(tmp_path / "results.json"))["digest"]
    assert kept == json.loads(json.dumps(results))
    text = (tmp_path / "results.md").read_text()
    assert "Difference to m" in text and "What the views keep" in text
    assert "other" in (tmp_path / "report.html").read_text()
    kept = bootstrap.load(tmp_path / "samples.npz")
    assert list(kept) == list(collected.samples)


def test_nothing_is_drawn_without_matplotlib(evaluate, tmp_path, undrawn):
    collected = evaluate("m")
    written = outputs.write(collected.results(), collected.samples, tmp_path)
    assert written == ["report.html", "results.json", "results.md", "samples.npz"]
    assert "<img" not in (tmp_path / "report.html").read_text()


def test_a_model_that_is_constant_is_written_as_json_that_others_can_read(evaluate, tmp_path, undrawn):
    collected = evaluate("flat", constant=True)
    outputs.write(collected.results(), collected.samples, tmp_path)

    def no(name):
        raise AssertionError(f"{name} is no JSON")

    json.loads((tmp_path / "results.json").read_text(), parse_constant=no)


# several results as one


@pytest.fixture
def written(evaluate, tmp_path, undrawn):
    """A function that writes the results of some models to a folder and returns it."""

    def write(folder, *names, **options):
        collected = evaluate(*names, **options)
        (tmp_path / folder).mkdir()
        outputs.write(collected.results(), collected.samples, tmp_path / folder)
        return tmp_path / folder

    return write


def test_results_of_other_data_say_so_in_every_report(written):
    one, two = written("one", "m"), written("two", "other")
    assert "remarks" not in outputs.merge([one, two])[0]
    content = json.loads((two / "results.json").read_text())
    digests.write_sealed(two / "results.json", {**content, "suite_digest": "another"})
    found, samples, _ = outputs.merge([one, two])
    (remark,) = found["remarks"]
    assert "compare only where the tasks are the same" in remark
    both = two.parent / "both"
    both.mkdir()
    outputs.write(found, samples, both)
    assert remark in (both / "results.md").read_text() and remark in (both / "report.html").read_text()


def test_results_are_merged_with_their_samples(written):
    one, two = written("one", "m", command=["first"]), written("two", "other", "third", command=["second"])
    found, samples, _ = outputs.merge([one, two / "results.json"], "m")
    assert list(found["models"]) == ["m", "other", "third"] and list(found["tasks"]) == ["foxes", "pairs"]
    assert found["suite"] == "made up" and found["format"] == outputs.FORMAT
    assert [s["command"] for s in found["sources"]] == [["first"], ["second"]]
    assert [s["path"] for s in found["sources"]] == [str(one / "results.json"), str(two / "results.json")]
    assert set(samples) == {
        f"{m}/{t}/{v}" for m in ("m", "other", "third") for t in ("foxes", "pairs") for v in ("12", "4", "12 int8")
    }
    assert {r["model"] for r in found["differences"]["rows"]} == {"other", "third"}
    assert found["models"]["m"] == documents.read_json(one / "results.json")["models"]["m"]


def test_merged_results_are_written_as_any(written, tmp_path):
    found, samples, _ = outputs.merge([written("one", "m"), written("two", "other")])
    (tmp_path / "all").mkdir()
    outputs.write(found, samples, tmp_path / "all")
    again, kept, _ = outputs.merge([tmp_path / "all"])
    assert again["models"] == json.loads(json.dumps(found["models"])) and set(kept) == set(samples)


def test_a_name_that_two_results_have_gets_its_folder_in_front(written):
    one, two = written("one", "m"), written("two", "m", "other")
    found, samples, _ = outputs.merge([one, two], "m")
    assert list(found["models"]) == ["m", "two/m", "other"]
    assert {"m/foxes/12", "two/m/foxes/12", "other/foxes/12"} <= set(samples)
    rows = {(r["model"], r["task"]): r["difference"] for r in found["differences"]["rows"]}
    assert rows["two/m", "foxes"] == 0.0  # the same stand-in twice
    with pytest.raises(DataError, match="'two/m' is there twice; give the results folders of their own"):
        outputs.merge([one, two, two])


def test_a_name_that_begins_another_keeps_its_own_samples(written):
    folder = written("one", "m", "m/b")
    _, samples, _ = outputs.merge([folder])
    assert len(samples) == 12 and {"m/foxes/12", "m/b/foxes/12"} <= set(samples)
    clashing, samples, _ = outputs.merge([written("two", "m"), folder])
    assert list(clashing["models"]) == ["m", "one/m", "m/b"]
    assert {k.rsplit("/", 2)[0] for k in samples} == {"m", "one/m", "m/b"}


def test_results_without_samples_are_merged_without_differences(written):
    one, two = written("one", "m"), written("two", "other")
    (two / "samples.npz").unlink()
    found, samples, _ = outputs.merge([one, two], "m")
    assert found["differences"]["rows"] == [] and {k.split("/")[0] for k in samples} == {"m"}
    (remark,) = found["remarks"]
    assert str(two / "results.json") in remark and "has no samples.npz beside it" in remark


def test_samples_of_another_evaluation_are_refused(written):
    one, two = written("one", "m"), written("two", "other")
    (two / "samples.npz").write_bytes((one / "samples.npz").read_bytes())
    with pytest.raises(DataError, match=r"samples.npz: not the samples of results.json beside it; restore both"):
        outputs.merge([one, two])


def test_scores_that_are_not_defined_give_the_same_tables_again(evaluate, tmp_path, undrawn):
    collected = evaluate("flat", constant=True)
    results = collected.results()
    assert math.isnan(results["models"]["flat"]["results"]["pairs"]["12"]["cosine_spearman"])
    outputs.write(results, collected.samples, tmp_path)
    found, samples, _ = outputs.merge([tmp_path])
    assert report.table(found) == report.table(results) and report.loss_table(found) == report.loss_table(results)
    (tmp_path / "again").mkdir()
    outputs.write(found, samples, tmp_path / "again")
    assert (tmp_path / "again" / "results.md").read_text() == (tmp_path / "results.md").read_text()


@pytest.mark.slow
def test_scores_that_are_not_defined_are_drawn_and_compared(evaluate, tmp_path, monkeypatch):
    if not plots.available():
        pytest.skip("matplotlib is not installed")
    collected = evaluate("flat", "other", constant=True)
    with monkeypatch.context() as undrawn:
        undrawn.setattr(plots, "available", lambda: False)
        outputs.write(collected.results("other"), collected.samples, tmp_path)
    found, samples, _ = outputs.merge([tmp_path], "other")
    (tmp_path / "again").mkdir()
    assert "types.png" in outputs.write(found, samples, tmp_path / "again")


def test_two_results_of_one_key_are_refused(evaluate):
    collected = evaluate("m")
    twice = collected.samples["m/foxes/12"]
    with pytest.raises(UsageError, match="both called 'm/foxes/12'; give the models names without '/'"):
        collected._add_sample("m/foxes/12", twice)


def test_old_differences_are_not_kept(evaluate, tmp_path, undrawn):
    collected = evaluate("m", "other")
    outputs.write(collected.results("m"), collected.samples, tmp_path)
    assert "differences" not in outputs.merge([tmp_path])[0]
    with pytest.raises(UsageError, match="--against=x"):
        outputs.merge([tmp_path], "x")


@pytest.mark.parametrize(
    "change", [{"format": 1}, {"format": None}, {"tasks": None}, {"models": None}, {"suite": None}]
)
def test_results_of_another_format_are_refused(written, change):
    folder = written("one", "m")
    content = {k: v for k, v in {**documents.read_json(folder / "results.json"), **change}.items() if v is not None}
    digests.write_sealed(folder / "results.json", content)
    with pytest.raises(
        DataError, match="not results that `embed evaluate` of this version wrote; run it again"
    ) as caught:
        outputs.merge([folder])
    assert str(folder / "results.json") in str(caught.value)


def test_results_that_are_not_there_are_named(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        outputs.merge([tmp_path / "gone.json"])


def test_a_score_that_was_edited_is_refused(written):
    folder = written("one", "m")
    text = (folder / "results.json").read_text()
    for number in set(re.findall(r"0\.\d{4,}", text)):
        (folder / "results.json").write_text(text.replace(number, f"0.{9 - int(number[2])}{number[3:]}"))
        with pytest.raises(DataError, match="does not match its own digest"):
            outputs.merge([folder])


def test_a_task_that_is_scored_in_two_ways_is_refused(written):
    one, two = written("one", "m"), written("two", "other")
    content = documents.read_json(two / "results.json")
    content["tasks"]["foxes"]["main"] = "mrr_at_10"
    digests.write_sealed(two / "results.json", content)
    with pytest.raises(DataError, match="task 'foxes' is scored by mrr_at_10, elsewhere by another score"):
        outputs.merge([one, two])


def test_samples_of_another_suite_cannot_be_compared(written):
    other = suite_of_two()
    short = Suite("s", [other.tasks[0]], {"foxes": "code search"}, "other")
    del short.tasks[0].qrels["q3"]
    one, two = written("one", "m"), written("two", "other", suite=short)
    assert list(outputs.merge([one, two])[0]["models"]) == ["m", "other"]
    with pytest.raises(DataError, match="foxes: other and m: 19 items against 20: not scored on the same task"):
        outputs.merge([one, two], "m")
