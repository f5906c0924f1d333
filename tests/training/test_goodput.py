"""The clock of a run: every second is in one activity."""

from embed.training.goodput import Clock


class Time:
    def __init__(self):
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_every_second_is_in_one_activity():
    time = Time()
    clock = Clock(time)
    for activity, seconds in (
        ("compiling", 5),
        ("waiting for data", 20),
        ("stepping", 1),
        ("stepping", 60),
        ("saving", 3600),
    ):
        time.seconds += seconds  # of what was done before
        clock.to(activity)
    time.seconds += 14
    assert clock.seconds() == {
        "stepping": 3660.0,
        "waiting for data": 1.0,
        "compiling": 20.0,
        "saving": 14.0,
        "evaluating": 0.0,
        "starting": 5.0,
    }
    assert clock.line() == ("time       1:01:40, 98.9% stepping (goodput), 0.5% compiling, 0.4% saving, 0.1% starting")


def test_a_run_without_a_step_has_no_goodput():
    assert Clock(lambda: 1.0).line() == "time       0:00:00, 0.0% stepping (goodput)"
