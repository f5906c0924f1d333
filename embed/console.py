"""What a command prints: lines, progress bars, and output that its reader cannot end.

A write to a closed pipe (`| head`), a closed terminal (a dropped connection) or a full disk fails in the middle of a run.
`keep` makes such a stream go on into a file, so that the command goes on: the log of the command's own folder, where it has
one (`log_to`), else nowhere.
"""

import contextlib
import os
import pathlib
import select
import signal
import sys
import threading
import time
from collections.abc import Callable

LOG = "output.log"
_log_path: pathlib.Path | None = None
_lock = threading.RLock()
_is_terminated = False


class Terminated(BaseException):
    """SIGTERM came. As KeyboardInterrupt, it is no Exception, so that handlers of errors let it pass."""


class _Stream:
    """A text stream whose writes never fail: what the stream below cannot take goes to the log."""

    def __init__(self, stream, name: str, shown: Callable[[str], str] = str):
        self._stream, self._name, self._shown = stream, name, shown
        self.reason: str | None = None  # why the reader is gone

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes `text` to the stream or, once its reader is gone, to the log."""
        return self._try(lambda: self._stream.write(self._shown(text))) or len(text)

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


def keep(shown: Callable[[str], str] = str) -> None:
    """Makes stdout and stderr outlive their readers; characters that they cannot show are written as escapes.

    Every text is written as `shown` gives it.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, _Stream):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, _Stream(stream, name, shown))


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
        global _is_terminated
        _is_terminated = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
        raise Terminated

    signal.signal(signal.SIGTERM, stop)


def take_termination() -> bool:
    """Returns whether SIGTERM has come and nobody has acted on it, and forgets it: the caller acts.

    Libraries swallow exceptions while they look for plug-ins, and so the one that SIGTERM raised.
    """
    global _is_terminated
    came, _is_terminated = _is_terminated, False
    return came


def finish() -> None:
    """Hands on the last output; call it before the process ends."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def say(line: str) -> None:
    """Prints one line on the main host. A SIGTERM that was swallowed ends the command here."""
    from embed import hosts

    if take_termination():
        raise Terminated

    if hosts.is_main():
        print(line, flush=True)


def size_text(count: float) -> str:
    """Returns a byte count for people, e.g. '1.23 GB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:  # 1,000 in three digits
            return f"{digits(count)} {unit}"
        count /= 1000
    return f"{digits(count)} TB"


def digits(number: float) -> str:
    """Returns a number rounded to three digits, without an exponent below a million: '1230', '0.0123'."""
    return f"{float(f'{number:.3g}'):g}"


@contextlib.contextmanager
def text_bar(total: int, every_minute: bool = False):
    """Gives progress(texts): it moves a bar on a terminal; elsewhere it is silent, or says a line `every_minute`."""
    if not total or not sys.stderr.isatty():
        yield _Minutes(total) if total and every_minute else lambda texts: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="text", leave=False, dynamic_ncols=True) as bar:
        yield bar.update


class _Minutes:
    """Counts texts and says every minute how far they are."""

    def __init__(self, total: int):
        self._total, self._done, self._begun = total, 0, time.time()
        self._said = self._begun

    def __call__(self, texts: int) -> None:
        self._done += texts
        now = time.time()
        if now - self._said >= 60:
            self._said = now
            rate = self._done / (now - self._begun)
            left = (self._total - self._done) / max(rate, 1e-9) / 60
            print(
                f"{self._done:,} of {self._total:,} texts, {rate:,.0f} a second, {left:,.0f} minutes left", flush=True
            )


def progress_bar(what: str) -> Callable[[float], None]:
    """Returns progress(share) that draws a bar on a terminal and is silent elsewhere."""
    if not sys.stderr.isatty():
        return lambda share: None
    from tqdm import tqdm

    bar = tqdm(
        total=100, desc=what, unit="%", leave=False, dynamic_ncols=True, bar_format="{desc} {bar} {percentage:3.0f}%"
    )

    def progress(share: float) -> None:
        bar.update(round(100 * share) - bar.n)
        if share >= 1:
            bar.close()

    return progress


class ShardReport:
    """Says after every shard how far a job is and how fast it goes; `total`, where it is known, is said too. Of several
    hosts the main one tells of its own share."""

    def __init__(self, prefix: str = "", total: int | None = None, unit: str = "texts"):
        self._prefix, self._of, self._unit = prefix, "" if total is None else f" of {total:,}", unit
        self._begun, self._new, self._kept = time.time(), 0, 0

    def __call__(self, count: int, done_before: bool) -> None:
        if done_before:
            self._kept += count
            return
        if self._kept and not self._new:
            say(f"{self._prefix}resuming: {self._kept:,} {self._unit} were done before")
        self._new += count
        rate = self._new / (time.time() - self._begun)
        say(f"{self._prefix}{self._kept + self._new:,}{self._of} {self._unit}, {rate:,.0f} a second")
