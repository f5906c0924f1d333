"""Every request to a language model, on disk before it is sent, and every reply the moment it came.

A request counts from then on, whatever becomes of it: a budget holds over failures, kills and runs. Nothing that was answered is
asked and paid for twice.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

from embed import documents, files
from embed.curation.requests import Reply
from embed.errors import DataError

_VERSION = 2  # 1 were lines of a key and a reply alone
_MAX_LINE = 64 << 20  # several times what a reply of the largest size takes


class Ledger:
    """Lines of JSON in one growing file. The first names the job's salt, which decides all keys. Each of the others says that a
    request is about to be sent and what it can cost, or what became of it; all bear their number and a digest.

    `requests` counts what was ever sent, `tokens_in` and `tokens_out` what it cost. A request whose end is not known (a kill
    came first) counts with all that it can have cost.
    """

    def __init__(self, path: pathlib.Path, salt: bytes = b""):
        self._path, self._salt = path, documents.digest_json(salt.hex())
        self._locations: dict[str, int] = {}
        self._open: dict[int, int] = {}  # number of a request without an end -> tokens that it can cost
        self._lines = 0
        self.requests = self.replies = self.tokens_in = self.tokens_out = self.estimated = 0
        self.failures = self.failures_in_a_row = 0
        self.last_failure = ""
        self._broken: OSError | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _upgrade(path, self._salt)
            # Without a buffer: after a failed write nothing of the line may reach the file later.
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - open as long as the ledger
        except OSError as e:
            raise files.storage_error(path, e) from e
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    @property
    def tokens(self) -> int:
        """Tokens in and out together, and what the requests without an end can cost."""
        return self.tokens_in + self.tokens_out + self.tokens_open

    @property
    def tokens_open(self) -> int:
        """What the requests without an end can cost."""
        return sum(self._open.values())

    @property
    def unknown(self) -> int:
        """How many requests have no end, as a kill came first."""
        return len(self._open)

    def _read(self) -> None:
        """Counts what is there; a last line that a kill cut is removed."""
        offset = 0
        with open(self._path, "rb") as lines:
            while line := lines.readline(_MAX_LINE):
                cut = not line.endswith(b"\n")
                if cut and not self._is_whole(line, offset):
                    self._file.truncate(offset)
                    break
                self._count(self._row(line, offset), offset)
                offset += len(line)
                if cut:
                    self._file.write(b"\n")
                    break
        if not self._lines:
            self._append({"ledger": _VERSION, "salt": self._salt})

    def _is_whole(self, line: bytes, offset: int) -> bool:
        """Returns whether a last line lacks its end alone; False for the beginning of a line, which is what a kill leaves.
        Raises DataError for a line that no kill cut."""
        if len(line) == _MAX_LINE:
            raise self._damaged(offset, "no line ends there")
        if _is_json(line[:-1]):
            raise self._damaged(offset, "the line was changed at its end")
        return _is_json(line)

    def _row(self, line: bytes, offset: int) -> dict[str, Any]:
        """Returns the content of a line after checking its digest and number."""
        try:
            row = json.loads(line)
            digest = row.pop("digest")
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as e:
            raise self._damaged(offset, "it is no line of a ledger") from e
        if digest != _digest(row) or row.pop("n", None) != self._lines:
            raise self._damaged(offset, "the line was changed, or one before it is missing")
        return row

    def _count(self, row: dict[str, Any], offset: int) -> None:
        """Adds a line to the counts."""
        try:
            if "ledger" in row:
                self._check_header(row, offset)
            elif "sent" in row:
                self._open[self._lines] = row["tokens"]
                self.requests += 1
            elif "failed" in row:
                self._count_failure(row)
            else:
                self._count_reply(row, offset)
        except (KeyError, TypeError) as e:
            raise self._damaged(offset, "the line does not follow from those before it") from e
        self._lines += 1

    def _check_header(self, row: dict[str, Any], offset: int) -> None:
        if row["ledger"] != _VERSION:
            raise self._damaged(offset, "it was written by another version of embed")
        if row["salt"] != self._salt:
            raise self._damaged(offset, "it does not belong to the file 'salt' beside it, which was changed")

    def _count_failure(self, row: dict[str, Any]) -> None:
        del self._open[row["to"]]
        self.tokens_in += row["tokens"]
        self.failures += 1
        self.failures_in_a_row += 1
        self.last_failure = row["failed"]

    def _count_reply(self, row: dict[str, Any], offset: int) -> None:
        del self._open[row["to"]]
        reply = Reply(**row["reply"])
        self._locations[row["key"]] = offset
        self.replies += 1
        self.failures_in_a_row = 0
        self.tokens_in += reply.tokens_in
        self.tokens_out += reply.tokens_out
        self.estimated += reply.estimated

    def _damaged(self, offset: int, problem: str) -> DataError:
        return DataError(
            f"{self._path}: byte {offset}: {problem}; restore the file, or begin again in another --output"
        )

    def get(self, key: str) -> Reply | None:
        """Returns the reply to a request, or None when it was never given."""
        if key not in self._locations:
            return None
        offset = self._locations[key]
        try:
            with open(self._path, "rb") as lines:
                lines.seek(offset)
                row = json.loads(lines.readline(_MAX_LINE))
            if row.pop("digest") != _digest(row):
                raise ValueError
            return Reply(**row["reply"])
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise self._damaged(offset, "the line was changed while the file was in use") from e

    def reserve(self, key: str, tokens: int) -> int:
        """Writes down that a request is sent that can cost `tokens`, durably; returns the number that its end is given with."""
        number = self._lines
        self._append({"sent": key, "tokens": tokens})
        files.failpoint(f"curate.after_request_{self.requests}")
        return number

    def answer(self, number: int, key: str, reply: Reply) -> None:
        """Writes down the reply to a request; it is durable when this returns."""
        self._append({"to": number, "key": key, "reply": dataclasses.asdict(reply)})
        files.failpoint(f"curate.after_reply_{self.replies}")

    def fail(self, number: int, reason: str, tokens: int) -> None:
        """Writes down that a request failed, and what that can have cost."""
        self._append({"to": number, "failed": reason, "tokens": tokens})

    def _append(self, row: dict[str, Any]) -> None:
        """Writes a line, or nothing of it."""
        if self._broken is not None:
            raise files.storage_error(self._path, self._broken)
        line, offset = _line({"n": self._lines, **row}), self._file.seek(0, os.SEEK_END)
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
            os.fsync(self._file.fileno())
        except OSError as e:
            self._broken = e
            with contextlib.suppress(OSError):
                self._file.truncate(offset)
            raise files.storage_error(self._path, e) from e
        self._count(row, offset)

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):  # every line was flushed when it was written
            self._file.close()


def _digest(row: dict[str, Any]) -> str:
    """Returns the digest of a line's content; JSON in ASCII, so that half a surrogate pair has one too."""
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:32]


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps({**row, "digest": _digest(row)}).encode() + b"\n"


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _upgrade(path: pathlib.Path, salt: str) -> None:
    """Rewrites a ledger of version 1, whose lines are a key and a reply without digests, as one of today. The key is None for
    a reply of no use."""
    if not path.is_file():
        return
    with open(path, "rb") as lines:
        if lines.read(8) != b'{"key": ':
            return
    with (
        files.new_file(path, overwrite=True) as temporary,
        open(path, "rb") as lines,
        open(temporary, "wb") as upgraded,
    ):
        upgraded.write(_line({"n": 0, "ledger": _VERSION, "salt": salt}))
        number = offset = 0
        for line in lines:
            if line.endswith(b"\n"):  # a kill cut the last line
                for row in _upgraded(line, number + 1, f"{path}: byte {offset}"):
                    upgraded.write(_line(row))
            number, offset = number + 2, offset + len(line)


def _upgraded(line: bytes, number: int, location: str) -> list[dict[str, Any]]:
    """Returns the two lines of today for a line of version 1; the first of them has the given number."""
    try:
        row = json.loads(line)
        key, reply = row["key"], Reply(**row["reply"])
        if set(row) != {"key", "reply"} or not isinstance(reply.text, str) or not isinstance(key, str | None):
            raise ValueError("not a key and a reply")
        cost = reply.tokens_in + reply.tokens_out
        if type(cost) is not int or min(reply.tokens_in, reply.tokens_out) < 0:
            raise ValueError("not numbers of tokens")
    except (ValueError, RecursionError, KeyError, TypeError) as e:
        raise DataError(
            f"{location}: it is no line of a ledger ({e}); restore the file, or begin again in another --output"
        ) from e
    end = (
        {"failed": "a reply of no use", "tokens": cost}
        if key is None
        else {"key": key, "reply": dataclasses.asdict(reply)}
    )
    return [{"n": number, "sent": key, "tokens": cost}, {"n": number + 1, "to": number, **end}]
