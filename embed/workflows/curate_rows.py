"""The rows and the summary that `embed curate` writes, and whether those of an earlier run are as they were written."""

import pathlib
from collections.abc import Sequence
from typing import Any

from embed import documents, files
from embed.curation.ledger import Ledger
from embed.errors import DataError
from embed.sources.lines import write_json_lines

ROWS, SUMMARY = "rows.jsonl.gz", "summary.json"
_FORMAT = 2


def check(output: pathlib.Path) -> int:
    """Returns how many requests the summary in `output` counts whose end is known.

    Raises DataError where the summary or the rows were changed since they were written: they are written anew, and what was
    changed would be lost.
    """
    rows, path = output / ROWS, output / SUMMARY
    if not path.is_file():
        if rows.is_file():
            raise DataError(f"{path}: missing beside {ROWS}; restore it, or move {ROWS} away")
        return 0
    summary = documents.read_json(path)
    if summary.get("format") == _FORMAT or "digest" in summary:
        if summary.get("digest") != _digest(summary):
            raise DataError(
                f"{path}: does not match its own digest: it was changed; restore it, or move it and {ROWS} away"
            )
        if rows.is_file() and files.sha256_file(rows) not in (summary["rows_sha256"], summary["replaces"]):
            raise DataError(f"{rows}: was changed since it was written; move it away and run the command again")
    requests, interrupted = summary.get("requests"), summary.get("requests_interrupted", 0)
    if not all(type(count) is int and count >= 0 for count in (requests, interrupted)):
        raise DataError(f"{path}: counts {requests!r} requests; restore it, or move it and {ROWS} away")
    return requests - interrupted


def write(output: pathlib.Path, rows: Sequence[dict[str, Any]], summary: dict[str, Any], ledger: Ledger) -> None:
    """Writes the summary and the rows. The summary comes first and names the rows of before too, so that a kill between the
    two leaves nothing that looks changed."""
    path = output / ROWS
    before = files.sha256_file(path) if path.is_file() else None
    with files.new_file(path, overwrite=True) as temporary:
        write_json_lines(temporary, rows)
        costs = {
            "requests": ledger.requests,
            "requests_failed": ledger.failures,
            "requests_interrupted": ledger.unknown,
            "tokens_in": ledger.tokens_in,
            "tokens_out": ledger.tokens_out,
            "tokens_interrupted": ledger.tokens_open,
            "replies_without_usage": ledger.estimated,
        }
        whole = {"format": _FORMAT, **summary, **costs, "rows_sha256": files.sha256_file(temporary), "replaces": before}
        files.write_json(output / SUMMARY, {**whole, "digest": _digest(whole)})


def _digest(summary: dict[str, Any]) -> str:
    return documents.digest_json({name: value for name, value in summary.items() if name != "digest"})
