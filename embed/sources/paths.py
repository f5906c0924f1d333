"""Files that a path, a pattern or several of them name, and fingerprints of local folders."""

import functools
import os
import pathlib
import time
from collections.abc import Sequence

from embed.errors import DataError, NotHere
from embed.files import sha256_file


def expand_paths(path: str | Sequence[str], option: str) -> list[str]:
    """Returns the files that a path, a pattern with *, or several of them name, sorted. Each must name at least one.

    A file that several of them name is taken once. A path that names a file is no pattern, and neither are the folders before
    the first *. A link to a file that is not there is a DataError. Where there is no file at all the error is NotHere.
    """
    paths: dict[str, str] = {}  # real path -> path as it was given
    missing: list[str] = []
    for one in [path] if isinstance(path, str) else path:
        base = pathlib.Path(one)
        matches = [one] if _is_file(base) else []
        if not matches and "*" in one:
            first = next(i for i, part in enumerate(base.parts) if "*" in part)
            matches = [
                str(p)
                for p in pathlib.Path(*base.parts[:first]).glob("/".join(base.parts[first:]))
                if is_there(p) and (not p.name.startswith(".") or base.name.startswith("."))
            ]
        if not matches and base.is_dir():
            raise DataError(f"{one}: is a folder; name its files, as in {one}/*; correct {option}")
        if not matches:
            missing.append(one)
        for match in matches:
            if not match.isprintable() and any(0xDC80 <= ord(c) <= 0xDCFF for c in match):
                raise DataError(f"{match!a}: the name of the file is not valid UTF-8; rename it")
            paths.setdefault(os.path.realpath(match), match)
    if missing:
        kind = DataError if paths else NotHere
        raise kind(f"{missing[0]}: no such file; correct {option}")
    return sorted(paths.values())


def is_there(path: pathlib.Path) -> bool:
    """Returns whether a path of a folder is a file. A link to what is not there is a DataError: its data would be left out."""
    if path.is_symlink() and not path.exists():
        raise DataError(
            f"{path}: a link to {os.readlink(path)}, which is not there; mount or restore it, or remove the link"
        )
    return path.is_file()


def _is_file(path: pathlib.Path) -> bool:
    try:
        return path.is_file()
    except OSError as e:  # of a name that is too long, for one
        raise DataError(f"{path}: cannot be read ({e.strerror or e}); correct the path") from e


def state(path) -> tuple[int, ...] | None:
    """Returns the inode number, size and times of a file, which change when it is written to or replaced; None without a file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


_SETTLED = 2.0  # seconds; a change within the resolution of a file's times would not show in them
_digest_of_state = functools.lru_cache(1 << 16)(lambda path, state: sha256_file(path))


def source_digest(path) -> str:
    """Returns the hex sha256 of a source's file. It is computed once in a process while the file's state stays the same."""
    now = state(path)
    if now is None or time.time() - max(now[2:]) / 1e9 < _SETTLED:
        return sha256_file(path)
    return _digest_of_state(str(path), now)


def is_saved_dataset(name: str) -> bool:
    """Returns whether a folder was written by the `save_to_disk` of a Hugging Face dataset."""
    folder = pathlib.Path(name)
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def folder_fingerprint(name: str) -> dict[str, str]:
    """Returns {path: sha256} of every file below a local folder; nothing for what is none."""
    folder = pathlib.Path(name)
    if not folder.is_dir():
        return {}
    inside = [p for p in sorted(folder.rglob("*")) if ".cache" not in p.relative_to(folder).parts]
    return {str(p): source_digest(p) for p in inside if is_there(p)}
