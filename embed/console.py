"""Printed output that its reader cannot end: when a terminal, a pipe or a disk goes away, a command goes on and keeps a log.

A write to a closed pipe (`| head`), a closed terminal (a dropped connection) or a full disk fails in the middle of a run.
`keep` makes such a stream go on into a file: the log of the command's own folder, where it has one (`log_to`), else nowhere.
"""

import contextlib
import os
import pathlib
import select
import signal
import sys
import threading
import time

from embed.errors import Preempted

LOG = "output.log"
_log_path: pathlib.Path | None = None
_lock = threading.RLock()


class _Stream:
    """A text stream whose writes never fail: what the stream below cannot take goes to the log."""

    def __init__(self, stream, name: str):
        self._stream, self._name = stream, name
        self.reason: str | None = None  # why the reader is gone

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes `text` to the stream or, once its reader is gone, to the log."""
        return self._try(lambda: self._stream.write(text)) or len(text)

    def writelines(self, lines) -> None:
        """Writes all `lines`."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Hands on what was written."""
        self._try(self._stream.flush)

    def _try(self, operation):
        try:
            return operation()
        except BlockingIOError:  # a terminal that another program left in this mode; it takes more in a moment
            select.select([], [self._stream.fileno()], [], 5)
            return self._try(self._stream.flush)
        except (OSError, ValueError) as e:  # ValueError: the stream was closed
            self.lose(getattr(e, "strerror", None) or str(e))
            return None

    def lose(self, reason: str) -> None:
        """Goes on into the log, with what the stream below had not written yet."""
        with _lock:
            first, self.reason = self.reason is None, self.reason or reason
            with contextlib.suppress(OSError, ValueError):
                os.dup2(_open(None if not first else _log_path), self._stream.fileno())
                if first:
                    self._note()
                self._stream.flush()

    def _note(self) -> None:
        """Says in the log what happened; past the stream's buffer, which holds what the log gets next."""
        moment = time.strftime("%Y-%m-%d %H:%M:%S")
        line = f"{moment} {self._name} cannot be written ({self.reason}); the command goes on, and what it prints is kept here\n"
        os.write(self._stream.fileno(), line.encode())

    def move_to_log(self) -> None:
        """Goes on into the log where the reader was gone before the log was known."""
        if self.reason is not None:
            with _lock, contextlib.suppress(OSError, ValueError):
                os.dup2(_open(_log_path), self._stream.fileno())
                self._note()


def _open(path: pathlib.Path | None) -> int:
    """Returns a file descriptor of the log, or of nothing where there is no log or it cannot be written."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    if path is not None:
        # A folder that appears only when its content is whole has its log beside it.
        for log in (path, path.parent.with_name(f"{path.parent.name}.{path.name}")):
            with contextlib.suppress(OSError):
                return os.open(log, flags, 0o644)
    return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def keep() -> None:
    """Makes stdout and stderr outlive their readers; characters that they cannot show are written as escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, _Stream):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, _Stream(stream, name))


def log_to(path) -> None:
    """Says where output goes that cannot be printed any more. A closed terminal no longer ends the command."""
    global _log_path
    _log_path = pathlib.Path(path)
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, _Stream)]
    for stream in streams:
        stream.move_to_log()
    if streams and hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda number, frame: [s.lose("the terminal was closed") for s in streams])


def stop_on_sigterm() -> None:
    """Makes SIGTERM end the command as one that was preempted: it cleans up, and the same command goes on from there."""

    def stop(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
        raise Preempted("stopped by SIGTERM; run the same command again to go on")

    signal.signal(signal.SIGTERM, stop)


def finish() -> None:
    """Hands on the last output; call it before the process ends."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
