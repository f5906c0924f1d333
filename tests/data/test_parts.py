"""Parts of a task: by any number of processes, stopped and damaged, the cache is one process's to the byte. Without tensorflow."""

import json
import threading

import corruption
import pytest
from encoded_pairs import Letters

from embed.data import cache, parts, prepare, records, seqio_tasks
from embed.data.record_encoder import RecordEncoder
from embed.data.tasks import Mixture, Task
from embed.data.text_features import Lengths, pairs
from embed.errors import DataError
from embed.sources.record_files import JsonLines

FEATURES = pairs(Lengths(6, 9), 2)
FIELDS = {"query": "query", "target": "target", "negatives": "negatives"}


class Stop(BaseException):
    """Stands for a kill."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Parts of four records, encoded by our encoder in the place of seqio; what was encoded is counted."""
    counted = []

    def examples(task, tokenizer, features, is_chosen=None):
        encoder = RecordEncoder(features, tokenizer, task.query_prompt, task.target_prompt)
        for number, (location, record) in enumerate(task.source.examples()):
            if is_chosen is None or is_chosen(number):
                counted.append(number)
                (row,) = encoder([{"location": location, **record}])
                yield records.pack(row, seqio_tasks.written_fields(features))

    monkeypatch.setattr(seqio_tasks, "examples", examples)
    monkeypatch.setattr(parts, "RECORDS", 4)
    monkeypatch.setattr(parts, "_WAIT", 0.001)
    return counted


def task_of(folder, count: int, name="t", **settings) -> Task:
    rows = [{"query": f"q{i}" * (i % 3 + 1), "target": f"t{i}", "negatives": ["n"] * (i % 4)} for i in range(count)]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Task(name, JsonLines(str(path), FIELDS, optional=("negatives",), **settings))


class Local:
    """Helpers that are threads, or are run before the first part is read."""

    def __init__(self, mixture, cache_dir, count: int, at_once: bool = False):
        self.count, self._given, self._at_once = count, (mixture, Letters(), FEATURES, cache_dir), at_once
        self.errors: dict[int, BaseException] = {}
        self._has_started = False

    def start(self) -> None:
        if self._has_started:
            return
        self._has_started = True
        threads = [threading.Thread(target=self._run, args=(index,)) for index in reversed(range(self.count))]
        for thread in threads:
            thread.start()
            if not self._at_once:
                thread.join()

    def _run(self, index: int) -> None:
        try:
            parts.encode(*self._given, index, self.count)
        except BaseException as e:
            self.errors[index] = e

    def check(self, index: int) -> bool:
        if index in self.errors:
            raise self.errors[index]
        return not self._at_once


def prepared(task, cache_dir, helpers=None):
    return prepare.ensure_caches(
        Mixture("m", [task]), Letters(), FEATURES, cache_dir, lambda line: None, helpers=helpers
    )[0]


@pytest.mark.parametrize("size", [5, 8, 30])
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_any_number_of_processes_writes_the_same(tmp_path, size, count):
    task = task_of(tmp_path, size)
    whole = prepared(task, tmp_path / "a")
    helpers = Local(Mixture("m", [task]), tmp_path / "b", count, at_once=True)
    shared = prepared(task, tmp_path / "b", helpers)
    assert corruption.contents(shared.folder) == corruption.contents(whole.folder)
    assert not [p for p in (tmp_path / "b").iterdir() if p.name.endswith(".parts")]


def test_a_task_of_one_part_is_prepared_by_one(tmp_path):
    class Unwanted:
        count = 2

        def start(self):
            pytest.fail("helpers were started")

    assert len(prepared(task_of(tmp_path, 4), tmp_path / "c", Unwanted())) == 4
    skipping = task_of(tmp_path, 30, "bad", on_bad_record="skip")
    assert len(prepared(skipping, tmp_path / "c", Unwanted())) == 30


def test_parts_that_are_there_are_not_made_again(tmp_path, small, monkeypatch):
    task = task_of(tmp_path, 30)
    mixture = Mixture("m", [task])
    whole = prepared(task, tmp_path / "a")
    write, written = parts.digests.write_sealed, []

    def stop_after(limit):
        def write_sealed(path, value):
            if len(written) == limit:
                raise Stop
            written.append(value["number"])
            return write(path, value)

        monkeypatch.setattr(parts.digests, "write_sealed", write_sealed)

    for limit in (2, 5):
        stop_after(limit)
        with pytest.raises(Stop):
            prepared(task, tmp_path / "b", Local(mixture, tmp_path / "b", 2))
    stop_after(99)
    small.clear()
    shared = prepared(task, tmp_path / "b", Local(mixture, tmp_path / "b", 3))  # another number of processes
    assert corruption.contents(shared.folder) == corruption.contents(whole.folder)
    assert sorted(written) == list(range(8))
    assert len(small) == sum(2 if number == 7 else 4 for number in written[5:])  # the last part has two records


@pytest.mark.parametrize("name", ["part-000001.records", "part-000001.json"])
@pytest.mark.parametrize("damage", ["cut", "removed", "changed"])
def test_a_damaged_part_is_made_again(tmp_path, name, damage):
    task = task_of(tmp_path, 30)
    mixture, whole = Mixture("m", [task]), prepared(task, tmp_path / "a")
    folder = parts.folder_of(cache.folder_of(task, Letters(), FEATURES, tmp_path / "b"))
    for index in range(2):
        parts.encode(mixture, Letters(), FEATURES, tmp_path / "b", index, 2)
    content = (folder / name).read_bytes()
    if damage == "removed":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content[:-3] if damage == "cut" else content[:-3] + b"abc")
    shared = prepared(task, tmp_path / "b", Local(mixture, tmp_path / "b", 2, at_once=True))
    assert corruption.contents(shared.folder) == corruption.contents(whole.folder)


def test_a_part_that_nobody_makes_again_is_an_error(tmp_path):
    task = task_of(tmp_path, 30)
    folder = parts.folder_of(cache.folder_of(task, Letters(), FEATURES, tmp_path / "b"))
    for index in range(2):
        parts.encode(Mixture("m", [task]), Letters(), FEATURES, tmp_path / "b", index, 2)
    (folder / "part-000003.records").unlink()
    with pytest.raises(DataError, match="part-000003.records: is missing or damaged, and part-000003.json is there"):
        list(parts.examples(folder, 2, lambda index: True))


def test_processes_may_be_tasks_ahead(tmp_path):
    tasks = [task_of(tmp_path, size, name) for name, size in (("a", 30), ("b", 4), ("c", 9))]
    mixture = Mixture("m", tasks)
    given = (Letters(), FEATURES, tmp_path / "x", lambda line: None)
    for marker in ("done-0-of-2", "done-1-of-2"):  # of a preparation before
        folder = parts.folder_of(cache.folder_of(tasks[2], Letters(), FEATURES, tmp_path / "x"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / marker).touch()
    caches = prepare.ensure_caches(mixture, *given, helpers=Local(mixture, tmp_path / "x", 2))
    assert list(map(len, caches)) == [30, 4, 9]


def test_a_process_that_ends_without_its_parts_is_an_error(tmp_path):
    class Idle(Local):
        def _run(self, index: int) -> None:
            """Ends."""

    task = task_of(tmp_path, 30)
    with pytest.raises(DataError, match="done-0-of-2: its process has ended without writing it"):
        prepared(task, tmp_path / "b", Idle(Mixture("m", [task]), tmp_path / "b", 2))


def test_the_first_bad_record_is_named_as_one_process_names_it(tmp_path):
    task = task_of(tmp_path, 30)
    path = tmp_path / "t.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[13], lines[21] = '{"query": "a", "target": " "}\n', '{"query": "a"}\n'
    path.write_text("".join(lines))
    errors = []
    for helpers in (None, Local(Mixture("m", [task]), tmp_path / "c", 3)):
        with pytest.raises(DataError) as refused:
            prepared(task, tmp_path / "c", helpers)
        errors.append(str(refused.value))
    assert errors[0] == errors[1] and "t.jsonl:14" in errors[0]


def test_a_source_that_changes_meanwhile_is_an_error(tmp_path, monkeypatch):
    task = task_of(tmp_path, 6)
    examples = seqio_tasks.examples

    def changing(*given):
        yield from examples(*given)
        task_of(tmp_path, 7)

    monkeypatch.setattr(seqio_tasks, "examples", changing)
    with pytest.raises(DataError, match="task 't': its source changed while it was read"):
        prepared(task, tmp_path / "c")
    assert not list((tmp_path / "c").glob("t-*"))


def test_a_part_of_a_source_that_has_changed_is_not_written(tmp_path, monkeypatch):
    """Put back afterwards, the source has the fingerprint that the parts go by."""
    task, path = task_of(tmp_path, 12), tmp_path / "t.jsonl"
    before, examples = path.read_text(), seqio_tasks.examples

    def changing(*given):
        for number, row in enumerate(examples(*given)):
            if number == 5:
                path.write_text(before.replace("t9", "other"))
            yield row

    monkeypatch.setattr(seqio_tasks, "examples", changing)
    helpers = Local(Mixture("m", [task]), tmp_path / "c", 1)
    with pytest.raises(DataError, match=f"task 't': {path} changed while it was read; run the command again"):
        prepared(task, tmp_path / "c", helpers)
    monkeypatch.setattr(seqio_tasks, "examples", examples)
    path.write_text(before)
    cached = prepared(task, tmp_path / "c", Local(Mixture("m", [task]), tmp_path / "c", 1))
    assert cached.digest == prepared(task_of(tmp_path, 12), tmp_path / "whole").digest
