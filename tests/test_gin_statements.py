"""The statements of gin files with the files and lines where they stand, includes in place."""

import pytest

from embed.errors import ConfigError
from embed.gin_statements import FIRST_LINE, Reader, holds_reference, references


def written(folder, name, *lines):
    path = folder / name
    path.write_text("\n".join([FIRST_LINE, *lines]) + "\n")
    return path


def test_bindings_stand_where_they_were_written_and_includes_where_they_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "base.gin", "A = 1", "", "B = %A")
    path = written(tmp_path, "top.gin", "import json", "include 'base.gin'", "x/json.loads.s = @json.dumps", "A = 2")
    reader = Reader()
    reader.read(path)
    reader.read_binding("A=three")
    base = f"{tmp_path}/base.gin"
    places = [(b.name, b.location) for b in reader.bindings]
    expected = [("A", f"{base}:2"), ("B", f"{base}:4"), ("x/json.loads.s", f"{path}:4"), ("A", f"{path}:5")]
    assert places == [*expected, ("A", "--gin.A=three")]
    assert [b.value for b in reader.bindings if b.name == "A"] == [1, 2, "three"]
    assert reader.modules == {"json": "json"}
    assert [reader.locations[n] for n, line in enumerate(reader.lines) if line == "A = 2"] == [f"{path}:5"]


def test_references_are_found_however_deep_they_lie(tmp_path):
    reader = Reader()
    reader.read(written(tmp_path, "a.gin", "A = [{'b': (@json.dumps, %C)}, 3]", "C = 4"))
    value = reader.bindings[0].value
    assert [(r.name, r.is_macro) for r in references(value)] == [("json.dumps", False), ("C", True)]
    assert holds_reference(value) and not holds_reference(reader.bindings[1].value)


def test_what_an_included_file_would_bind_anew_is_refused_above_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "base.gin", "A = 1")
    with pytest.raises(
        ConfigError, match=r"top.gin:2: A is overridden at .*base.gin:2, in a file that is included below"
    ):
        Reader().read(written(tmp_path, "top.gin", "A = 2", "include 'base.gin'"))
