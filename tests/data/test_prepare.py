"""Preparing a mixture without tensorflow: the vocabulary and its texts, which caches are written, and what is said."""

import dataclasses
import functools
import json

import pytest
from encoded_pairs import Letters

from embed.data import cache, prepare, records, seqio_tasks, tasks
from embed.data.record_encoder import RecordEncoder
from embed.data.tasks import Mixture, RegisteredTask, Task
from embed.data.text_features import Lengths, pairs
from embed.data.tokenizers import HuggingFace, SentencePiece
from embed.errors import ConfigError, DataError
from embed.sources.record_files import JsonLines

FEATURES = pairs(Lengths(6, 9), 2)


def file_task(folder, name, rows, **settings):
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {name: name for name in ("query", "target", "negatives", "title")}
    return Task(name, JsonLines(str(path), fields, optional=("negatives", "title")), **settings)


def letters(name, count):
    return [{"query": f"{name}{i}", "target": f"{name.upper()}{i}", "negatives": ["no"]} for i in range(count)]


# Vocabularies.


@pytest.fixture
def trained_on(monkeypatch):
    """The texts of vocabularies that are trained, whose content is then b'pieces'."""
    seen = []

    def train(texts, size, sentinels):
        assert sentinels == []
        seen.append((size, list(texts)))
        return b"pieces"

    monkeypatch.setattr(prepare, "train_sentencepiece", train)
    return seen


def test_texts_come_with_their_prompts_and_titles_tasks_in_turn(tmp_path, trained_on):
    own = [{"query": "q", "target": "t", "title": "T", "negatives": ["no"]}, {"query": "r", "target": "u"}]
    mixture = Mixture(
        "m",
        [
            file_task(tmp_path, "a", letters("a", 3), query_prompt="ask: {content}", target_prompt="none"),
            file_task(tmp_path, "b", own, query_prompt="none", target_prompt="{title} | {content}"),
        ],
    )
    said, path = [], tmp_path / "below" / "vocabulary.model"
    prepare.ensure_vocabulary(SentencePiece(str(path), train_vocab_size=99), mixture, FEATURES, said.append)
    first = [(f"ask: a{i}", f"A{i}") for i in range(3)]
    second = [("q", "T | t"), ("r", "none | u")]
    in_turn = [first[0], second[0], first[1], second[1], first[2]]
    assert trained_on == [(99, [text for both in in_turn for text in both])]
    assert path.read_bytes() == b"pieces"
    assert said == [
        "vocabulary: training 99 pieces on mixture 'm'",
        f"vocabulary: wrote {path} (0.00 MB)",
    ]


def test_of_much_text_the_beginning_is_enough(tmp_path, trained_on, monkeypatch):
    monkeypatch.setattr(prepare, "_VOCABULARY_CHARACTERS", 20)
    monkeypatch.setattr(prepare, "_VOCABULARY_TEXT", 4)
    rows = [{"query": "abcdefgh", "target": "x"} for _ in range(9)]
    task = file_task(tmp_path, "a", rows, query_prompt="none", target_prompt="none")
    prepare.ensure_vocabulary(SentencePiece(str(tmp_path / "v"), train_vocab_size=9), Mixture("m", [task]), FEATURES)
    assert trained_on == [(9, ["abcd", "x"] * 5)]  # 25 characters: the first count above 20


def test_sentinels_are_pieces_of_a_vocabulary_that_is_trained(tmp_path):
    rows = [{"query": f"some words {i}", "target": "of a text"} for i in range(60)]
    mixture, path = Mixture("m", [file_task(tmp_path, "a", rows)]), str(tmp_path / "v")
    with pytest.raises(
        ConfigError, match="train_sentinels = 2 has no effect without train_vocab_size; give both or none"
    ):
        prepare.ensure_vocabulary(SentencePiece(path, train_sentinels=2), mixture, FEATURES)
    trained = SentencePiece(path, train_vocab_size=297, train_sentinels=2)
    prepare.ensure_vocabulary(trained, mixture, FEATURES, lambda line: None)
    ids = [trained.token_id(f"<unused{i}>") for i in range(3)]
    assert None not in ids[:2] and ids[2] is None and ids[0] != ids[1]


@pytest.mark.parametrize("kind", ["another tokenizer", "no size"])
def test_nothing_is_trained_without_being_asked_for(tmp_path, trained_on, kind):
    path = str(tmp_path / "vocabulary")
    made = HuggingFace(path) if kind == "another tokenizer" else SentencePiece(path)
    prepare.ensure_vocabulary(made, Mixture("m", [RegisteredTask("t", "none")]), FEATURES, pytest.fail)
    assert trained_on == [] and list(tmp_path.iterdir()) == []


def test_a_vocabulary_that_is_there_is_kept_and_must_have_the_size(tmp_path, trained_on, monkeypatch):
    monkeypatch.setattr(SentencePiece, "vocab_size", 40)
    path = tmp_path / "vocabulary"
    path.write_bytes(b"mine")
    mixture = Mixture("m", [RegisteredTask("t", "none")])
    prepare.ensure_vocabulary(SentencePiece(str(path), train_vocab_size=40), mixture, FEATURES, pytest.fail)
    for size in (30, 50):
        with pytest.raises(ConfigError) as caught:
            prepare.ensure_vocabulary(SentencePiece(str(path), train_vocab_size=size), mixture, FEATURES)
        assert str(caught.value) == (
            f"{path}: has 40 pieces, but SentencePiece.train_vocab_size = {size}; remove the file to train it anew, or give its "
            "size"
        )
    assert trained_on == [] and path.read_bytes() == b"mine"


def test_a_task_without_texts_of_its_own_trains_no_vocabulary(tmp_path):
    with pytest.raises(DataError, match="task 't': a vocabulary cannot be trained on it; give an existing vocabulary"):
        prepare.ensure_vocabulary(
            SentencePiece(str(tmp_path / "v"), train_vocab_size=40), Mixture("m", [RegisteredTask("t", "x")]), FEATURES
        )
    assert not (tmp_path / "v").exists()


def test_an_error_of_a_source_is_what_the_user_sees_not_one_of_the_trainer(tmp_path):
    """SentencePiece's own trainer, which hides what its iterator raises."""
    task = file_task(tmp_path, "a", [*letters("a", 2), {"query": "x"}])
    with pytest.raises(DataError, match=r"a.jsonl:3: no field 'target'"):
        prepare.ensure_vocabulary(
            SentencePiece(str(tmp_path / "v"), train_vocab_size=40), Mixture("m", [task]), FEATURES
        )
    few = file_task(tmp_path, "few", letters("a", 2))
    with pytest.raises(DataError, match="vocab"):  # the trainer's own: too few texts for this many pieces
        prepare.ensure_vocabulary(
            SentencePiece(str(tmp_path / "v"), train_vocab_size=40_000), Mixture("m", [few]), FEATURES
        )
    assert not (tmp_path / "v").exists()


# Caches.


@pytest.fixture
def encoded(monkeypatch):
    """The names of the tasks that were encoded, by our own encoder in the place of seqio."""
    names = []

    def examples(task, tokenizer, features):
        names.append(task.name)
        encoder = RecordEncoder(features, tokenizer, task.query_prompt, task.target_prompt)
        rows = encoder([record for _, record in task.source.examples()])
        yield from (records.pack(row, seqio_tasks.written_fields(features)) for row in rows)

    monkeypatch.setattr(seqio_tasks, "examples", examples)
    return names


def test_only_what_is_missing_is_prepared_and_the_order_is_that_of_the_mixture(tmp_path, encoded):
    one, two = (file_task(tmp_path, name, letters(name, count)) for name, count in (("one", 3), ("two", 5)))
    said, folder = [], tmp_path / "caches"
    prepare.ensure_caches(Mixture("m", [two]), Letters(), FEATURES, folder, said.append)
    made = prepare.ensure_caches(Mixture("m", [one, two]), Letters(), FEATURES, folder, said.append)
    assert encoded == ["two", "one"]
    assert [(c.name, len(c)) for c in made] == [("one", 3), ("two", 5)]
    assert [line.partition(":")[2] for line in said if "preparing" in line] == [" preparing its cache"] * 2
    assert sum("5 examples, " in line for line in said) == 2
    assert not [p for p in folder.iterdir() if p.name.endswith(".preparing")]


@dataclasses.dataclass(frozen=True)
class Fetched(JsonLines):
    """A source that counts how often it fetches."""

    counts: list = dataclasses.field(default_factory=list, metadata={"is_described": False})

    def fetch(self, say):
        self.counts.append(1)


def test_sources_fetch_before_they_are_read_and_otherwise_where_that_is_asked_for(tmp_path, encoded):
    task = file_task(tmp_path, "one", letters("a", 3))
    source = Fetched(*(getattr(task.source, field.name) for field in dataclasses.fields(task.source)))
    mixture = Mixture("m", [dataclasses.replace(task, source=source)])
    ensure = functools.partial(prepare.ensure_caches, mixture, Letters(), FEATURES, tmp_path / "caches", encoded.append)
    ensure()
    assert len(source.counts) == 1
    ensure()
    assert len(source.counts) == 1  # the cache is there: nothing is fetched
    ensure(fetches=True)
    assert len(source.counts) == 2


def test_a_failed_preparation_leaves_no_cache(tmp_path, encoded):
    task = file_task(tmp_path, "one", [*letters("a", 3), {"query": "a"}])
    with pytest.raises(DataError, match="one.jsonl:4: no field 'target'"):
        prepare.ensure_caches(Mixture("m", [task]), Letters(), FEATURES, tmp_path / "c", lambda line: None)
    assert encoded == ["one"] and list((tmp_path / "c").iterdir()) == []


def test_a_wrong_mixture_is_refused_before_anything_is_done(tmp_path, encoded):
    task = file_task(tmp_path, "one", letters("a", 2))
    with pytest.raises(ConfigError, match="two tasks called 'one'"):
        prepare.ensure_caches(Mixture("m", [task, task]), Letters(), FEATURES, tmp_path / "caches", pytest.fail)
    assert encoded == [] and not (tmp_path / "caches").exists()


def test_a_cache_of_an_older_version_is_named_and_prepared_again(tmp_path, encoded, monkeypatch):
    task, said = file_task(tmp_path, "one", letters("a", 2)), []
    with monkeypatch.context() as older:
        older.setattr(tasks, "CACHE_FORMAT", tasks.CACHE_FORMAT - 1)
        (old,) = prepare.ensure_caches(Mixture("m", [task]), Letters(), FEATURES, tmp_path / "c", lambda line: None)
    (new,) = prepare.ensure_caches(Mixture("m", [task]), Letters(), FEATURES, tmp_path / "c", said.append)
    assert encoded == ["one", "one"] and new.folder != old.folder
    assert said[0] == (
        f"task 'one': {old.folder} is of an older version of embed, and is prepared again; nothing reads it any more"
    )


def test_a_cache_that_another_run_wrote_meanwhile_is_taken(tmp_path, encoded, monkeypatch):
    """Looked for again once the lock is held."""
    mixture = Mixture("m", [file_task(tmp_path, "one", letters("a", 2))])
    prepare.ensure_caches(mixture, Letters(), FEATURES, tmp_path / "c", lambda line: None)
    found, looked = cache.find, []

    def late(*arguments):
        looked.append(arguments)
        return None if len(looked) == 1 else found(*arguments)

    monkeypatch.setattr(cache, "find", late)
    (made,) = prepare.ensure_caches(mixture, Letters(), FEATURES, tmp_path / "c", lambda line: None)
    assert len(made) == 2 and encoded == ["one"] and len(looked) == 2


def test_every_ten_thousandth_example_is_told(tmp_path, encoded, monkeypatch):
    def write(task, tokenizer, features, cache_dir, rows, report):
        for count in (1000, 10_000, 15_000, 20_000):
            report(count)
        return found

    task, said = file_task(tmp_path, "one", letters("a", 1)), []
    (found,) = prepare.ensure_caches(Mixture("m", [task]), Letters(), FEATURES, tmp_path / "a", lambda line: None)
    monkeypatch.setattr(cache, "write", write)
    prepare.ensure_caches(Mixture("m", [task]), Letters(), FEATURES, tmp_path / "b", said.append)
    assert [line.partition(" examples, ")[0] for line in said[1:-1]] == ["task 'one': 10,000", "task 'one': 20,000"]
    assert all(line.endswith(" a second") for line in said[1:-1])


# What is said of a cache.


def manifest(**changes):
    return {
        "task": "t",
        "records": 8,
        "texts": {"query": 8, "target": 8, "negatives": 0},
        "tokens": {"query": 42, "target": 80, "negatives": 0},
        "truncated": {"query": 0, "target": 0, "negatives": 0},
        "left_out": {"negatives": 0},
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "task 't': 8 examples, 5 query + 10 target tokens on average, none truncated"),
        (
            {"truncated": {"query": 2, "target": 8, "negatives": 0}},
            "task 't': 8 examples, 5 query + 10 target tokens on average, 25.0% of query texts truncated, 100.0% of target texts "
            "truncated",
        ),
        (
            {"left_out": {"negatives": 1234}, "bad_records": {"skipped": 2000, "first": ["a:1: bad", "a:2: bad"]}},
            "task 't': 8 examples, 5 query + 10 target tokens on average, none truncated, 1,234 negatives are positives of their "
            "query and are left out, 2,000 bad records are left out, such as a:1: bad",
        ),
        ({"texts": {}, "tokens": {}, "truncated": {}, "left_out": {}}, "task 't': 8 examples"),
    ],
)
def test_the_line_of_a_cache_by_hand(tmp_path, changes, line):
    assert prepare.summary(cache.Cache(tmp_path, manifest(**changes))) == line
