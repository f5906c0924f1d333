"""Where the time of a run goes: stepping, waiting for data, compiling, saving, evaluating, or starting."""

import time
from collections.abc import Callable

STEPPING = "stepping"
_ORDER = (STEPPING, "waiting for data", "compiling", "saving", "evaluating", "starting")


class Clock:
    """Adds up the time of each activity, one after the other; `now` gives seconds.

    A step that runs on a device while the host reads the next batch is counted where the host waits: data that come in time cost
    nothing.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self._now, self._activity, self._since = now, "starting", now()
        self._seconds = dict.fromkeys(_ORDER, 0.0)

    def to(self, activity: str) -> None:
        """Says what is done from now on."""
        moment = self._now()
        self._seconds[self._activity] += moment - self._since
        self._activity, self._since = activity, moment

    def seconds(self) -> dict[str, float]:
        """Returns the seconds of each activity until now."""
        self.to(self._activity)
        return dict(self._seconds)

    def line(self) -> str:
        """Returns the shares for people, such as 'time  0:12:34, 91.2% stepping (goodput), 3.1% waiting for data'."""
        seconds = self.seconds()
        total = max(sum(seconds.values()), 1e-9)
        shares = [
            f"{value / total:.1%} {name}{' (goodput)' if name == STEPPING else ''}"
            for name, value in seconds.items()
            if name == STEPPING or value / total >= 0.0005
        ]
        minutes, rest = divmod(round(total), 60)
        return f"time       {minutes // 60}:{minutes % 60:02d}:{rest:02d}, {', '.join(shares)}"
