"""The ledger: requests count before they are sent, changed bytes are noticed, and ledgers of the first version are read."""

import errno
import json
import random

import pytest

from embed.curation.ledger import Ledger
from embed.curation.requests import Reply
from embed.errors import DataError, StorageError

REPLY = Reply("ein Text \ud83d", 100, 10)


@pytest.fixture
def path(tmp_path):
    """A ledger of six requests: four were answered, one failed, one has no end."""
    path = tmp_path / "replies.jsonl"
    ledger = Ledger(path, b"salt")
    for i in range(4):
        ledger.answer(ledger.reserve(f"key {i}", 500), f"key {i}", REPLY)
    ledger.fail(ledger.reserve("key 4", 500), "status 500", 0)
    ledger.reserve("key 5", 700)
    ledger.close()
    return path


def counts(ledger):
    ledger.close()
    return ledger.requests, ledger.replies, ledger.failures, ledger.unknown, ledger.tokens


def test_what_was_counted_is_counted_again(path):
    ledger = Ledger(path, b"salt")
    assert ledger.get("key 2") == REPLY and ledger.get("key 4") is None is ledger.get("key 5")
    assert ledger.last_failure == "status 500" and ledger.failures_in_a_row == 1
    assert counts(ledger) == (6, 4, 1, 1, 4 * 110 + 700)


def test_a_line_that_a_kill_cut_is_removed(path):
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    last = len(whole) - len(lines[-1])
    for length in range(last + 1, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert counts(Ledger(path, b"salt"))[0] == 5
        assert path.read_bytes() == whole[:last]
    path.write_bytes(whole[:-1])
    assert counts(Ledger(path, b"salt"))[0] == 6
    assert path.read_bytes() == whole


def test_every_flipped_byte_is_noticed_or_changes_nothing(path):
    whole = path.read_bytes()
    right = counts(Ledger(path, b"salt"))
    choose, silent = random.Random(0), 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << choose.randrange(8)
        path.write_bytes(damaged)
        try:
            assert counts(Ledger(path, b"salt")) == right, (position, damaged)
            silent += 1
        except DataError as e:
            assert "restore the file, or begin again in another --output" in str(e) and "\n" not in str(e)
    assert silent < 5  # white space between two fields


@pytest.mark.parametrize("change", ["remove", "repeat", "swap"])
def test_lines_that_are_missing_or_moved_are_noticed(path, change):
    lines = path.read_bytes().splitlines(keepends=True)
    if change == "remove":
        del lines[3]
    elif change == "repeat":
        lines.insert(3, lines[3])
    else:
        lines[3], lines[4] = lines[4], lines[3]
    path.write_bytes(b"".join(lines))
    with pytest.raises(DataError, match="byte [0-9]+: the line was changed, or one before it is missing"):
        Ledger(path, b"salt")


@pytest.mark.parametrize("line", [b"[" * 100_000, b"[]", b'"x"', b"{}", b"3", b"\xff", b'{"digest": []}', b""])
def test_what_is_no_line(tmp_path, line):
    (tmp_path / "replies.jsonl").write_bytes(line + b"\n")
    with pytest.raises(DataError, match="replies.jsonl: byte 0: "):
        Ledger(tmp_path / "replies.jsonl")


def test_a_ledger_of_another_salt(path):
    with pytest.raises(DataError, match="does not belong to the file 'salt' beside it"):
        Ledger(path, b"other")


def test_a_reply_that_is_changed_while_it_is_in_use(path):
    ledger = Ledger(path, b"salt")
    path.write_bytes(path.read_bytes().replace(b"ein Text", b"aus Text"))
    with pytest.raises(DataError, match="was changed while the file was in use"):
        ledger.get("key 1")
    ledger.close()


def test_a_ledger_of_the_first_version_is_read_and_rewritten(tmp_path):
    path = tmp_path / "replies.jsonl"
    rows = [{"key": "a", "reply": {"text": "x", "tokens_in": 7, "tokens_out": 3}}]
    rows.append({"key": None, "reply": {"text": "", "tokens_in": 5, "tokens_out": 0}})
    rows.append({"key": "b", "reply": {"text": "y", "tokens_in": 1, "tokens_out": 1}})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"key": "cut')
    for _ in range(2):
        ledger = Ledger(path, b"salt")
        assert ledger.get("a") == Reply("x", 7, 3) and ledger.get("b") == Reply("y", 1, 1)
        assert counts(ledger) == (3, 2, 1, 0, 17)
    assert all("digest" in json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize(
    "row",
    [
        {"key": "a"},
        {"key": "a", "reply": {"text": "x", "tokens_in": -7, "tokens_out": 3}},
        {"key": "a", "reply": {"text": "x", "tokens_in": "7", "tokens_out": 3}},
        {"key": "a", "reply": {"text": 3, "tokens_in": 7, "tokens_out": 3}},
        {"key": 3, "reply": {"text": "x", "tokens_in": 7, "tokens_out": 3}},
        {"key": "a", "reply": {"text": "x", "tokens_in": 7, "tokens_out": 3}, "more": 1},
    ],
)
def test_a_ledger_of_the_first_version_with_a_wrong_line_is_left_as_it_is(tmp_path, row):
    path = tmp_path / "replies.jsonl"
    path.write_text(json.dumps(row) + "\n")
    before = path.read_bytes()
    with pytest.raises(DataError, match="byte 0: it is no line of a ledger .* restore the file"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_full_disk_leaves_no_half_line(path, monkeypatch):
    ledger = Ledger(path, b"salt")
    before = path.read_bytes()

    class Full:
        """A file that takes ten bytes more."""

        def __init__(self, file):
            self._file, self._room = file, 10

        def __getattr__(self, name):
            return getattr(self._file, name)

        def write(self, data):
            if not self._room:
                raise OSError(errno.ENOSPC, "No space left on device")
            written, self._room = self._file.write(data[: self._room]), 0
            return written

    monkeypatch.setattr(ledger, "_file", Full(ledger._file))
    for _ in range(2):  # nothing is written after the first failure
        with pytest.raises(StorageError, match="no space left"):
            ledger.reserve("key", 5)
    ledger.close()
    assert path.read_bytes() == before
