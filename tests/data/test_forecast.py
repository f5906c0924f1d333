"""What preparing will take: said of tasks with many records, by their first ones, and of no others."""

import json

import pytest
from encoded_pairs import Letters

from embed.data import forecast as forecasts
from embed.data.forecast import Forecast, forecast
from embed.data.record_encoder import RecordEncoder
from embed.data.tasks import Task
from embed.data.text_features import Lengths, pairs
from embed.sources import JsonLines, Parquet, TabSeparated

FEATURES = pairs(Lengths(6, 9))


def rows(count: int) -> list[dict]:
    return [{"query": f"q{i % 10}", "target": f"t{i % 10}"} for i in range(count)]


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(300)))
    return str(tmp_path / "a.jsonl")


def test_a_task_of_many_records(path, monkeypatch):
    monkeypatch.setattr(forecasts, "_LEAST", 300)
    expected = forecast(Task("t", JsonLines(path)), Letters(), FEATURES)
    assert expected.records == 300 and expected.seconds > 0 and 300 * 8 < expected.size < 300 * 200
    encoded = RecordEncoder(FEATURES, Letters(), "query", "document")(rows(10))
    mean = sum(len(row["query"]) + len(row["target"]) for row in encoded) / 10
    assert expected.tokens == pytest.approx(mean, rel=0.01)


def test_a_small_task_and_one_with_a_bad_record_have_none(path, monkeypatch):
    assert forecast(Task("t", JsonLines(path)), Letters(), FEATURES) is None
    monkeypatch.setattr(forecasts, "_LEAST", 3)
    with open(path, "r+") as f:
        f.write("{}")
    assert forecast(Task("t", JsonLines(path)), Letters(), FEATURES) is None
    assert forecast(Task("t", JsonLines(path + ".none")), Letters(), FEATURES) is None


def test_records_are_counted(path, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows(7)), tmp_path / "b.parquet")
    (tmp_path / "c.tsv").write_text("query\ttarget\n" + "a\tb\n" * 5)
    assert JsonLines(path).count() == 300
    assert Parquet(str(tmp_path / "b.parquet")).count() == 7
    assert TabSeparated(str(tmp_path / "c.tsv")).count() == 6  # with the header: about


def test_the_words():
    text = Forecast(records=1_000_000, tokens=62.4, seconds=300, size=1.3e8).text(2)
    assert text == "about 1,000,000 records of 62 tokens, at least 2.5 minutes with 2 processes, 130 MB"
    assert Forecast(20_000, 5, 6, 100).text(1).endswith("at least 0.1 minutes with 1 process, 100 B")
