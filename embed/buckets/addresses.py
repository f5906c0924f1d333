"""Addresses of objects in buckets, and where their copies lie on this machine."""

import os
import pathlib
import re
from typing import NamedTuple

from embed.errors import UsageError

SCHEMES = ("gs", "s3")
CACHE_VARIABLE = "EMBED_BUCKET_CACHE"
_ADDRESS = re.compile(r"(gs|s3)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_QUOTED = re.compile(r"""(?P<quote>['"])(?P<address>(?:gs|s3)://[^'"\n]*)(?P=quote)""")


class Address(NamedTuple):
    """A place in a bucket: `scheme`://`bucket`/`path`, the path without a slash at its ends."""

    scheme: str
    bucket: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.path}".rstrip("/")


def is_address(text: str) -> bool:
    """Returns whether a text names a place in a bucket."""
    return _ADDRESS.match(str(text)) is not None


def parse(text: str) -> Address:
    """Returns the address that a text is; one without a bucket's name, or with '..' in it, is a UsageError."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no address in a bucket; give gs://BUCKET/PATH or s3://BUCKET/PATH")
    bucket, _, path = match[2].partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{text}: {bucket!r} is no name of a bucket; give {match[1]}://BUCKET/PATH")
    parts = [part for part in path.split("/") if part]
    if any(part in (".", "..") for part in parts) or not path.isprintable() or "\\" in path:
        raise UsageError(
            f"{text}: '.', '..', backslashes and control characters are no parts of an address; correct it"
        )
    return Address(match[1], bucket, "/".join(parts))


def cache_folder() -> pathlib.Path:
    """Returns the folder of all copies: $EMBED_BUCKET_CACHE, or ~/.cache/embed/buckets."""
    given = os.environ.get(CACHE_VARIABLE)
    base = pathlib.Path(given) if given else pathlib.Path("~/.cache/embed/buckets").expanduser()
    return base.resolve()


def copy_of(address: Address) -> pathlib.Path:
    """Returns where the copy of an address lies."""
    return cache_folder().joinpath(address.scheme, address.bucket, *address.path.split("/"))


def address_of(path) -> Address | None:
    """Returns the address that a path is the copy of; None for any other path."""
    try:
        parts = pathlib.Path(os.path.abspath(path)).relative_to(cache_folder()).parts
    except ValueError:
        return None
    return Address(parts[0], parts[1], "/".join(parts[2:])) if len(parts) > 1 and parts[0] in SCHEMES else None


def quoted(text: str) -> list[str]:
    """Returns the addresses that stand in quotes in the lines of a text, without those of comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [match["address"] for line in lines for match in _QUOTED.finditer(line)]


def localized(text: str) -> str:
    """Returns a text with the copies' paths in the place of the addresses that stand in quotes."""

    def path(match: re.Match) -> str:
        return repr(str(copy_of(parse(match["address"]))))

    lines = text.split("\n")
    return "\n".join(line if line.lstrip().startswith("#") else _QUOTED.sub(path, line) for line in lines)


def restored(text: str) -> str:
    """Returns a text with addresses in the place of copies' paths."""
    for scheme in SCHEMES:
        text = text.replace(f"{cache_folder() / scheme}/", f"{scheme}://")
    return text
