"""The script that makes data for claims, by the command lines of its description."""

import gzip
import json
import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "launch" / "claim_data.py"


def run(*given) -> None:
    subprocess.run([sys.executable, str(SCRIPT), *map(str, given)], check=True, timeout=600)


def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def test_a_share_of_the_positives_changes_places(tmp_path):
    rows = [{"query": f"q{i}", "positive": f"p{i}"} for i in range(200)]
    with gzip.open(tmp_path / "pairs.jsonl.gz", "wt") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)
    run("noise", "--share=0.3", f"--output={tmp_path / 'noisy'}", tmp_path / "pairs.jsonl.gz")
    found = read(tmp_path / "noisy" / "pairs.jsonl.gz")
    assert [r["query"] for r in found] == [r["query"] for r in rows]
    moved = [new for new, old in zip(found, rows) if new["positive"] != old["positive"]]
    assert len(moved) == 60 == sum(r.get("wrong", False) for r in found)
    assert sorted(r["positive"] for r in found) == sorted(r["positive"] for r in rows)


def test_reviews_have_three_labels_and_come_once(tmp_path):
    for name in ("one", "two"):
        run("reviews", "--count=600", f"--output={tmp_path / name}.jsonl.gz")
    rows = read(tmp_path / "one.jsonl.gz")
    assert len({r["text"] for r in rows}) == 600
    assert all(sum(r["label"] == label for r in rows) > 150 for label in ("positive", "negative", "neutral"))
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()
