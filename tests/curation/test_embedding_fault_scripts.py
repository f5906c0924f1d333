"""`embed encode --endpoint` against servers that fail at random: budgets, exit codes, secrecy and vectors hold in every run."""

import collections
import dataclasses
import json
import random
import shutil

import numpy as np
import pytest
from embedding_faults import ALL, BILLED_HERE, RIGHT, EmbeddingServer, expected
from fault_scripts import InProcess, Outcome, check_secrecy, open_keys
from fault_server import FINAL, FREE, REFUSED, SLOW

from embed.inference import bulk
from embed.workflows.encode_endpoint import LEDGER

SCRIPTS, QUICK_SCRIPTS = 500, 25
NAMES = [*FREE, *BILLED_HERE, *RIGHT, *REFUSED]


@dataclasses.dataclass
class Script:
    """What one seed stands for: texts, options, the faults of the first requests, and when the client is killed."""

    seed: int
    texts: list[str]
    faults: list[str]
    kills: list[int | None]
    key: str
    options: dict[str, float]

    @classmethod
    def draw(cls, seed: int) -> "Script":
        choose = random.Random(seed)
        texts = [f"{choose.choice(['red', 'green', 'small'])} {i}" for i in range(choose.randint(1, 14))]
        options = {
            "batch_size": choose.choice([1, 2, 3, 5]),
            "shard_size": choose.choice([2, 4, 100]),
            "concurrency": choose.choice([1, 1, 2, 4]),
            "attempts": choose.choice([1, 2, 3, 8]),
            "max_requests": choose.randint(1, 15),
        }
        if choose.random() < 0.3:
            options["max_tokens"] = choose.randint(100, 1500)
        faults = _faults(choose)
        options["deadline"] = 0.4 if any(fault in SLOW for fault in faults) else 60
        share = choose.choice([0.0, 0.7])
        kills = [choose.randint(1, 9) if choose.random() < share else None for _ in range(2)]
        key = "".join(choose.choice('abcXYZ0189-_/+="\\%$') for _ in range(choose.randint(8, 40)))
        return cls(seed, texts, faults, kills, key, options)


def _faults(choose: random.Random) -> list[str]:
    share = choose.choice([0.0, 0.2, 0.5, 0.9, 1.0])
    kinds = choose.choice([NAMES, NAMES, [choose.choice(NAMES)], [*FREE], [*BILLED_HERE], [*RIGHT]])
    faults = [choose.choice(kinds) if choose.random() < share else "ok" for _ in range(choose.randint(0, 25))]
    if faults and choose.random() < 0.2:
        faults[choose.randrange(len(faults))] = choose.choice([*FINAL])
    if faults and choose.random() < 0.03:
        faults[choose.randrange(len(faults))] = choose.choice([*SLOW])
    return faults


def arguments(script: Script, server, folder, **changed) -> list[str]:
    options = {**script.options, **changed}
    return [
        "encode", f"--input={folder / 'texts.jsonl'}", f"--output={folder / 'out'}", "--format=npy", f"--endpoint={server.url}",
        "--model=tiny", "--first_wait=0.001", *(f"--{name}={value}" for name, value in options.items() if value is not None),
    ]  # fmt: skip


def play(script: Script, server: EmbeddingServer, folder, run: InProcess) -> collections.Counter:
    """Runs a script to its end and holds each run against what the server saw; counts exit codes and faults."""
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in script.texts))
    server.begin(script.faults, script.key)
    counts: collections.Counter = collections.Counter()
    unknown: set[str] = set()
    for kill_at in [*script.kills, "heal"]:
        healing = kill_at == "heal"
        changed = {"max_requests": server.received + 100, "max_tokens": None, "deadline": 60} if healing else {}
        if healing:
            server.script.clear()
        before = len(server.log)
        outcome = run(arguments(script, server, folder, **changed), folder, script.key, None if healing else kill_at)
        check(script, server, folder, outcome, before, {**script.options, **changed}, unknown)
        unknown |= open_keys(folder / "out" / LEDGER)
        counts[f"exit {outcome.code}"] += 1
    assert outcome.code == 0, outcome
    ids, vectors = bulk.read(folder / "out")
    assert ids == [str(i) for i in range(len(script.texts))]
    np.testing.assert_array_equal(vectors, expected(script.texts))
    received = server.received
    assert run(arguments(script, server, folder, max_requests=1), folder, script.key, None).code == 0
    assert server.received == received, "a finished job asks nothing"
    counts.update(fault for _, fault in server.log)
    return counts


def check(script: Script, server, folder, outcome: Outcome, before: int, options, unknown: set[str]) -> None:
    shown = (script, outcome, server.log)
    assert server.received <= options["max_requests"], shown
    assert options.get("max_tokens") is None or server.tokens <= options["max_tokens"], shown
    assert server.strayed == 0, shown
    check_secrecy(script, folder, outcome)
    answered = collections.Counter(key for key, fault in server.log if fault in RIGHT)
    late = script.options["deadline"] < 1  # on a busy machine a reply can come too late to be one
    assert {key for key, count in answered.items() if count > 1} <= unknown or late, shown
    if outcome.code is None:
        return
    lines = outcome.errors.strip().splitlines()
    assert len(lines) == (outcome.code != 0) and "Traceback" not in outcome.errors, shown
    now = [fault for _, fault in server.log[before:]]
    if all(fault in RIGHT for fault in now):
        # The budget ends a run well, unless earlier runs have spent it on failures.
        failed = any(fault not in RIGHT for _, fault in server.log[:before])
        assert outcome.code in ((0, 75, 69) if failed else (0, 75)), shown
    else:
        assert outcome.code in (0, 69, 75), shown
    if any(fault in FINAL for fault in now) and options["concurrency"] == 1:
        assert outcome.code == 69, shown


@pytest.fixture
def embedding_server():
    server = EmbeddingServer()
    yield server
    server.close()


def play_all(seeds, server, folder, run) -> collections.Counter:
    counts: collections.Counter = collections.Counter()
    for seed in seeds:
        work = folder / str(seed)
        work.mkdir()
        counts += play(Script.draw(seed), server, work, run)
        shutil.rmtree(work)
    print(dict(sorted(counts.items())))
    return counts


@pytest.mark.slow
def test_some_scripts(monkeypatch, embedding_server, tmp_path):
    counts = play_all(range(QUICK_SCRIPTS), embedding_server, tmp_path, InProcess(monkeypatch))
    assert min(counts[f"exit {code}"] for code in (0, 69, 75, None)) > 2, counts


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_hundred_scripts(monkeypatch, embedding_server, tmp_path):
    counts = play_all(range(SCRIPTS), embedding_server, tmp_path, InProcess(monkeypatch))
    assert min(counts[f"exit {code}"] for code in (0, 69, 75, None)) > 50, counts
    assert not ALL.keys() - counts.keys(), "every fault was met"
