"""The watch over the hosts of a run: who is lost, what has not moved, what it says. Real ones: tests/commands/test_hosts.py."""

import json
import threading
import time
import types

import jax
import pytest

from embed import hosts
from embed.errors import UsageError


class Board(dict):
    """What hosts wrote, in memory; `broken` is one that cannot be reached."""

    broken = False

    def write(self, host, text):
        if self.broken:
            raise RuntimeError("UNAVAILABLE: failed to connect\nmore")
        self[host] = text

    def read(self):
        return dict(self)


def state(number, doing, idle, limit=1e9):
    return json.dumps([number, doing, idle, limit])


def watch(count=3, **options):
    return hosts.Watch(Board(), 0, count, **options)


def test_hosts_that_get_on_are_left_alone():
    own = watch()
    for second in range(0, 100, 2):
        found = {h: state(second, f"in step {second}", 1.0, 120.0) for h in range(3)}
        assert own.look(found, second) is None


def test_a_host_that_writes_nothing_is_lost():
    own = watch(lost=20.0)
    for second in range(0, 60, 2):
        found = {0: state(second, "in step 7", 1.0, 120.0), 2: state(second, "in step 7", 1.0, 120.0)}
        found[1] = state(min(second, 10), "reading the batch of step 7", 1.0, 120.0)
        said = own.look(found, second)
        assert (said is None) == (second <= 30)
        if said:
            break
    assert said == "no sign of life for 20 s from host 1 of 3 (last seen at host 1: reading the batch of step 7)"


def test_several_lost_hosts_are_named():
    own = watch(4, lost=20.0)
    states = {h: state(1, "in step 3", 0.0) for h in range(4)}
    assert own.look(states, 0) is None
    said = own.look({**states, 0: state(9, "in step 3", 20.0)}, 21)
    assert said.startswith("no sign of life for 20 s from hosts 1, 2, 3 of 4")


def test_what_has_not_moved_is_told_the_odd_one_first():
    own = watch()
    states = {h: state(1, "in step 12", 130.0, 120.0) for h in range(3)}
    states[1] = state(1, "reading the batch of step 12", 131.0, 120.0)
    assert own.look(states, 0) == (
        "nothing has moved for 130 s (host 1: reading the batch of step 12; hosts 0, 2: in step 12)"
    )


@pytest.mark.parametrize("other", [(119.0, 120.0), (5000.0, 6000.0)])
def test_while_one_may_go_on_nobody_ends(other):
    own = watch(2)
    assert own.look({0: state(1, "waiting for the others: x", 999.0, 0.0), 1: state(1, "y", *other)}, 0) is None


def test_hosts_that_have_not_begun_are_waited_for():
    own = watch(3)
    assert own.look({0: state(1, "in step 1", 999.0, 120.0)}, 0) is None


def test_a_host_that_never_wrote_anything_is_lost():
    """All have met before any of them writes, so a host that does not begin soon after is gone."""
    own = watch(lost=20.0)
    states = {0: state(1, "in step 1", 0.0), 2: state(1, "in step 1", 0.0)}
    assert own.look(states, own._begun + 19) is None
    said = own.look({h: state(2, "in step 1", 0.0) for h in (0, 2)}, own._begun + 21)
    assert said == "no sign of life for 20 s from host 1 of 3 (last seen at host 1: starting)"


def run(own, board, seconds=5.0):
    said = []
    own._end, own._board = said.append, board
    own.start()
    own.join(seconds)
    own.stop()
    return said


def test_the_thread_tells_what_the_host_does_and_ends_when_stuck():
    own, board = watch(2, beat=0.01, lost=60.0), Board()
    own.at("in step 5", 0.05)
    board[1] = state(1, "waiting for the others: scores", 99.0, 0.0)
    (said,) = run(own, board)
    assert said.startswith("nothing has moved for 0 s (") and "host 0: in step 5" in said
    number, doing, idle, limit = json.loads(board[0])
    assert number >= 2 and doing == "in step 5" and 0.05 < idle < 5 and limit == 0.05


def test_a_meeting_place_that_does_not_answer_is_told():
    said, asked = [], threading.Event()

    class Hanging(Board):
        def read(self):
            asked.wait(30)
            return {}

    own = hosts.Watch(Hanging(), 1, 2, beat=0.01, lost=0.2, end=said.append)
    own.start()
    deadline = time.monotonic() + 20
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)
    own.stop()
    asked.set()
    assert said == ["no answer for 0 s from the host that the others meet at"]


def test_beats_without_an_answer_are_counted_from_the_last_one():
    own = watch(beat=2.0, lost=20.0)
    for _ in range(3):
        own._answers += 1
        assert [own.hangs() for _ in range(11)] == [False] * 11
    assert own.hangs()


def test_getting_on_resets_the_time():
    own, board = watch(1, beat=0.01), Board()
    own._end, own._board = pytest.fail, board
    own.start()
    for step in range(20):
        own.at(f"in step {step}", 0.5)
        time.sleep(0.02)
    own.stop()
    own.join(5)
    assert json.loads(board[0])[2] < 0.5


def test_the_meeting_place_that_is_gone_is_told():
    board = Board()
    board.broken = True
    assert run(watch(2, beat=0.01), board) == [
        "the host that the others meet at is gone (UNAVAILABLE: failed to connect)"
    ]


def test_a_step_may_take_ten_times_the_median(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(hosts.time, "monotonic", lambda: clock[0])
    times = hosts.StepTimes()
    assert times.next() == hosts._FIRST_STEP  # nothing is known yet
    limits = []
    for seconds in (1, 1, 30, 30, 30):
        clock[0] += seconds
        limits.append(times.next())
    assert limits == [120, 120, 120, 155, 300]
    times.pause()
    clock[0] += 5000  # a checkpoint
    assert times.next() == 300


def test_one_host_alone_waits_for_nobody():
    hosts.sync("nothing")
    hosts.at("anything", 0.0)
    assert hosts.agree(7) == 7 and hosts.least(2.5) == 2.5 and hosts.is_main()


def test_hosts_that_meet_again_and_again_are_not_taken_for_stuck(monkeypatch):
    """Their last signs of life may all be of moments in which they waited for each other."""
    noted = []
    monkeypatch.setattr(hosts, "at", lambda what, limit=None: noted.append((what, limit)))
    monkeypatch.setattr(hosts.jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        hosts, "_client", lambda: types.SimpleNamespace(wait_at_barrier=lambda name, milliseconds: None)
    )
    hosts.sync("a value")
    what, limit = noted[0]
    watch = hosts.Watch(None, 0, 2, lost=1e9)
    told = {host: json.dumps([1, what, 0.5, limit]) for host in (0, 1)}
    assert watch.look(told, 100.0) is None
    told = {host: json.dumps([2, what, 61.0, limit]) for host in (0, 1)}
    assert "nothing has moved for 61 s" in watch.look(told, 161.0)


def test_hosts_meet_before_a_program_that_several_of_them_run(monkeypatch):
    """Gloo connects the hosts of a program within thirty seconds of its first run, and machines do not compile equally fast."""
    met = []
    monkeypatch.setattr(hosts, "sync", met.append)
    devices = [types.SimpleNamespace(process_index=host) for host in (0, 0, 1)]
    hosts.meet(devices[:2], "one host's own program")
    hosts.meet(iter(devices), "a program of two hosts")
    assert met == ["a program of two hosts"]


class Ended(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def several(monkeypatch):
    """A process that is one of several hosts: what it sleeps for and how it ends is noted."""
    did = []

    def end(code):
        did.append(("ended", code))
        raise Ended

    monkeypatch.setattr(hosts, "_watch", watch(2))
    monkeypatch.setattr(hosts.time, "sleep", lambda seconds: did.append(("waited", seconds)))
    monkeypatch.setattr(hosts.os, "_exit", end)
    return did


def test_an_error_that_a_lost_host_may_have_caused_waits_for_the_watch_to_say_so(several):
    hosts.explain(jax.errors.JaxRuntimeError("UNKNOWN: Gloo AllGather failed"))
    ((what, seconds),) = several
    # Longer than the watch needs, and shorter than until JAX ends the process without a word.
    assert what == "waited" and hosts._LOST + hosts._BEAT < seconds < hosts.HEARTBEAT


def test_an_error_of_another_kind_is_told_at_once(several):
    hosts.explain(ValueError("a bug"))
    assert several == []


@pytest.mark.parametrize("code", [1, 64, 65, 78])
def test_a_host_that_fails_does_not_wait_for_the_others(several, code):
    with pytest.raises(Ended):
        hosts.leave(code)
    assert several == [("ended", code)]


@pytest.mark.parametrize("code", [0, 75])
def test_hosts_that_all_end_end_together(several, code):
    hosts.leave(code)
    assert several == []


def test_one_host_alone_ends_as_any_program(monkeypatch):
    monkeypatch.setattr(hosts.os, "_exit", pytest.fail)
    monkeypatch.setattr(hosts.time, "sleep", pytest.fail)
    hosts.leave(65)
    hosts.explain(jax.errors.JaxRuntimeError("INTERNAL"))


def test_a_run_that_is_done_is_watched_no_more(monkeypatch):
    """What the hosts met at goes away when the main one ends, and is no reason to start all of them again."""
    said = []
    own = watch(1, beat=0.01, end=said.append)
    monkeypatch.setattr(hosts, "_watch", own)
    own.start()
    hosts.leave(0)
    own._board.broken = True
    own.join(5)
    assert not own.is_alive() and said == []


def test_hosts_are_refused_a_copy_where_each_would_write_a_part(monkeypatch):
    monkeypatch.setattr(hosts.copies, "of", lambda path: object())
    hosts.refuse_copies("gs://bucket/x", "encoding")  # one host
    monkeypatch.setattr(hosts.jax, "process_count", lambda: 2)
    with pytest.raises(
        UsageError, match="gs://bucket/x: encoding on several hosts needs a folder on a common file system"
    ):
        hosts.refuse_copies("gs://bucket/x", "encoding")
    monkeypatch.setattr(hosts.copies, "of", lambda path: None)
    hosts.refuse_copies("/shared/x", "encoding")


def test_what_the_main_host_wrote_is_shared(monkeypatch):
    done = []
    for name in ("push", "pull"):
        monkeypatch.setattr(hosts.copies, name, lambda *given, name=name: done.append(name))
    monkeypatch.setattr(hosts, "sync", lambda name: done.append(name))
    hosts.share("x", "alone")
    assert done == ["alone"]
    monkeypatch.setattr(hosts.jax, "process_count", lambda: 2)
    for is_main, wanted in ((True, ["push", "here"]), (False, ["here", "pull"])):
        done.clear()
        monkeypatch.setattr(hosts, "is_main", lambda is_main=is_main: is_main)
        hosts.share("x", "here")
        assert done == wanted
