"""Scripts of faults drawn from a seed, and `embed curate` run against them in this process or as a user runs it."""

import collections
import contextlib
import dataclasses
import functools
import gzip
import io
import json
import os
import pathlib
import random
import re
import shutil
import signal
import ssl
import subprocess
import sys

from fault_model import Model
from fault_server import BILLED, FINAL, FREE, REFUSED, RIGHT, SLOW, WRONG, FaultServer, right_answer

from embed import documents, files
from embed.commands.main import main
from embed.curation import sending

WORDS = ["red", "green", "river", "stone", "engine", "paper", "winter", "quick", "cloud", "small"]
VARIABLE = "EMBED_API_KEY"
NAMES = [*FREE, *BILLED, *WRONG, *RIGHT, *REFUSED]  # drawn often; what ends a job or takes long, seldom


@dataclasses.dataclass
class Script:
    """What one seed stands for: a job, its options, the faults of its first requests, and when the client is killed."""

    seed: int
    what: str
    items: list[dict]
    faults: list[str]
    kills: list[int | None]
    key: str
    options: dict[str, float]
    debug: bool

    @classmethod
    def draw(cls, seed: int) -> "Script":
        choose = random.Random(seed)
        what = choose.choice(["queries", "filter"])
        passages = [f"{' '.join(choose.choice(WORDS) for _ in range(8))} {i}" for i in range(choose.randint(2, 6))]
        if what == "queries":
            items = [{"text": text} for text in passages]
        else:
            items = [
                {"query": f"of {p}", "positive": p, "negative": [f"no {n} {p}" for n in range(2)]} for p in passages
            ]
        options = {
            "concurrency": choose.choice([1, 1, 2, 4]),
            "attempts": choose.choice([1, 2, 3, 5, 8]),
            "max_requests": choose.randint(1, 20),
        }
        if choose.random() < 0.3:
            options["max_tokens"] = choose.randint(500, 12_000)
        faults = _faults(choose)
        slow = any(fault in SLOW for fault in faults)
        options["deadline"] = 0.4 if slow else 60
        share = choose.choice([0.0, 0.7])
        kills = [choose.randint(1, 12) if choose.random() < share else None for _ in range(3)]
        key = "".join(choose.choice('abcXYZ0189-_/+="\\%$') for _ in range(choose.randint(8, 40)))
        return cls(seed, what, items, faults, kills, key, options, choose.random() < 0.3)


def _faults(choose: random.Random) -> list[str]:
    share = choose.choice([0.0, 0.2, 0.5, 0.9, 1.0])
    kinds = choose.choice([NAMES, NAMES, [choose.choice(NAMES)], [*FREE], [*BILLED], [*WRONG], [*RIGHT]])
    faults = [choose.choice(kinds) if choose.random() < share else "ok" for _ in range(choose.randint(0, 40))]
    if faults and choose.random() < 0.25:
        faults[choose.randrange(len(faults))] = choose.choice([*FINAL])
    if faults and choose.random() < 0.03:
        faults[choose.randrange(len(faults))] = choose.choice([*SLOW])
    return faults


def model_of(script: Script) -> Model:
    texts = [item["text"] for item in script.items if "text" in item]
    return Model(texts, script.options["attempts"], collections.deque(script.faults))


def follows_model(script: Script) -> bool:
    """Returns whether all that a script leads to is known beforehand."""
    alone = script.what == "queries" and script.options["concurrency"] == 1 and "max_tokens" not in script.options
    return alone and not any(script.kills) and not any(fault in SLOW for fault in script.faults)


class Killed(BaseException):
    """Stands for SIGKILL inside one process."""


@dataclasses.dataclass
class Outcome:
    code: int | None  # None: killed
    output: str
    errors: str


def undisturbed_rows(script: Script) -> list[tuple]:
    """Returns what identifies the rows of a run without faults, by the rule of the server, in order."""

    def ask(kind: str, *texts: str) -> dict:
        user = "".join(f"<text 0>\n{text}\n</text 0>" for text in texts)
        schema = {"json_schema": {"name": kind}}
        return right_answer({"messages": [{"content": ""}, {"content": user}], "response_format": schema})

    rows = []
    for item in script.items:
        if script.what == "queries":
            query = ask("query", item["text"])["query"]
            if ask("rate_query", query, item["text"])["rating"] >= 4:
                rows.append((query, item["text"]))
        else:
            grades = [ask("grade", item["query"], t)["grade"] for t in (item["positive"], *item["negative"])]
            kept = tuple(n for n, grade in zip(item["negative"], grades[1:]) if grade < 2)
            if grades[0] >= 2:
                rows.append((item["query"], item["positive"], kept))
    return rows


def read_rows(script: Script, folder: pathlib.Path) -> list[tuple] | None:
    """Returns what identifies the rows that were written, None where there are none."""
    path = folder / "rows.jsonl.gz"
    if not path.is_file():
        return None
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    if script.what == "queries":
        return [(row["query"], row["positive"]) for row in rows]
    return [(row["query"], row["positive"], tuple(row["negative"])) for row in rows]


def arguments(script: Script, server: FaultServer, folder: pathlib.Path, **changed) -> list[str]:
    """Returns the command line of a script in a folder that holds its input."""
    options = {**script.options, **changed}
    debug = ["--debug"] if script.debug else []
    return [
        "curate",
        script.what,
        f"--input={folder / 'input.jsonl'}",
        f"--output={folder / 'out'}",
        f"--endpoint={server.url}",
        "--model=tiny",
        "--first_wait=0.001",
        *(f"--{name}={value}" for name, value in options.items() if value is not None),
        *debug,
    ]


def write_input(script: Script, folder: pathlib.Path) -> None:
    (folder / "input.jsonl").write_text("".join(json.dumps(item) + "\n" for item in script.items))


class InProcess:
    """Runs the command in this process. A kill copies the output at that moment, lets nothing more out, and puts the copy back:
    what came after it is lost, as after SIGKILL."""

    def __init__(self, monkeypatch):
        self._patch = monkeypatch
        self.waits: list[float] = []
        monkeypatch.setattr(sending.Sender, "_sleep", self._sleep)
        # A client loads the certificates, which takes longer than most scripts.
        monkeypatch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        monkeypatch.setattr("embed.curation.endpoint.MAX_REPLY_BYTES", 100_000)

    async def _sleep(self, seconds: float) -> None:
        assert 0 <= seconds <= 60
        self.waits.append(seconds)

    def __call__(self, argv: list[str], folder: pathlib.Path, key: str, kill_at: int | None) -> Outcome:
        output, errors, passed, killed = io.StringIO(), io.StringIO(), 0, False
        send = sending.Connection.send

        def failpoint(name: str) -> None:
            nonlocal passed, killed
            passed += 1
            if passed == kill_at:
                killed = True
                shutil.copytree(folder / "out", folder / "kept")
            if killed:
                raise Killed(name)

        async def alive(*given):
            if killed:
                raise Killed
            return await send(*given)

        with self._patch.context() as patch, contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            patch.setattr(files, "failpoint", failpoint)
            patch.setattr(sending.Connection, "send", alive)
            patch.setenv(VARIABLE, key)
            code = None
            try:
                main(argv)
            except SystemExit as e:
                code = e.code
            except Killed:
                assert killed
        if killed:  # also where another error came first: nobody would have seen it
            shutil.rmtree(folder / "out")
            (folder / "kept").rename(folder / "out")
            code = None
        return Outcome(code, output.getvalue(), errors.getvalue())


class AsUser:
    """Runs the command as a process of its own. A kill is SIGKILL when one of the first five requests of a run reaches
    the server, which is before it is answered."""

    unfit = {"429 inf", "429 absurd", "429 date", "oversize", *SLOW}  # waits of a minute; a size that is not reached

    def __init__(self, server: FaultServer):
        self._server = server

    def __call__(self, argv: list[str], folder: pathlib.Path, key: str, kill_at: int | None) -> Outcome:
        command = [sys.executable, "-m", "embed", *argv]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, env={**os.environ, VARIABLE: key}, text=True, **pipes)
        seen = 0

        def kill(_: int) -> None:
            nonlocal seen
            seen += 1
            if kill_at is not None and seen == 1 + kill_at % 5:
                process.kill()

        self._server.on_request = kill
        try:
            output, errors = process.communicate(timeout=600)
        finally:
            process.kill()
            process.wait()
        return Outcome(None if process.returncode == -signal.SIGKILL else process.returncode, output, errors)


def open_keys(ledger: pathlib.Path) -> set[str]:
    """Returns the keys of requests in a ledger that have no end."""
    rows = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.is_file() else []
    keys = {row["n"]: row["sent"] for row in rows if "sent" in row}
    for row in rows:
        if "to" in row:
            del keys[row["to"]]
    return set(keys.values())


def play(script: Script, server: FaultServer, folder: pathlib.Path, run) -> collections.Counter:
    """Runs a script to its end and checks each run; returns how often each exit code and fault came."""
    write_input(script, folder)
    server.begin(script.faults, script.key)
    counts: collections.Counter = collections.Counter()
    unknown: set[str] = set()
    model = model_of(script)
    for kill_at in [*script.kills, "heal"]:
        healing = kill_at == "heal"
        changed = {}
        if healing:
            server.script.clear()
            model.faults.clear()
            changed = {"max_requests": server.received + 1000, "max_tokens": None, "deadline": 60}
        before = len(server.log)
        outcome = run(arguments(script, server, folder, **changed), folder, script.key, None if healing else kill_at)
        check(script, server, folder, outcome, before, {**script.options, **changed}, unknown)
        unknown |= open_keys(folder / "out" / "replies.jsonl")
        counts[f"exit {outcome.code}"] += 1
        if follows_model(script):
            expected = model.run({**script.options, **changed}["max_requests"])
            assert (outcome.code, server.received) == expected, (script, outcome, server.log)
            counts["runs as modelled"] += 1
    assert outcome.code in (0, 65), outcome
    check_end(script, server, folder, outcome)
    counts["requests"] += server.received
    counts.update(fault for _, fault in server.log)
    return counts


def check(script, server, folder, outcome, before, options, unknown) -> None:
    """Holds one run against what the server saw."""
    shown = (script, outcome, server.log)
    assert server.received <= options["max_requests"], shown
    if options.get("max_tokens") is not None:
        assert server.tokens <= options["max_tokens"], shown
    assert server.strayed == 0, shown
    check_secrecy(script, folder, outcome)
    answered = [key for key, fault in server.log if fault in RIGHT or fault in WRONG]
    twice = {key for key, count in collections.Counter(answered).items() if count > 1}
    late = script.options["deadline"] < 1  # on a busy machine a reply can come too late to be one
    assert twice <= unknown or late, shown
    rows = read_rows(script, folder / "out")
    assert rows is None or _is_subsequence(rows, undisturbed_rows(script)), shown
    if outcome.code is None:
        return
    lines = outcome.errors.strip().splitlines()
    if not script.debug:
        assert len(lines) == (outcome.code != 0) and "Traceback" not in outcome.errors, shown
    assert outcome.code in (0, 65, 69, 75), shown
    assert outcome.code in expected_codes(script, server, folder, before, options), shown


def expected_codes(script, server, folder, before: int, options) -> set[int]:
    """Returns the exit codes that a run may have had, by what the server saw.

    With one request at a time there is one, but for what a budget of tokens decides.
    """
    now, faults = [fault for _, fault in server.log[before:]], [fault for _, fault in server.log]
    rows = [json.loads(line) for line in (folder / "out" / "replies.jsonl").read_text().splitlines()]
    sent, replies = sum("sent" in row for row in rows), sum("reply" in row for row in rows)
    spent = sent >= options["max_requests"]
    ends = [row for row in rows if "to" in row]
    failing = 0
    while failing < len(ends) and "failed" in ends[-1 - failing]:
        failing += 1
    codes = set()
    if any(fault in FINAL for fault in now):
        return {69} if options["concurrency"] == 1 else {69, 75}
    if any(fault not in RIGHT for fault in now):
        codes.add(69)  # tries are used up, or nothing is right
    if spent or options.get("max_tokens") is not None:
        codes.add(69 if failing and (not replies or failing >= 3) else 75)
        if any(fault in WRONG for fault in faults):
            codes.add(69)
    if not spent or now.count("ok") == len(now):
        codes |= {0, 65}
    if spent and any("reply" in row for row in rows):
        codes |= {0, 65}  # the last request that was allowed completed the job
    return codes


def _is_subsequence(rows: list, whole: list) -> bool:
    remaining = iter(whole)
    return all(row in remaining for row in rows)


def check_secrecy(script, folder, outcome) -> None:
    """Finds the key and characters that command a terminal nowhere: not escaped, nor in what was compressed."""
    texts = [outcome.output, outcome.errors]
    for path in (folder / "out").rglob("*"):
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        texts += [data.decode("utf-8", "replace"), json.dumps(path.name)]
    for text in texts:
        for _ in range(3):
            assert script.key not in text, (script, text)
            text = re.sub(r"\\u00([0-9a-fA-F]{2})", lambda m: chr(int(m[1], 16)), text)
            text = re.sub(r"\\(.)", r"\1", text)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", outcome.output + outcome.errors), outcome


def check_end(script, server, folder, outcome) -> None:
    """Holds the last run, against a server without faults, to be whole: only what was answered wrongly is left out."""
    rows, wanted = read_rows(script, folder / "out"), undisturbed_rows(script)
    if outcome.code == 65:
        assert "no row is left" in outcome.errors, outcome
        rows = []
    wrong = sum(fault in WRONG for _, fault in server.log)
    assert len(wanted) - len(rows) <= wrong // 3, (script, outcome, rows, wanted)
    if outcome.code == 0:
        summary = documents.read_json(folder / "out" / "summary.json")
        assert summary["complete"] and summary["rows"] == len(rows) and summary["requests"] >= server.received
