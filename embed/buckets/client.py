"""Objects of buckets over fsspec: listed, read, written and removed, each tried again while the service is at fault.

Google's and Amazon's libraries find their own credentials: nothing of them passes through here. S3 services of others are found by
AWS_ENDPOINT_URL, a test server for gs:// by STORAGE_EMULATOR_HOST.
"""

import functools
import os
import pathlib
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from embed.buckets.addresses import Address
from embed.errors import ConfigError, StorageError

T = TypeVar("T")
_EXTRAS = {"gs": "gcs", "s3": "s3"}
_WAITS = (0.5, 1, 2, 4, 8, 16, 32, 60, 60)  # seconds between the tries
_REFUSALS = (PermissionError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
_REFUSED = (400, 401, 403, 404, 405, 411, 412, 413)  # HTTP status codes that stay what they are
_WITHOUT_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "RefreshError")
_SAID = 4  # seconds; longer waits are said
_CONNECT, _READ = 20, 60  # seconds until a server that does not answer counts as lost
_SMALL = 8 << 20  # bytes of a file that is read whole before it is sent
PART = ".part"  # ends the name of a file that is being copied


class Object(NamedTuple):
    """An object: its size in bytes, and what changes when its content does."""

    size: int
    version: str


@functools.cache
def _filesystem(scheme: str):
    try:
        if scheme == "gs":
            import aiohttp
            from gcsfs.core import GCSFileSystem

            # Without it a request on a connection that has died waits for ever.
            timeout = aiohttp.ClientTimeout(sock_connect=_CONNECT, sock_read=_READ)
            return GCSFileSystem(use_listings_cache=False, skip_instance_cache=True, requests_timeout=timeout)
        from s3fs.core import S3FileSystem

        timeouts = {"connect_timeout": _CONNECT, "read_timeout": _READ}
        return S3FileSystem(use_listings_cache=False, skip_instance_cache=True, config_kwargs=timeouts)
    except ImportError as e:
        raise ConfigError(
            f"{scheme}:// needs a package that is not installed ({e.name or e}); pip install 'embed[{_EXTRAS[scheme]}]'"
        ) from e


def _status(error: BaseException) -> int | None:
    """Returns the HTTP status in an error of gcsfs or botocore, or in what it came of."""
    while error is not None:
        response = getattr(error, "response", None)
        code = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
        code = code if code is not None else getattr(error, "code", None)
        if code is not None and str(code).isdigit():
            return int(code)
        error = error.__cause__
    return None


def _is_passing(error: Exception) -> bool:
    """Returns whether a failure may pass: a lost connection, a server at fault or too busy."""
    if isinstance(error, _REFUSALS) or type(error).__name__ in _WITHOUT_CREDENTIALS:
        return False
    status = _status(error)
    return status not in _REFUSED if status is not None else True


def _tried(address: Address, what: str, operation: Callable[[], T]) -> T:
    """Returns what an operation gives, after as many tries as its failures pass."""
    for wait in (*_WAITS, None):
        try:
            return operation()
        except Exception as e:  # fsspec's backends raise errors of many types
            reason = " ".join(str(e).split())[:200] or type(e).__name__
            if wait is None or not _is_passing(e):
                if isinstance(e, FileNotFoundError | FileExistsError):
                    raise
                raise StorageError(
                    f"{address}: cannot be {what} ({reason}); check the bucket, its permissions and the credentials"
                ) from e
            if wait >= _SAID:
                print(f"note       {address}: cannot be {what} ({reason}); tried again in {wait} s", flush=True)
        time.sleep(wait * random.uniform(0.5, 1.5))
    raise AssertionError


def _name(address: Address) -> str:
    return f"{address.bucket}/{address.path}"


def _version(info: dict[str, Any]) -> str:
    for key in ("generation", "ETag", "etag", "md5Hash", "LastModified", "updated"):
        if info.get(key):
            return str(info[key])
    return ""


def _object(info: dict[str, Any]) -> Object:
    return Object(int(info["size"]), _version(info))


def info(address: Address) -> Object | None:
    """Returns the object at an address, or None where there is none."""
    files = _filesystem(address.scheme)
    try:
        entry = _tried(address, "read", lambda: files.info(_name(address)))
    except FileNotFoundError:
        return None
    return _object(entry) if entry["type"] == "file" else None


def find(address: Address) -> dict[str, Object]:
    """Returns {path below the address: object} of all objects below an address; a bucket that is not there is a StorageError."""
    files, prefix = _filesystem(address.scheme), _name(address).rstrip("/") + "/"
    try:
        listed = _tried(address, "listed", lambda: files.find(prefix, detail=True))
    except FileNotFoundError as e:
        raise StorageError(
            f"{address.scheme}://{address.bucket}: no such bucket; create it, or correct its name"
        ) from e
    return {
        name.removeprefix(prefix): _object(entry)
        for name, entry in listed.items()
        if name.startswith(prefix) and name != prefix and entry["type"] == "file" and not name.endswith("/")
    }


def read(address: Address) -> bytes | None:
    """Returns the content of a small object, or None where there is none."""
    try:
        return _tried(address, "read", lambda: _filesystem(address.scheme).cat_file(_name(address)))
    except FileNotFoundError:
        return None


def write(address: Address, content: bytes) -> None:
    """Writes a small object."""
    _tried(address, "written", lambda: _filesystem(address.scheme).pipe_file(_name(address), content))


def create(address: Address, content: bytes) -> bool:
    """Writes a small object where there is none; returns whether it was this call that did. Of several, one does."""
    files = _filesystem(address.scheme)

    def attempt() -> bool:
        try:
            files.pipe_file(_name(address), content, mode="create")
        except Exception as e:
            if isinstance(e, FileExistsError) or _status(e) in (409, 412):
                return False
            raise
        return True

    return _tried(address, "written", attempt) or read(address) == content  # a try whose answer was lost


def remove(address: Address) -> None:
    """Removes an object; one that is not there is none."""
    try:
        _tried(address, "removed", lambda: _filesystem(address.scheme).rm_file(_name(address)))
    except FileNotFoundError:
        return


def download(address: Address, path: pathlib.Path, expected: Object) -> None:
    """Copies an object to a file, which appears when it is whole."""
    part = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    path.parent.mkdir(parents=True, exist_ok=True)

    def attempt() -> None:
        _filesystem(address.scheme).get_file(_name(address), str(part))
        if part.stat().st_size != expected.size:
            raise OSError(f"{part.stat().st_size} of {expected.size} bytes came")

    try:
        if expected.size:
            _tried(address, "read", attempt)
        else:
            part.write_bytes(b"")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def upload(path: pathlib.Path, address: Address) -> Object:
    """Copies a file to an object, which appears when it is whole; returns the object. A file that grows goes as it is now."""

    def attempt() -> Object:
        files = _filesystem(address.scheme)
        size = path.stat().st_size
        if size > _SMALL:
            files.put_file(str(path), _name(address))
        else:
            content = path.read_bytes()
            size = len(content)
            files.pipe_file(_name(address), content)
        there = _object(files.info(_name(address)))
        if there.size != size:
            raise OSError(f"{there.size} of {size} bytes arrived")
        return there

    return _tried(address, "written", attempt)
