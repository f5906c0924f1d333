"""A Beam pipeline as helpers of a preparation, with a stand-in for Beam: shares are encoded, errors are one line."""

import importlib.util
import sys
import time
import types

import pytest

from embed.errors import ConfigError, DataError, StorageError
from embed.workflows import beam


class Pipeline:
    """Runs the map over the created elements when the block ends."""

    failure: Exception | None = None
    ran: list = []

    def __init__(self, options):
        self.options = options

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if Pipeline.failure is not None:
            raise Pipeline.failure
        for element in self.elements:
            Pipeline.ran.append((element, self.given))

    def __or__(self, step):
        kind, value = step
        if kind == "create":
            self.elements = list(value)
        elif kind == "map":
            self.given = value
        return self


class Named(tuple):
    def __rrshift__(self, name):
        return self


@pytest.fixture
def stand_in(monkeypatch):
    module = types.ModuleType("apache_beam")
    module.Pipeline = Pipeline
    module.Create = lambda elements: Named(("create", elements))
    module.Reshuffle = lambda: Named(("reshuffle", None))
    module.Map = lambda function, **given: Named(("map", (function, given)))
    options = types.ModuleType("apache_beam.options.pipeline_options")
    options.PipelineOptions = list
    for name, value in {
        "apache_beam": module,
        "apache_beam.options": types.ModuleType("o"),
        options.__name__: options,
    }.items():
        monkeypatch.setitem(sys.modules, name, value)
    monkeypatch.setattr(Pipeline, "ran", [])
    monkeypatch.setattr(Pipeline, "failure", None)


def ended(helpers: beam.Helpers) -> None:
    helpers.start()
    helpers.start()
    while helpers._thread.is_alive():
        time.sleep(0.01)


def test_every_share_is_encoded_once(stand_in):
    helpers = beam.Helpers("--runner=X --name='a b'", ["a.gin"], ["B=1"], 3)
    assert not helpers.check(0) and helpers.count == 3 and helpers._options == ["--runner=X", "--name=a b"]
    ended(helpers)
    assert helpers.check(0)
    assert [element for element, _ in Pipeline.ran] == [0, 1, 2]
    function, given = Pipeline.ran[0][1]
    assert function is beam.encode and given == {"gin_files": ["a.gin"], "bindings": ["B=1"], "count": 3}


def test_what_ends_a_pipeline_is_raised(stand_in, monkeypatch):
    wrapped = RuntimeError("pages of it\n  of Beam")
    wrapped.__cause__ = DataError("x.jsonl:3: is wrong")
    for failure, kind, message in (
        (wrapped, DataError, "x.jsonl:3: is wrong"),
        (
            ValueError("no project\nmore"),
            StorageError,
            "the Beam pipeline has ended: no project; run the command again",
        ),
    ):
        monkeypatch.setattr(Pipeline, "failure", failure)
        helpers = beam.Helpers("", [], [], 1)
        ended(helpers)
        with pytest.raises(kind, match=message):
            helpers.check(0)


def test_without_beam(monkeypatch):
    if importlib.util.find_spec("apache_beam"):
        pytest.skip("Beam is installed")
    with pytest.raises(ConfigError, match=r"--beam needs Apache Beam .*pip install 'embed\[beam\]'"):
        beam.Helpers("", [], [], 1)
