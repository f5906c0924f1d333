"""Several processes as one run: how they meet, agree, wait for each other, and notice that one of them is lost or stuck.

A process is called a host here, as on a TPU pod; tests run several on one machine. What all must do together (a step, a barrier)
waits for the last of them for ever, so each host tells the others what it is doing, over the service by which they met. When
one gives no sign of life, or nobody gets on, every host says so in one line and ends with the exit code that launchers start
all of them again for.
"""

import collections
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np

from embed import files
from embed.buckets import copies
from embed.errors import HostLost, UsageError

# Seconds until JAX gives up a silent host and ends this process without a message of ours. JAX's hosts send a heartbeat every half
# of it, so JAX may notice after half of it already. Half of it must be more than `_LOST`.
HEARTBEAT = 100
_BEAT, _LOST = 2.0, 25.0  # seconds between two signs of life, and without one until a host counts as lost
_SLOWEST, _LEAST = 10, 120.0  # a step may take as many times the median, and so many seconds at least
_BARRIER = 24 * 3600
_LONG = 6 * 3600.0  # what has no limit of its own may take as many seconds: to score a large suite, say
_FIRST_STEP = 2 * 3600.0  # a step that is compiled first
SAVING = 3600.0  # seconds that writing a checkpoint may take
# Seconds until a host that waits for the others counts as one that does not get on. Hosts see each other's last sign of life, which
# is seconds old: with less, two that meet again and again would each be seen waiting, and the run taken for stuck.
_WAITING = 60.0
_AGREEING = 1800.0  # until all hosts have come to the point where they agree on a value
_watch: "Watch | None" = None
_barriers: collections.Counter = collections.Counter()


def join(distributed: bool = False) -> None:
    """Meets the other hosts of the run, if it is one of several; call it before anything touches a device.

    With `distributed`, or when JAX_COORDINATOR_ADDRESS is set: on TPU pods and Slurm JAX finds the others itself, elsewhere
    JAX_NUM_PROCESSES and JAX_PROCESS_ID say which one this is.
    """
    coordinator = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if coordinator and "JAX_NUM_PROCESSES" in os.environ:
        if os.environ.get("JAX_PLATFORMS") == "cpu":
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            coordinator,
            num_processes=int(os.environ["JAX_NUM_PROCESSES"]),
            process_id=int(os.environ["JAX_PROCESS_ID"]),
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    elif distributed or coordinator:
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        global _watch
        _watch = Watch(_Board(_client()), jax.process_index(), jax.process_count())
        _watch.start()
        files.failpoint("hosts.joined")
    copies.set_writer(is_main())


def explain(error: Exception) -> None:
    """Ends this process where an error came of the loss of another host, which is known a moment later; else returns."""
    if isinstance(error, jax.errors.JaxRuntimeError):
        await_loss()


def await_loss() -> None:
    """Waits until the watch would have ended this process because another host is lost. Returns at once in a run of one host."""
    if _watch is not None:
        time.sleep(_LOST + 3 * _BEAT)


def leave(code: int) -> None:
    """Lets all hosts end together. With the exit code of an error this process ends at once: the others do not come so far.

    One that ended before the main host has written what there is to write would be taken for lost.
    """
    if _watch is None:
        return
    if code == 0:
        try:
            sync("the end")
        except HostLost as e:
            _end(str(e))
        _watch.stop()
    elif code != HostLost.exit_code:
        sys.stdout.flush()
        os._exit(code)


def is_main() -> bool:
    """Returns whether this is the host that prints and writes."""
    return jax.process_index() == 0


def at(what: str, limit: float = _LONG) -> None:
    """Tells the other hosts what this one does now, and how many seconds it may take at most; one alone tells nobody.

    When every host is past its limit the run is stuck, and all of them end and say where each stands.
    """
    if _watch is not None:
        _watch.at(what, limit)


def sync(name: str) -> None:
    """Waits until every host has come to this point. HostLost names those that have not within a day."""
    if jax.process_count() == 1:
        return
    at(f"waiting for the others: {name}", _WAITING)
    _barriers[name] += 1
    files.failpoint(f"hosts.before_barrier_{_barriers.total()}")
    try:
        _client().wait_at_barrier(f"embed: {name} ({_barriers[name]})", 1000 * _BARRIER)
    except jax.errors.JaxRuntimeError as e:
        raise HostLost(f"waiting for the others: {name}: {str(e).splitlines()[0]}") from e
    at(f"after: {name}")


def share(path, name: str) -> None:
    """Waits like `sync`, after which every host finds what the main host has written at `path`.

    Hosts share a file system, or `path` lies in the copy of a place in a bucket, which each host has on its own disk.
    """
    several = jax.process_count() > 1
    if several and is_main():
        copies.push()
    sync(name)
    if several and not is_main():
        copies.pull(path)


def refuse_copies(path, what: str) -> None:
    """Raises UsageError where several hosts would write what is of one folder into copies of a bucket, each on its own disk."""
    if jax.process_count() > 1 and copies.of(path) is not None:
        raise UsageError(
            f"{path}: {what} on several hosts needs a folder on a common file system; give one, or run it on one host"
        )


def meet(devices, what: str) -> None:
    """Waits for the other hosts before a program runs on `devices` for the first time, if these are of several hosts.

    Gloo connects the hosts of a program when it first runs, and fails when one is 30 seconds later than another: after a
    compilation on busy machines it is. Every host must come here equally often.
    """
    if len({device.process_index for device in devices}) > 1:
        sync(what)


def agree(value: np.ndarray) -> np.ndarray:
    """Returns the value that the main host has, on every host; all must call it, with arrays of one shape."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    sync("a value of the main host")  # see `meet`
    at("waiting for the main host's value", _AGREEING)
    agreed = np.asarray(multihost_utils.broadcast_one_to_all(value))
    at("after the main host's value")
    return agreed


def least(value: float) -> float:
    """Returns the least of the values of all hosts, which must all call it."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    sync("the values of all hosts")  # see `meet`
    at("waiting for the values of all hosts", _AGREEING)
    values = multihost_utils.process_allgather(np.float32(value))
    at("after the values of all hosts")
    return float(np.min(values))


class StepTimes:
    """How long a step may take: ten times the median of the last hundred, 120 seconds at least; the first two hours."""

    def __init__(self):
        self._seconds: collections.deque = collections.deque(maxlen=100)
        self._begun: float | None = None

    def next(self) -> float:
        """Notes that a step begins, and returns how many seconds it may take."""
        now = time.monotonic()
        if self._begun is not None:
            self._seconds.append(now - self._begun)
        self._begun = now
        return max(_LEAST, _SLOWEST * statistics.median(self._seconds)) if self._seconds else _FIRST_STEP

    def pause(self) -> None:
        """Leaves out what is done until the next step begins."""
        self._begun = None


def _client():
    """Returns JAX's connection to the service by which the hosts met; it has no public name."""
    from jax._src import distributed

    return distributed.global_state.client


class _Board:
    """Where every host writes what it does, and reads what the others do."""

    def __init__(self, client):
        self._client = client

    def write(self, host: int, text: str) -> None:
        self._client.key_value_set(f"embed/doing/{host}", text, allow_overwrite=True)

    def read(self) -> Mapping[int, str]:
        return {int(key.rpartition("/")[2]): text for key, text in self._client.key_value_dir_get("embed/doing/")}


class Watch(threading.Thread):
    """Tells the other hosts what this one does and looks at what they do; `end(message)` is called when the run cannot go on.

    A host is lost that writes nothing for `lost` seconds. The run is stuck when every host is longer at what it does than
    it may be; one that waits for the others is after a minute.
    """

    def __init__(
        self,
        board,
        host: int,
        hosts: int,
        *,
        beat: float = _BEAT,
        lost: float = _LOST,
        end: Callable[[str], None] | None = None,
    ):
        super().__init__(name="watch over the hosts", daemon=True)
        self._board, self._host, self._hosts = board, host, hosts
        self._beat, self._lost, self._end = beat, lost, end or _end
        self._doing, self._limit, self._since = "starting", _LONG, time.monotonic()
        self._seen: dict[int, tuple[str, float]] = {}
        self._begun = time.monotonic()
        self._stopped = threading.Event()
        self._answers = self._counted = self._silent = 0
        self._over_board = threading.Thread(target=self._watch_board, name="watch over the meeting place", daemon=True)

    def at(self, what: str, limit: float = _LONG) -> None:
        """Notes what this host does from now on, and how many seconds it may take."""
        self._doing, self._limit, self._since = what, limit, time.monotonic()

    def stop(self) -> None:
        """Ends the watch."""
        self._stopped.set()

    def hangs(self) -> bool:
        """Returns whether the board has not answered for too long, as the host that keeps it hangs. Call it once a beat.

        Beats without an answer are counted, not seconds: on a busy machine, seconds pass in which no thread could ask.
        """
        self._silent = self._silent + 1 if self._answers == self._counted else 0
        self._counted = self._answers
        return self._silent * self._beat > self._lost

    def _watch_board(self) -> None:
        """Ends the run when the board hangs: the thread that reads the board then waits for an answer without end."""
        while not self._stopped.wait(self._beat):
            if self.hangs():
                self._end(f"no answer for {self._lost:.0f} s from the host that the others meet at")
                return

    def run(self) -> None:
        self._over_board.start()
        number = 0
        while not self._stopped.wait(self._beat):
            number += 1
            idle = time.monotonic() - self._since
            try:
                self._board.write(self._host, json.dumps([number, self._doing, idle, self._limit]))
                beats = dict(self._board.read())
                self._answers += 1
            except Exception as e:  # of several types, by what the connection met
                if not self._stopped.is_set():
                    self._end(f"the host that the others meet at is gone ({str(e).splitlines()[0][:120]})")
                return
            if message := self.look(beats, time.monotonic()):
                self._end(message)
                return

    def look(self, beats: Mapping[int, str], now: float) -> str | None:
        """Returns what is wrong with what the hosts wrote, at a time in seconds; None while the run can go on."""
        for host, text in beats.items():
            if self._seen.get(host, (None,))[0] != text:
                self._seen[host] = (text, now)
        silent = [h for h, (_, seen) in self._seen.items() if now - seen > self._lost]
        if now - self._begun > self._lost:  # all hosts had met before this one began to watch
            silent += [h for h in range(self._hosts) if h not in self._seen]
        if silent:
            states = {h: json.loads(text)[1] for h, (text, _) in self._seen.items()}
            doing = "; ".join(f"host {h}: {states.get(h, 'starting')}" for h in sorted(silent))
            return f"no sign of life for {self._lost:.0f} s from {_names(sorted(silent))} of {self._hosts} (last seen at {doing})"
        if len(self._seen) < self._hosts:
            return None
        states = {h: json.loads(text) for h, (text, _) in sorted(self._seen.items())}
        if any(idle <= limit for _, _, idle, limit in states.values()):
            return None
        groups: dict[str, list[int]] = {}
        for host, (_, doing, _, _) in states.items():
            groups.setdefault(doing, []).append(host)
        idle = min(state[2] for state in states.values())
        last_seen = "; ".join(
            f"{_names(hosts)}: {doing}" for doing, hosts in sorted(groups.items(), key=lambda g: len(g[1]))
        )
        return f"nothing has moved for {idle:.0f} s ({last_seen})"


def _names(hosts: list[int]) -> str:
    return f"host {hosts[0]}" if len(hosts) == 1 else f"hosts {', '.join(map(str, hosts))}"


def _end(message: str) -> None:
    """Ends this process at once: the main thread waits for a host that does not come."""
    print(f"embed: {message}; ended, to be started again with all others", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(HostLost.exit_code)
