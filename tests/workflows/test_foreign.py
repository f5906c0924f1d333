"""Models of other tools in the place of a MODEL: converted once, by one host, and told apart by their weights."""

import json
import shutil
import types

import pytest

from embed import bundles, documents, files
from embed.errors import DataError
from embed.interop import convert, hub, source
from embed.workflows import foreign


@pytest.fixture
def converted(monkeypatch, bundle):
    """Names that were converted; every name is a foreign model, whose conversion is the tiny bundle."""
    names = []

    def write(model, folder, name):
        assert model.place == f"fetched {name}"
        names.append(name)
        shutil.copytree(bundle, folder)

    monkeypatch.setattr(hub, "fetch", lambda name: f"fetched {name}")
    monkeypatch.setattr(source, "read", lambda place: types.SimpleNamespace(place=place))
    monkeypatch.setattr(convert, "describe", lambda model, name: {"of": name})
    monkeypatch.setattr(convert, "convert", write)
    return names


def test_a_model_of_ours_is_taken_as_it_is(bundle, tmp_path, converted):
    step = tmp_path / "run" / "checkpoints" / "7"
    step.parent.mkdir(parents=True)
    shutil.copytree(bundle, step)
    assert foreign.bundle_of(str(bundle), tmp_path / "caches", "teacher") == bundle
    assert foreign.bundle_of(str(tmp_path / "run"), tmp_path / "caches", "teacher") == step
    assert not converted and not (tmp_path / "caches").exists()


def test_a_foreign_model_is_converted_once_into_the_caches(converted, tmp_path, capsys):
    bundle_of = lambda name, role="start": foreign.bundle_of(name, tmp_path / "caches", role)  # noqa: E731
    first, again, other, taught = (
        bundle_of("org/one"),
        bundle_of("org/one"),
        bundle_of("org/two"),
        bundle_of("a/b", "teacher"),
    )
    assert converted == ["org/one", "org/two", "a/b"] and first == again != other
    assert {p for p in (tmp_path / "caches").iterdir() if not p.name.startswith(".")} == {first, other, taught}
    assert [p.name.partition("-")[0] for p in (first, other, taught)] == ["start", "start", "teacher"]
    assert all((p / files.MANIFEST).is_file() for p in (first, other, taught))
    printed = capsys.readouterr().out
    assert printed.count("start      converting org/one into") == printed.count("teacher    converting a/b into") == 1
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text("{}")
    bundle_of(str(tmp_path / "folder"))
    assert converted[-1] == str(tmp_path / "folder")


def test_another_host_converts_nothing(converted, monkeypatch, tmp_path):
    monkeypatch.setattr(foreign.hosts, "is_main", lambda: False)
    folder = foreign.bundle_of("org/one", tmp_path / "caches", "start")
    with pytest.raises(DataError):  # where no other host has written it
        bundles.read_model_json(folder)
    assert converted == []


def test_a_folder_that_is_no_model_is_refused_before_a_hub_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "fetch", lambda name: pytest.fail("asked"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: not a run folder, checkpoint step or bundle"):
        foreign.bundle_of(str(tmp_path / "empty"), tmp_path, "teacher")


def test_a_converted_model_is_identified_by_its_weights(bundle, tmp_path):
    assert foreign.digest_of(bundle) == files.folder_digest(bundle)
    copy, weights = tmp_path / "copy", {"model.safetensors": "abc"}
    shutil.copytree(bundle, copy)
    description = bundles.read_model_json(bundle)
    description["lineage"]["weights"] = weights
    (copy / "model.json").write_text(json.dumps(description))
    assert foreign.digest_of(copy) == documents.digest_json(weights)
