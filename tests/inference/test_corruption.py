"""Damage to what `embed encode` and `embed mine` write: found by readers, and made again when the command is run again."""

import json
import pathlib
import types

import corruption
import numpy as np
import pytest

from embed.curation.negatives import Rule
from embed.inference import bulk
from embed.sources.input_texts import Text
from embed.text import PROMPTS, content_id
from embed.workflows import mine as mining

SIZE = 16
TEXTS = [Text(f"id {i} é", f"text {i}", "", f"in:{i}") for i in range(17)]


def vectors_of(texts, *rest, **options) -> np.ndarray:
    rows = [np.random.default_rng(abs(int(content_id(getattr(t, "text", t))))).normal(size=SIZE) for t in texts]
    return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


class Stop(BaseException):
    """Stands for a kill."""


# encode


def encode(folder: pathlib.Path, format: str, precision: str, prompt: str = "a", shards: int = 99) -> None:
    """Encodes the texts as the command does; stops like a kill after some shards."""
    job = bulk.Job(folder, format, precision, 6, bulk.scan(lambda: TEXTS, 6), {"prompt": prompt})
    job.begin()
    left = [shards]

    def encoded(shard):
        if not left[0]:
            raise Stop
        left[0] -= 1
        return vectors_of([prompt + t.text for t in shard]), 1

    bulk.run(job, TEXTS, encoded)
    bulk.finish(job, 0.0)


def read_vectors(folder: pathlib.Path) -> tuple:
    ids, vectors = bulk.read(folder)
    return ids, str(vectors.dtype), vectors.shape, vectors.tobytes()


def encode_cases(folder: pathlib.Path) -> list[corruption.Case]:
    cases = []
    for format in bulk.FORMATS:
        for precision in bulk.PRECISIONS:
            name = f"{format}-{precision}"
            paths = {part: folder / f"{name}-{part}" for part in ("whole", "half", "other")}
            encode(paths["whole"], format, precision)
            encode(paths["other"], format, precision, "b")
            with pytest.raises(Stop):
                encode(paths["half"], format, precision, shards=2)
            remake = lambda work, f=format, p=precision: encode(work, f, p)  # noqa: E731
            shared = (paths["whole"], remake)
            volatile = {"other": paths["other"], "volatile": ("seconds", "digest")}
            cases.append(corruption.Case(f"{name} finished", paths["whole"], *shared, read_vectors, **volatile))
            cases.append(corruption.Case(f"{name} stopped", paths["half"], *shared, **volatile))
    return cases


# mine


def write_pairs(folder: pathlib.Path) -> list[str]:
    folder.mkdir()
    for name, first in (("one", 0), ("two", 30)):
        rows = [{"query": f"query {i // 2}", "positive": f"answer {i}"} for i in range(first, first + 40)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(folder / "one.jsonl"), str(folder / "two.jsonl")]


def mine(output: pathlib.Path, pairs: list[str], negatives: int = 2) -> None:
    """Mines as the command does, with a model whose vectors are drawn."""
    model = types.SimpleNamespace(digest="m", max_length=8, prompts=dict(PROMPTS), encode=vectors_of)
    fields = {"query": "query", "target": "positive", "negatives": "negative"}
    prompts = {"query": "query", "target": "document"}
    mining.Job(output, model, Rule(negatives, last=10, ceiling=None), fields, prompts, False, tuple(pairs)).run()


def mine_cases(folder: pathlib.Path, monkeypatch) -> list[corruption.Case]:
    pairs = write_pairs(folder / "pairs")
    whole, half, other = (folder / f"mined-{part}" for part in ("whole", "half", "other"))
    mine(whole, pairs)
    with monkeypatch.context() as patch:
        patch.setattr(mining.Job, "_write", lambda *_: (_ for _ in ()).throw(Stop))
        for output, given in ((half, pairs), (other, pairs[::-1][:1])):
            with pytest.raises(Stop):
                mine(output, given)
    other_finished = folder / "mined-other-finished"
    mine(other_finished, pairs, negatives=1)
    remake = lambda work: mine(work, pairs)  # noqa: E731
    return [
        corruption.Case("mine finished", whole, whole, remake, other=other_finished),
        corruption.Case("mine stopped", half, whole, remake, other=other),
    ]


def all_cases(folder: pathlib.Path, monkeypatch) -> list[corruption.Case]:
    return encode_cases(folder) + 5 * mine_cases(folder, monkeypatch)


def check(counts) -> None:
    """Every outcome comes about; a trial that ends otherwise has failed before."""
    print(dict(counts))
    assert min(counts[outcome] for outcome in (corruption.REFUSED, corruption.REMADE)) > 0.1 * counts.total()
    assert counts[corruption.UNCHANGED] < 0.2 * counts.total()


@pytest.mark.slow
def test_no_damage_is_silent_and_none_is_a_raw_exception(tmp_path, monkeypatch):
    check(corruption.trials(all_cases(tmp_path, monkeypatch), tmp_path / "work", 50))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 5_000, 1000))
def test_none_of_a_thousand_damages_is_silent(tmp_path, monkeypatch, seed):
    check(corruption.trials(all_cases(tmp_path, monkeypatch), tmp_path / "work", 100, seed))


def test_the_harness_finds_a_silent_change(tmp_path):
    """A reader that verifies nothing fails it, and so does a command that raises what is no error of ours."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "values.txt").write_text("0123456789" * 9)
    read = lambda folder: [p.read_bytes() for p in sorted(folder.iterdir())]  # noqa: E731
    case = corruption.Case("plain", tmp_path / "whole", tmp_path / "whole", lambda folder: None, read)
    with pytest.raises(AssertionError, match="plain, seed .* a changed value was returned"):
        corruption.trials([case], tmp_path / "work", 20)
    kept = corruption.Case("plain", tmp_path / "whole", tmp_path / "whole", lambda folder: None)
    with pytest.raises(AssertionError, match="a changed file was kept"):
        corruption.trials([kept], tmp_path / "work", 20)
    broken = corruption.Case("plain", tmp_path / "whole", tmp_path / "whole", lambda folder: {}["x"])
    with pytest.raises(AssertionError, match="raw KeyError"):
        corruption.trials([broken], tmp_path / "work", 1)
