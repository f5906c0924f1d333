"""Which files a path, a pattern or several of them name."""

import pathlib

import pytest
from source_files import json_lines, records, write

from embed import sources
from embed.errors import DataError, NotHere
from embed.sources import paths


def test_patterns_give_sorted_files_read_in_that_order(tmp_path):
    for name in ("b", "a10", "a2", "c"):
        write(tmp_path / "in" / f"{name}.jsonl", json_lines({"query": name, "target": "x"}))
    write(tmp_path / "in" / "other.txt", "not read")
    source = sources.JsonLines(str(tmp_path / "in" / "*.jsonl"))
    names = ["a10", "a2", "b", "c"]
    assert source.paths() == [str(tmp_path / "in" / f"{n}.jsonl") for n in names]
    assert [r["query"] for r in records(source)] == names
    several = sources.JsonLines([str(tmp_path / "in" / "c.jsonl"), str(tmp_path / "in" / "a*.jsonl")])
    assert [r["query"] for r in records(several)] == ["a10", "a2", "c"]
    assert list(several.fingerprint()) == several.paths()


def test_relative_patterns_are_found_from_the_working_folder(tmp_path, monkeypatch):
    write(tmp_path / "in" / "a.jsonl", json_lines({"query": "a", "target": "b"}))
    monkeypatch.chdir(tmp_path)
    assert sources.JsonLines("in/*.jsonl").paths() == ["in/a.jsonl"]


def test_folders_that_match_a_pattern_are_passed_over(tmp_path):
    path = write(tmp_path / "in" / "a.jsonl", json_lines({"query": "a", "target": "b"}))
    (tmp_path / "in" / "z.jsonl").mkdir()
    source = sources.JsonLines(str(tmp_path / "in" / "*.jsonl"))
    assert list(source.fingerprint()) == [path]
    assert records(source) == [{"query": "a", "target": "b"}]


def test_a_path_that_names_a_file_is_no_pattern(tmp_path):
    """Marks of patterns in real names, and in the folders before the first *."""
    folder = tmp_path / "data [1]?"
    folder.mkdir()
    for name in ("a*.jsonl", "ab.jsonl", "x[2].jsonl"):
        (folder / name).write_text("{}\n")
    names = lambda path: [pathlib.Path(p).name for p in paths.expand_paths(str(path), "test")]  # noqa: E731
    assert names(folder / "a*.jsonl") == ["a*.jsonl"]
    assert names(folder / "x[2].jsonl") == ["x[2].jsonl"]
    assert names(folder / "*.jsonl") == ["a*.jsonl", "ab.jsonl", "x[2].jsonl"]
    assert names(folder / ".." / folder.name / "*b.jsonl") == ["ab.jsonl"]
    with pytest.raises(DataError, match="no such file"):
        names(tmp_path / "data*" / "none*.jsonl")
    with pytest.raises(DataError, match="cannot be read .File name too long"):
        names(folder / ("x" * 300))


def test_hidden_files_are_not_of_a_pattern_and_a_folder_is_no_file(tmp_path):
    for name in ("a.jsonl", ".b.jsonl"):
        write(tmp_path / name, '{"query": "q", "target": "t"}\n')
    assert [pathlib.Path(p).name for p in sources.JsonLines(str(tmp_path / "*.jsonl")).paths()] == ["a.jsonl"]
    with pytest.raises(DataError, match="is a folder; name its files"):
        sources.JsonLines(str(tmp_path)).paths()


def test_a_link_to_what_is_not_there_is_an_error(tmp_path):
    write(tmp_path / "a.jsonl", json_lines({"query": "q", "target": "t"}))
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "unmounted" / "b.jsonl")
    with pytest.raises(
        DataError, match="b.jsonl: a link to .*unmounted/b.jsonl, which is not there; mount or restore it"
    ):
        paths.expand_paths(str(tmp_path / "*.jsonl"), "test")


def test_a_source_is_not_here_where_none_of_its_files_is(tmp_path):
    write(tmp_path / "a.jsonl", "{}")
    here, gone = str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")
    for given, kind in (([gone], NotHere), ([here, gone], DataError)):
        with pytest.raises(DataError, match="b.jsonl: no such file") as raised:
            paths.expand_paths(given, "test")
        assert type(raised.value) is kind


def test_the_files_of_a_folder_below_one_called_cache_are_told_apart(tmp_path):
    folder = tmp_path / ".cache" / "data"
    write(folder / "a.arrow", "one")
    write(folder / ".cache" / "of_the_hub", "x")
    before = paths.folder_fingerprint(str(folder))
    assert list(before) == [str(folder / "a.arrow")]
    write(folder / "a.arrow", "two")
    assert paths.folder_fingerprint(str(folder)) != before
