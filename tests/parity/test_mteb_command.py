"""`embed evaluate --mteb`: mteb runs a model of ours, and finds what we find."""

import json
import random

import pytest
from parity_foreign import embed

from embed.documents import read_json

mteb = pytest.importorskip("mteb")
from parity_tasks import (  # noqa: E402
    clustering_rows,
    labelled,
    make_retrieval,
    pair_rows,
    sts_rows,
    their_task,
    write_jsonl,
    write_tsv,
)

pytestmark = pytest.mark.filterwarnings("ignore")
TASKS = {
    "Search": ("retrieval", "search"),
    "Likeness": ("sts", "likeness.tsv"),
    "Pairs": ("pair_classification", "pairs.tsv"),
    "Labels": ("classification", "labels"),
    "Groups": ("clustering", "groups.jsonl"),
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """A suite's file with a task of each type above, whose files lie beside it."""
    folder, draw = tmp_path_factory.mktemp("suite"), random.Random(0)
    make_retrieval(folder / "search", documents=60, queries=20)
    write_tsv(folder / "likeness.tsv", ("sentence1", "sentence2", "score"), sts_rows(draw)[:60])
    write_tsv(folder / "pairs.tsv", ("sentence1", "sentence2", "label"), pair_rows(draw)[:60])
    for split in ("train", "test"):
        write_jsonl(folder / "labels" / f"{split}.jsonl", labelled(draw, 60, 3))
    write_jsonl(folder / "groups.jsonl", clustering_rows(draw, lambda topic, half: f"label {topic}")[:100])
    entries = [{"name": n, "type": kind, "path": path} for n, (kind, path) in TASKS.items()]
    path = folder / "suite.json"
    path.write_text(json.dumps({"tasks": entries}))
    return path


@pytest.fixture
def local_tasks(suite, monkeypatch):
    """The tasks of the suite stand for those of a benchmark, whose files would have to be downloaded."""
    from embed.evaluation import mteb as adapter

    entries = json.loads(suite.read_text())["tasks"]
    monkeypatch.setattr(adapter, "chosen_tasks", lambda names: [their_task(e, suite.parent) for e in entries])


def test_mteb_finds_the_scores_that_we_find(made, suite, local_tasks, tmp_path, capsys):
    bundle = made("embeddinggemma").bundle
    options = ["--dims=24,8", "--quantize=float32,int8"]
    given = ["evaluate", f"mine={bundle}", *options]
    assert embed(*given, "--mteb=Local", f"--output={tmp_path / 'theirs'}") == 0
    assert embed(*given, f"--suite={suite}", f"--output={tmp_path / 'ours'}", "--vectors=off") == 0
    ours = read_json(tmp_path / "ours" / "results.json")
    theirs = read_json(tmp_path / "theirs" / "summary.json")["scores"]
    views = [v["name"] for v in ours["models"]["mine"]["views"]]
    assert list(theirs) == [f"mine {view}" for view in views] and len(views) == 4
    for view in views:
        for task, facts in ours["tasks"].items():
            value = ours["models"]["mine"]["results"][task][view][facts["main"]]
            # mteb rounds scores of rankings to five digits; texts are embedded in another order, and k-means makes much
            # of the last bit of a vector.
            near = pytest.approx(value, abs=0.05 if task == "Groups" else 5.1e-6)
            assert theirs[f"mine {view}"][task]["score"] == near, (view, task)
    kept = {p.parent.parent.name for p in (tmp_path / "theirs").rglob("Search.json")}
    assert kept == {f"embed__mine-{view.replace(' ', '-')}" for view in views}
    assert "Mean (TaskType)" in capsys.readouterr().out


def test_what_mteb_has_scored_is_not_scored_again(made, local_tasks, tmp_path, monkeypatch):
    from embed.evaluation.mteb import MtebEncoder

    given = ["evaluate", f"mine={made('bert').bundle}", "--mteb=Local", f"--output={tmp_path / 'out'}"]
    assert embed(*given) == 0
    before = read_json(tmp_path / "out" / "summary.json")["scores"]["mine 32"]
    monkeypatch.setattr(MtebEncoder, "encode", lambda *a, **k: pytest.fail("texts were embedded again"))
    assert embed(*given) == 0
    after = read_json(tmp_path / "out" / "summary.json")["scores"]["mine 32"]
    # mteb's files hold six digits
    assert {t: s["score"] for t, s in after.items()} == pytest.approx(
        {t: s["score"] for t, s in before.items()}, abs=1e-6
    )
