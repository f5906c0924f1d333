"""Results on disk whose every byte is covered by a digest: sealed JSON files, and the entries of the files they list.

A sealed file holds the sha256 of its own values under the key `digest`. It lists other files as {name: {size, sha256}}.
A flipped bit, a cut or a swapped file is found before anything of it is used.
"""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from embed import documents, files, ranges
from embed.errors import DataError


class Entry(TypedDict):
    """What a sealed file says of another file."""

    size: ranges.Natural
    sha256: ranges.Text


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `value` with the digest of all its other keys under `digest`."""
    content = {name: item for name, item in value.items() if name != "digest"}
    return {**content, "digest": documents.digest_json(content)}


def write_sealed(path, value: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `value` with its digest, atomically, and returns what was written."""
    content = sealed(value)
    files.write_json(path, content)
    return content


def read_sealed(path, kind: Any = dict, advice: str = "restore the folder, or make it again") -> dict[str, Any]:
    """Returns what `write_sealed` wrote. A value that its digest does not cover is a DataError with `advice`."""
    value = documents.read_json(path, kind)
    check_sealed(value, path, advice)
    return value


def check_sealed(value: Mapping[str, Any], path, advice: str) -> None:
    """Raises a DataError with `advice` unless the digest of a sealed file's value covers it."""
    if "digest" not in value:
        raise DataError(f"{path}: holds no digest, so it cannot be verified; {advice}")
    if sealed(value)["digest"] != value["digest"]:
        raise DataError(f"{path}: does not match its own digest, so it is damaged; {advice}")


def entry_of(path) -> Entry:
    """Returns the size and the sha256 of a file."""
    path = pathlib.Path(path)
    return {"size": path.stat().st_size, "sha256": files.sha256_file(path)}


def entries_of(folder, names: Iterable[str]) -> dict[str, Entry]:
    """Returns {name: entry} of some files of a folder."""
    return {name: entry_of(pathlib.Path(folder) / name) for name in names}


def problem_of(path, entry: Mapping[str, Any]) -> str | None:
    """Returns in one phrase how a file differs from its entry, or None when it does not."""
    path = pathlib.Path(path)
    try:
        if not path.is_file():
            return f"{path} is missing"
        size = path.stat().st_size
        if size != entry["size"]:
            return f"{path} has {size:,} bytes instead of {entry['size']:,}"
        return None if files.sha256_file(path) == entry["sha256"] else f"{path} is damaged: its sha256 differs"
    except OSError as e:
        return f"{path} cannot be read ({e.strerror or e})"


def check_files(folder, entries: Mapping[str, Mapping[str, Any]], advice: str = "restore it, or make it again") -> None:
    """Raises a DataError with `advice` for the first file of a folder that differs from its entry."""
    for name, entry in entries.items():
        problem = problem_of(pathlib.Path(folder) / name, entry)
        if problem is not None:
            raise DataError(f"{problem}; {advice}")
