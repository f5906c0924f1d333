"""Names of files below an address: which belong into the bucket, and in which order they go there."""

import fnmatch
import re
from collections.abc import Iterable

MANIFEST = "MANIFEST.json"
INDEX = "index.json"  # of an index of a corpus: it lists the other files with their digests
_STEP = re.compile(r"(?:^|.*/)checkpoints/\d+(?=/)")
_UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a folder that Orbax is writing
PREPARED = ".parts"  # ends the name of the folder of what processes have prepared of a token cache
_LOCAL = ("output.log",)  # of this machine alone
_OF_ARRAYS = (".zarray", ".zgroup", ".zattrs")  # describe the arrays of checkpoints that several hosts write


def step_of(name: str) -> str | None:
    """Returns the folder of a run's step that a file lies in; None for other files."""
    match = _STEP.match(name)
    return match[0] if match else None


def is_manifest(name: str) -> bool:
    """Returns whether a file is written when its folder is whole."""
    return name.rpartition("/")[2] == MANIFEST


def group(name: str, local: Iterable[str]) -> int:
    """Returns 0 of a file in a folder with a manifest, 1 of a manifest, 2 of any other file, 3 of the index.json of an index."""
    if is_manifest(name):
        return 1
    if name.rpartition("/")[2] == INDEX:
        return 3
    parts = name.split("/")
    return 0 if any("/".join([*parts[:n], MANIFEST]) in local for n in range(len(parts))) else 2


def is_path(name: str) -> bool:
    """Returns whether a file of this name lies below the folder that it is named from: no part is empty, '.' or '..'."""
    return not {"", ".", ".."} & set(name.split("/"))


def is_shown(folder: str) -> bool:
    """Returns whether a folder of this name belongs into the bucket."""
    return (not folder.startswith(".") or folder.endswith(PREPARED)) and _UNFINISHED not in folder


def is_shared(name: str) -> bool:
    """Returns whether a file of this name belongs into the bucket: it is not hidden, and not of this machine alone."""
    *folders, last = name.split("/")
    is_hidden = last.startswith(".") and last not in _OF_ARRAYS
    return all(map(is_shown, folders)) and not is_hidden and name not in _LOCAL


def matches(name: str, pattern: str) -> bool:
    """Returns whether a name fits a pattern with * in some of its parts."""
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
