"""Every reply of a language model, on disk the moment it came, so that nothing is asked and paid for twice."""

import contextlib
import json
import os
import pathlib

from embed import files
from embed.curation.endpoint import Reply
from embed.errors import DataError


class Ledger:
    """Replies by the key of their request, in one growing file; `requests` and `tokens` count what was ever spent.

    A reply that was of no use (cut, no JSON) is counted too: it may have been billed.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._places: dict[str, int] = {}
        self.requests = self.tokens_in = self.tokens_out = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b")  # noqa: SIM115 - open as long as the ledger
        except OSError as e:
            raise files.storage_error(path, e) from e
        try:
            self._read()
        except DataError:
            self._file.close()
            raise

    @property
    def tokens(self) -> int:
        """Tokens in and out together."""
        return self.tokens_in + self.tokens_out

    def _read(self) -> None:
        """Finds what is there; a last line that a kill cut in two is removed."""
        self._file.seek(0)
        end = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                self._file.truncate(end)
                break
            try:
                row = json.loads(line)
                self._count(row["key"], end, Reply(**row["reply"]))
            except (ValueError, KeyError, TypeError) as e:
                raise DataError(f"{self._path}: byte {end} is not a reply ({e}); restore the file or remove it") from e
            end += len(line)

    def _count(self, key: str | None, place: int, reply: Reply) -> None:
        if key is not None:
            self._places[key] = place
        self.requests += 1
        self.tokens_in += reply.tokens_in
        self.tokens_out += reply.tokens_out

    def get(self, key: str) -> Reply | None:
        """Returns the reply to a request, or None when it was never given."""
        if key not in self._places:
            return None
        self._file.seek(self._places[key])
        return Reply(**json.loads(self._file.readline())["reply"])

    def put(self, key: str | None, reply: Reply) -> None:
        """Writes a reply down; it is durable when this returns. Without a key it is counted and never given again."""
        line = json.dumps({"key": key, "reply": reply.__dict__}).encode() + b"\n"
        try:
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as e:
            raise files.storage_error(self._path, e) from e
        self._count(key, place, reply)
        files.failpoint(f"curate.after_reply_{self.requests}")

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):  # every reply was flushed when it came
            self._file.close()
