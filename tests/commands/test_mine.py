"""`embed mine` as a user runs it: against brute force, killed and run again, read by training, and given what it cannot use."""

import gzip
import json
import random
import re
import shutil
import signal

import numpy as np
import pytest

from embed.documents import read_json
from embed.sources.record_files import JsonLines
from embed.text import target_id

WORDS = ["red", "green", "river", "stone", "engine", "paper", "winter", "quick"]


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    """A folder with a small trained model and two files of pairs."""
    folder = tmp_path_factory.mktemp("mine") / "work"
    shutil.copytree(trained, folder)
    choose = random.Random(3)
    sentence = lambda: " ".join(choose.choices(WORDS, k=choose.randint(2, 9)))  # noqa: E731
    rows = {
        "one": [{"query": f"{sentence()} {i // 2}", "positive": f"{sentence()} {i % 90}"} for i in range(120)],
        "two": [{"query": f"{sentence()} {i}", "positive": f"{sentence()} {i}", "lang": "en"} for i in range(30)],
    }
    # Several targets of one query, several queries of one target, and a pair that brings a negative of its own.
    for i in (1, 2, 3):
        rows["one"][i]["query"] = rows["one"][0]["query"]
    rows["one"][5]["negative"] = rows["one"][9]["positive"]
    for name, own in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    corpus = [{"id": str(i), "title": "part" if i % 2 else "", "text": f"{sentence()} more {i}"} for i in range(40)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    return folder


def mine(run_embed, folder, output, *more, pairs=("one.jsonl",), **environment):
    return run_embed(folder, "mine", "model", "--pairs", *pairs, f"--output={output}", *more, **environment)


def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def by_brute_force(folder, name, corpus=(), negatives=2, ceiling=0.95, last=20):
    """Returns each row's negatives, from all cosines of the model's own vectors."""
    import embed

    rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    documents = dict.fromkeys([("", r["positive"]) for r in rows] + [(c["title"], c["text"]) for c in corpus])
    model = embed.load(folder / "model")
    vectors = model.encode([{"title": title, "text": text} for title, text in documents], prompt="document")
    places = {document: i for i, document in enumerate(documents)}
    found = []
    for row, query in zip(rows, model.encode([r["query"] for r in rows], prompt="query")):
        cosines = vectors @ query
        positive = cosines[places["", row["positive"]]]
        known = {r["positive"] for r in rows if r["query"] == row["query"]} | {row["query"], row.get("negative")}
        ranked = sorted((d for d in documents if d[1] not in known), key=lambda d: -cosines[places[d]])[:last]
        good = [
            f"{d[0]} {d[1]}".strip() for d in ranked if ceiling == np.inf or cosines[places[d]] <= ceiling * positive
        ]
        found.append(good[:negatives])
    return rows, found


@pytest.mark.slow
@pytest.mark.parametrize(("with_corpus", "ceiling"), [(False, "off"), (True, "0.95")])
def test_negatives_are_those_of_brute_force(folder, run_embed, with_corpus, ceiling):
    corpus = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()] if with_corpus else []
    given = [
        "--negatives=2",
        "--ranks=1:20",
        f"--ceiling={ceiling}",
        *(["--corpus", "corpus.jsonl"] if with_corpus else []),
    ]
    output = f"brute-{with_corpus}"
    done = mine(run_embed, folder, output, *given, pairs=["one.jsonl", "two.jsonl"])
    assert done.returncode == 0, done.stderr
    assert "one: " in done.stdout and "pairs have 2 negatives now" in done.stdout
    for name in ("one", "two"):
        rows, wanted = by_brute_force(folder, name, corpus, ceiling=np.inf if ceiling == "off" else 0.95)
        found = read(folder / output / f"{name}.jsonl.gz")
        assert len(found) == len(rows)
        apart = 0
        for row, new, negatives in zip(rows, found, wanted):
            own = [row["negative"]] if "negative" in row else []
            assert {k: v for k, v in new.items() if k not in ("negative", "mined")} == {
                k: v for k, v in row.items() if k != "negative"
            }
            assert new["negative"][: len(own)] == own
            apart += new["negative"][len(own) :] != negatives
        assert apart <= 2  # neighbours whose cosines are the same to the last bit may change places
    texts = {
        text
        for name in ("one", "two")
        for row in read(folder / output / f"{name}.jsonl.gz")
        for text in row["negative"]
    }
    assert any(text.startswith("part ") for text in texts) == with_corpus
    assert not (folder / output / ".work").exists()
    counted = read_json(folder / output / "one.json")
    assert counted["pairs"] == 120 and (counted["negatives"] == 240) == (ceiling == "off")
    assert counted["identity"]["rule"]["last"] == 20


@pytest.mark.slow
def test_positives_are_never_negatives(folder, run_embed):
    done = mine(run_embed, folder, "positives", "--negatives=5", "--ceiling=off", "--ranks=1:30")
    assert done.returncode == 0, done.stderr
    rows = read(folder / "positives" / "one.jsonl.gz")
    for row in rows:
        assert not {r["positive"] for r in rows if r["query"] == row["query"]} & set(row["negative"])
        assert len(set(row["negative"])) == len(row["negative"]) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("point", ["encode.before_commit_0", "mine.before_part_0"])
def test_a_killed_run_goes_on_to_the_same_file(folder, run_embed, point):
    whole, output = f"whole-{point}", f"killed-{point}"
    assert mine(run_embed, folder, whole).returncode == 0
    done = mine(run_embed, folder, output, EMBED_FAIL_AT=point)
    assert done.returncode == -signal.SIGKILL
    assert not list((folder / output).glob("*.gz"))
    again = mine(run_embed, folder, output)
    assert again.returncode == 0, again.stderr
    assert (folder / output / "one.jsonl.gz").read_bytes() == (folder / whole / "one.jsonl.gz").read_bytes()
    done = mine(run_embed, folder, output)
    assert done.returncode == 0 and "one: done before" in done.stdout


@pytest.mark.slow
def test_pairs_whose_target_is_far_from_the_query_are_dropped(folder, run_embed):
    import embed

    done = mine(run_embed, folder, "kept", "--consistent=5", "--ceiling=off")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (folder / "one.jsonl").read_text().splitlines()]
    targets = list(dict.fromkeys(r["positive"] for r in rows))
    model = embed.load(folder / "model")
    cosines = model.encode([r["query"] for r in rows], prompt="query") @ model.encode(targets, prompt="document").T
    wanted = []
    for row, own in zip(rows, cosines):
        positive = own[targets.index(row["positive"])]
        rivals = [t for t in targets if t not in {r["positive"] for r in rows if r["query"] == row["query"]}]
        if sum(own[targets.index(t)] > positive for t in rivals) < 5:
            wanted.append(row["positive"])
    found = [row["positive"] for row in read(folder / "kept" / "one.jsonl.gz")]
    assert found == wanted and 0 < len(found) < len(rows)
    counted = read_json(folder / "kept" / "one.json")
    assert counted["dropped"] == len(rows) - len(found) and f"{counted['dropped']} are dropped" in done.stdout


@pytest.mark.slow
def test_training_reads_what_was_mined(folder, run_embed):
    done = mine(
        run_embed, folder, "train", "--negatives=2", "--ranks=1:20", "--ceiling=off", pairs=["one.jsonl", "two.jsonl"]
    )
    assert done.returncode == 0, done.stderr
    source = JsonLines(
        str(folder / "train" / "*.jsonl.gz"), {"query": "query", "target": "positive", "negatives": "negative"}
    )
    records = [record for _, record in source.examples()]
    assert len(records) == 150
    assert np.mean([len(r["negatives"]) for r in records]) > 1.5
    assert all(target_id(r["target"]) not in map(target_id, r["negatives"]) for r in records)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--ranks=1:200"], "one: --ranks wants 200 neighbours, and there are 120 texts"),
        (["--ceiling=0.001"], "no pair has a neighbour that may be its negative: .* raise --ceiling"),
        (["--ranks=a:b"], "ranks are FIRST:LAST"),
        (["--order=best"], "known: nearest, random, farthest"),
        (["--query_field=question"], "one.jsonl:1: no field 'question'"),
        (["--corpus", "none.jsonl"], "none.jsonl: no such file"),
        (["--query_prompt=qwery"], "no prompt is called 'qwery'"),
        (["--corpus", "x" * 300], "cannot be read .File name too long"),
        (["--title_field=titel"], "no pair has the field 'titel'"),
        (["--negatives_field=query"], "the field 'query' is given for two roles"),
        (["--target_field=mined"], "the field 'mined' is the one that says how"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(folder, run_embed, tmp_path, given, message):
    done = mine(run_embed, folder, tmp_path / "out", *given)
    assert done.returncode in (64, 65, 78)
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list((tmp_path / "out").glob("*.gz"))
    # What only the search can tell comes late; all else is refused before anything is written.
    assert (tmp_path / "out").exists() == ("--ceiling=0.001" in given)


@pytest.mark.slow
def test_a_run_that_failed_leaves_nothing_wrong_behind(folder, run_embed):
    """What is kept for a resumed run belongs to the files, fields and corpus that it was made of."""
    assert mine(run_embed, folder, "first", "--ceiling=0.001").returncode == 65
    done = mine(run_embed, folder, "first", "--ceiling=off", "--corpus", "corpus.jsonl")
    assert done.returncode == 0, done.stderr
    assert mine(run_embed, folder, "fresh", "--ceiling=off", "--corpus", "corpus.jsonl").returncode == 0
    assert read(folder / "first" / "one.jsonl.gz") == read(folder / "fresh" / "one.jsonl.gz")
    swapped = ["--query_field=positive", "--target_field=query", "--ranks=1:20", "--ceiling=off"]
    assert mine(run_embed, folder, "second", "--ceiling=0.001", "--ranks=1:20").returncode == 65
    done = mine(run_embed, folder, "second", *swapped)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_texts_in_both_the_targets_and_the_corpus_take_no_ranks(folder, run_embed):
    rows = [json.loads(line) for line in (folder / "one.jsonl").read_text().splitlines()]
    # As a corpus often is: it holds the targets, with titles.
    for name, title in (("same", {}), ("titled", {"title": "part"})):
        lines = [json.dumps({"text": row["positive"], **title}) + "\n" for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    given = ["--ranks=45:50", "--ceiling=off"]
    assert mine(run_embed, folder, "alone", *given).returncode == 0
    assert mine(run_embed, folder, "same", *given, "--corpus", "same.jsonl").returncode == 0
    alone, same = (read(folder / n / "one.jsonl.gz") for n in ("alone", "same"))
    assert sum(a["negative"] != b["negative"] for a, b in zip(alone, same)) <= 2
    done = mine(
        run_embed, folder, "titled", "--ranks=1:3", "--negatives=3", "--ceiling=off", "--corpus", "titled.jsonl"
    )
    assert done.returncode == 0, done.stderr
    for row in read(folder / "titled" / "one.jsonl.gz"):
        own = {r["positive"] for r in rows if r["query"] == row["query"]}
        assert not {n.removeprefix("part ") for n in row["negative"]} & own


@pytest.mark.slow
def test_what_is_read_is_never_written_over(folder, run_embed):
    before = (folder / "one.jsonl").read_bytes()
    packed = gzip.compress(before)
    (folder / "packed.jsonl.gz").write_bytes(packed)
    done = mine(run_embed, folder, ".", "--replace", pairs=["packed.jsonl.gz"])
    assert done.returncode == 64 and "would be written over what is read" in done.stderr
    assert (folder / "packed.jsonl.gz").read_bytes() == packed
    (folder / "other").mkdir()
    (folder / "other" / "one.jsonl.gz").write_bytes(b"mine")
    done = mine(run_embed, folder, "other")
    assert done.returncode == 74 and "is there already" in done.stderr
    assert (folder / "other" / "one.jsonl.gz").read_bytes() == b"mine"


@pytest.mark.slow
def test_a_query_with_nothing_but_positives_is_told_so(folder, run_embed):
    rows = [{"query": "the same", "positive": f"answer {i}"} for i in range(60)]
    (folder / "same-query.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = mine(run_embed, folder, "same-query", "--ranks=1:20", pairs=["same-query.jsonl"])
    assert done.returncode == 65 and "all that is near a query is its positive" in done.stderr


@pytest.mark.slow
def test_another_rule_needs_another_folder(folder, run_embed):
    assert mine(run_embed, folder, "rule").returncode == 0
    done = mine(run_embed, folder, "rule", "--negatives=3")
    assert done.returncode == 65
    assert "was mined with another rule; give the same, or another --output" in done.stderr


def write_rows(folder, name, rows):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_positives_of_a_query_in_another_file_or_corpus_are_never_its_negatives(folder, run_embed):
    """README: "Known positives of a query are never taken". Queries are the same by content: white space does not count."""
    work = folder / "across"
    work.mkdir()
    hamlet = "who wrote hamlet"
    fill = [{"query": f"red river {i}", "positive": f"stone engine {i}"} for i in range(8)]
    given = ["Shakespeare wrote it", "the bard of avon", hamlet, "bard by title bard", "a true negative"]
    write_rows(work, "a", [{"query": hamlet, "positive": "the bard of avon", "negative": given}, *fill])
    write_rows(work, "b", [{"query": f" {hamlet} ", "positive": "Shakespeare wrote it"}, *fill[:4]])
    write_rows(work, "c", [{"query": hamlet, "positive": "by title bard", "title": "bard"}, *fill[4:]])
    corpus = [{"text": t} for t in ("Shakespeare wrote it", "bard by title bard", "by title bard", "a play of 1603")]
    write_rows(work, "corpus", [*corpus, {"text": "title bard", "title": "bard by"}])
    pairs = ["across/a.jsonl", "across/b.jsonl", "across/c.jsonl"]
    options = [
        "--corpus",
        "across/corpus.jsonl",
        "--negatives=12",
        "--ranks=1:8",
        "--ceiling=off",
        "--title_field=title",
    ]
    done = mine(run_embed, folder, "across/out", *options, pairs=pairs)
    assert done.returncode == 0, done.stderr
    positives = {"the bard of avon", "Shakespeare wrote it", "by title bard", "bard by title bard"}
    for name in "abc":
        rows = read(work / "out" / f"{name}.jsonl.gz")
        first = rows[0]
        assert not {*positives, hamlet} & set(first["negative"]), name
        assert "a play of 1603" in first["negative"], name
        assert len(first["mined"]["scores"]) == len(first["negative"])
    first = read(work / "out" / "a.jsonl.gz")[0]
    assert first["negative"][0] == "a true negative" and first["mined"]["scores"][0] is None
    assert read_json(work / "out" / "a.json")["given_dropped"] == 4
    assert "a: 4 given negatives were positives of their query, or the query, and are left out; " in done.stdout
    # Which files are given decides the output.
    again = mine(run_embed, folder, "across/out", *options, pairs=pairs[1:])
    assert again.returncode == 65 and "was mined with another all pairs" in again.stderr


@pytest.mark.slow
def test_a_finished_run_writes_nothing_and_a_damaged_output_is_mined_again(folder, run_embed):
    def state():
        paths = sorted(p for p in (folder / "again").iterdir() if p.name != ".lock")
        return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in paths}

    assert mine(run_embed, folder, "again", "--ranks=1:20", pairs=["one.jsonl", "two.jsonl"]).returncode == 0
    whole = state()
    done = mine(run_embed, folder, "again", "--ranks=1:20", pairs=["one.jsonl", "two.jsonl"])
    assert done.returncode == 0 and done.stdout.splitlines() == ["one: done before", "two: done before"]
    assert state() == whole
    flipped, gone = folder / "again" / "one.jsonl.gz", folder / "again" / "two.jsonl.gz"
    flipped.write_bytes(flipped.read_bytes()[:-9] + b"x" + flipped.read_bytes()[-8:])
    gone.unlink()
    done = mine(run_embed, folder, "again", "--ranks=1:20", pairs=["one.jsonl", "two.jsonl"])
    assert done.returncode == 0, done.stderr
    assert "one.jsonl.gz is damaged: its sha256 differs; it is mined again" in done.stdout
    assert "two.jsonl.gz is missing; it is mined again" in done.stdout
    assert {name: content for name, (_, content) in state().items()} == {
        n: content for n, (_, content) in whole.items()
    }


@pytest.mark.slow
def test_a_run_killed_between_its_output_and_its_summary_goes_on(folder, run_embed):
    done = mine(run_embed, folder, "between", EMBED_FAIL_AT="mine.before_summary")
    assert done.returncode == -signal.SIGKILL
    assert (folder / "between" / "one.jsonl.gz").exists() and not (folder / "between" / "one.json").exists()
    again = mine(run_embed, folder, "between")
    assert again.returncode == 0, again.stderr
    assert read_json(folder / "between" / "one.json")["pairs"] == 120
