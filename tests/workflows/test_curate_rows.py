"""The rows and the summary of `embed curate`: written together, told apart from what somebody changed."""

import gzip
import json
import types

import pytest

from embed import files
from embed.errors import DataError
from embed.workflows import curate_rows
from embed.workflows.curate_rows import ROWS, SUMMARY


def ledger(**changes):
    counts = {
        "requests": 9,
        "failures": 2,
        "unknown": 3,
        "tokens_in": 100,
        "tokens_out": 20,
        "tokens_open": 7,
        "estimated": 1,
    }
    return types.SimpleNamespace(**{**counts, **changes})


def write(folder, rows, **changes):
    curate_rows.write(folder, rows, {"what": "texts", "rows": len(rows)}, ledger(**changes))


def summary(folder) -> dict:
    return json.loads((folder / SUMMARY).read_text())


def test_rows_and_costs_are_written_and_checked(tmp_path):
    assert curate_rows.check(tmp_path) == 0
    rows = [{"text": "é\u2028"}, {"text": "b"}]
    write(tmp_path, rows)
    with gzip.open(tmp_path / ROWS, "rt", encoding="utf-8") as f:
        assert [json.loads(line) for line in f] == rows
    found = summary(tmp_path)
    assert found.pop("digest") and found.pop("rows_sha256") == files.sha256_file(tmp_path / ROWS)
    assert found == {
        "format": 2,
        "what": "texts",
        "rows": 2,
        "requests": 9,
        "requests_failed": 2,
        "requests_interrupted": 3,
        "tokens_in": 100,
        "tokens_out": 20,
        "tokens_interrupted": 7,
        "replies_without_usage": 1,
        "replaces": None,
    }
    assert curate_rows.check(tmp_path) == 9 - 3


def test_rows_of_before_are_known_until_those_of_now_are_there(tmp_path):
    """A kill between the two leaves a summary of rows that are not there yet."""
    write(tmp_path, [{"text": "a"}])
    before = (tmp_path / ROWS).read_bytes()
    write(tmp_path, [{"text": "a"}, {"text": "b"}])
    (tmp_path / ROWS).write_bytes(before)
    assert curate_rows.check(tmp_path) == 6
    (tmp_path / ROWS).write_bytes(gzip.compress(b'{"text": "mine"}\n'))
    with pytest.raises(
        DataError, match=f"{ROWS}: was changed since it was written; move it away and run the command again"
    ):
        curate_rows.check(tmp_path)
    (tmp_path / ROWS).unlink()
    assert curate_rows.check(tmp_path) == 6


def test_the_summary_comes_first(tmp_path, monkeypatch):
    written, write_json = [], files.write_json

    def watched(path, value):
        written.append((tmp_path / ROWS).is_file())
        write_json(path, value)

    monkeypatch.setattr(files, "write_json", watched)
    write(tmp_path, [{"text": "a"}])
    assert written == [False] and (tmp_path / ROWS).is_file()


def test_rows_without_their_summary_are_not_written_over(tmp_path):
    write(tmp_path, [{"text": "a"}])
    (tmp_path / SUMMARY).unlink()
    with pytest.raises(DataError, match=f"{SUMMARY}: missing beside {ROWS}; restore it, or move {ROWS} away"):
        curate_rows.check(tmp_path)


@pytest.mark.parametrize("change", [{"requests": 10}, {"digest": "x"}, {"more": 1}, {"format": 1}])
def test_a_changed_summary_is_refused(tmp_path, change):
    write(tmp_path, [{"text": "a"}])
    files.write_json(tmp_path / SUMMARY, {**summary(tmp_path), **change})
    with pytest.raises(
        DataError, match=f"{SUMMARY}: does not match its own digest: it was changed; restore it, or move"
    ):
        curate_rows.check(tmp_path)


def test_the_summary_of_an_earlier_version_has_no_digest(tmp_path):
    files.write_json(tmp_path / SUMMARY, {"requests": 4})
    (tmp_path / ROWS).write_bytes(b"any")
    assert curate_rows.check(tmp_path) == 4
    for wrong in (
        {},
        {"requests": -1},
        {"requests": True},
        {"requests": 2.0},
        {"requests": 4, "requests_interrupted": "1"},
    ):
        files.write_json(tmp_path / SUMMARY, wrong)
        with pytest.raises(DataError, match=f"{SUMMARY}: counts .* requests; restore it, or move it and {ROWS} away"):
            curate_rows.check(tmp_path)
