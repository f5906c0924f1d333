"""The work of `embed curate`: what is asked, what it will cost, and what is written."""

import dataclasses
import pathlib
import random
from collections.abc import Callable, Sequence
from typing import Any

from embed import files
from embed.curation import judging, synthesis, words
from embed.curation.asking import Asker, Budget, Spent
from embed.curation.endpoint import Endpoint
from embed.curation.ledger import Ledger
from embed.data.fields import map_fields
from embed.data.lines import read_json_lines
from embed.data.sources import write_json_lines
from embed.data.texts import read_texts
from embed.errors import DataError, Preempted, UsageError

ROWS, SUMMARY, LEDGER, JOB = "rows.jsonl.gz", "summary.json", "replies.jsonl", "job.json"
# WHAT -> its prompts, and the names that each is filled in with
FIELDS = {
    "queries": {n: synthesis.FIELDS[n] for n in ("query", "rate_query")},
    "texts": {n: synthesis.FIELDS[n] for n in ("people", "subjects", "labelled_text")},
    "filter": judging.FIELDS,
    "pick": judging.FIELDS,
}


def write_prompts(output: pathlib.Path) -> None:
    """Writes our prompts to a new folder."""
    files.check_new(output)
    with files.new_folder(output) as folder:
        for name in words.names():
            (folder / f"{name}.txt").write_text(words.source(name), encoding="utf-8")
    print(f"wrote {output}: {', '.join(words.names())}; edit them and give --prompts={output}")


@dataclasses.dataclass
class Plan:
    """What is to be asked: `work` on each of `items`; `requests` and `tokens_in`, `tokens_out` are how much that is at most."""

    work: Callable
    items: Sequence
    unit: str
    requests: int
    tokens_in: int
    tokens_out: int


# WHAT -> the options that only some of them take, and what they are when they are not given
OPTIONS = {
    "queries": {"input": None, "sample": None, "least": 4},
    "texts": {"labels": None, "kind": None, "count": 100},
    "filter": {"input": None, "least": 2},
    "pick": {"input": None, "keep": 1, "likelihood": False},
}
_FIELDS = ("query_field", "target_field", "negatives_field")


def check(arguments) -> None:
    """Raises UsageError for options that do not belong to WHAT or are out of range, and fills in what was not given."""
    own = OPTIONS[arguments.what]
    for name in {n for options in OPTIONS.values() for n in options} - own.keys():
        if getattr(arguments, name) is not None:
            takers = " and ".join(w for w, options in OPTIONS.items() if name in options)
            raise UsageError(f"--{name} goes with {takers}, not with {arguments.what}")
    for name, default in own.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
    for name in ("concurrency", "attempts", "count", "keep", "sample", "max_requests", "max_tokens"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise UsageError(f"--{name}={value}: at least 1")
    low, high = (1, 5) if arguments.what == "queries" else (0, 3)
    if arguments.least is not None and not low <= arguments.least <= high:
        raise UsageError(f"--least={arguments.least}: the scale goes from {low} to {high}")
    for name in ("deadline", "first_wait"):
        if not getattr(arguments, name) > 0:
            raise UsageError(f"--{name}={getattr(arguments, name)}: seconds above 0")
    if "input" in own:
        if not arguments.input:
            raise UsageError(f"curate {arguments.what} needs --input")
        if pathlib.Path(arguments.output).resolve() in pathlib.Path(arguments.input).resolve().parents:
            raise UsageError(
                f"--input={arguments.input}: lies in --output and would be written over; choose another --output"
            )


class Job:
    """One run of the command."""

    def __init__(self, arguments, output: pathlib.Path, key: str, salt: bytes, price):
        self._given, self._output, self._price = arguments, output, price
        if price is not None and len(price) != 2:
            raise UsageError("--price takes two numbers, the price of a million tokens in and out: --price=0.1,0.4")
        endpoint = Endpoint(
            arguments.endpoint,
            arguments.model,
            key or "none",
            arguments.key_variable,
            attempts=arguments.attempts,
            deadline=arguments.deadline,
            first_wait=arguments.first_wait,
            structured=not arguments.plain,
        )
        budget = Budget(arguments.max_requests, arguments.max_tokens)
        self._ledger = Ledger(output / LEDGER)
        self._asker = Asker(endpoint, self._ledger, budget, salt, arguments.concurrency)
        self._rows: list[dict[str, Any]] = []

    def run(self) -> None:
        """Asks for everything and writes the rows; where the budget ends it, those that are complete."""
        spent = None
        try:
            self._begin()
            plan = self._plan()
            self._announce(plan)
            self._asker.run(plan.work, plan.items, lambda item, row: self._take(row, plan))
        except Spent as e:
            spent = str(e)
        finally:
            self._ledger.close()
        self._write(spent)
        if spent is not None:
            raise Preempted(
                f"{self._output}: the budget of {spent} is spent; {len(self._rows):,} rows are written, and every reply is kept: "
                "run the same command with a higher budget to go on"
            )

    def _begin(self) -> None:
        """Writes down what the job is, or checks that the one in the output is this one: its rows must not be mixed."""
        given = self._given
        own = {n: getattr(given, n) for n in (*OPTIONS[given.what], *_FIELDS, "model", "seed", "plain") if n != "input"}
        now = {"what": given.what, **own}
        if given.input is not None and pathlib.Path(given.input).is_file():
            now["input"] = files.sha256_file(given.input)
        now["prompts"] = {n: w.digest for n, w in self._words(self._fields()).items()}
        files.begin_job(self._output / JOB, now)

    def _fields(self) -> dict[str, set[str]]:
        """Returns the prompts that are needed, and the names that each is filled in with."""
        more = judging.LIKELIHOOD_FIELDS if self._given.what == "pick" and self._given.likelihood else {}
        return {**FIELDS[self._given.what], **more}

    def _plan(self) -> Plan:
        what = self._given.what
        if what == "texts":
            return self._plan_texts()
        return self._plan_queries() if what == "queries" else self._plan_judged()

    def _words(self, wanted: dict[str, set[str]]) -> dict[str, words.Words]:
        folder = None if self._given.prompts is None else pathlib.Path(self._given.prompts)
        if folder is not None:
            words.check(folder)
        return {name: words.read(name, folder, fields) for name, fields in wanted.items()}

    def _plan_queries(self) -> Plan:
        passages = list(read_texts(self._given.input, title_field="title", titles_may_lack=True))
        if self._given.sample is not None and self._given.sample < len(passages):
            chosen = random.Random(self._given.seed).sample(range(len(passages)), self._given.sample)
            passages = [passages[i] for i in sorted(chosen)]
        prompts = self._words(FIELDS["queries"])
        work = synthesis.Queries(self._asker, prompts, self._given.least, self._given.seed)
        size = sum(_tokens(p.text) for p in passages)
        fixed = sum(_tokens(w.system + w.user) for w in prompts.values())
        return Plan(work, passages, "passages", 2 * len(passages), 2 * size + len(passages) * fixed, 60 * len(passages))

    def _plan_texts(self) -> Plan:
        given = self._given
        labels = [label.strip() for label in (given.labels or "").split(",") if label.strip()]
        if len(labels) < 2 or not given.kind:
            raise UsageError("curate texts needs --labels=A,B,... (two at least) and --kind='product reviews'")
        prompts = self._words(FIELDS["texts"])
        work = synthesis.Labelled(self._asker, prompts, given.kind, labels, seed=given.seed)
        lists = max(1, -(-given.count // 200))
        wanted = [(name, number) for name in ("people", "subjects") for number in range(lists)]
        listed: dict[str, list[str]] = {"people": [], "subjects": []}
        fixed = _tokens(prompts["labelled_text"].system + prompts["labelled_text"].user) + 60
        plan = Plan(work, [], "texts", given.count + len(wanted), fixed * given.count, 150 * given.count)
        self._announce(plan, given.count)
        self._asker.run(work.entries, wanted, lambda item, entries: listed[item[0]].extend(entries))
        if not all(listed.values()):
            raise DataError(f"{given.model}: listed no people or subjects to write from; reword the prompts")
        plan.items = list(work.draws(given.count, listed["people"], listed["subjects"]))
        return plan

    def _plan_judged(self) -> Plan:
        given = self._given
        prompts = self._words(self._fields())
        judge = judging.Judge(self._asker, prompts, given.seed)
        if given.what == "filter":
            work = judging.Filter(judge, given.negatives_field, given.least)
        else:
            work = judging.Pick(judge, given.negatives_field, given.keep, likelihood=given.likelihood)
        roles = {"query": given.query_field, "target": given.target_field, "negatives": given.negatives_field}
        pairs = []
        for where, raw in read_json_lines(given.input):
            found = map_fields(raw, roles, where)
            pairs.append(judging.Pair(raw, found["query"], found["target"], tuple(found["negatives"])))
        per_pair = 1 if given.what == "filter" else 0
        requests = sum(per_pair + len(p.negatives) for p in pairs)
        size = sum(
            (per_pair + len(p.negatives)) * _tokens(p.query)
            + per_pair * _tokens(p.target)
            + sum(map(_tokens, p.negatives))
            for p in pairs
        )
        fixed = sum(_tokens(w.system + w.user) for w in prompts.values()) * requests
        times = len(prompts)  # a negative is graded, and its likelihood is asked for
        return Plan(work, pairs, "pairs", times * requests, times * size + fixed, 8 * requests)

    def _announce(self, plan: Plan, count: int | None = None) -> None:
        """Says, once, what the run will ask for at most, before it does."""
        if self._given.what == "texts" and count is None:
            return
        asked = f"{plan.requests:,} requests for {count or len(plan.items):,} {plan.unit}"
        tokens = f"about {plan.tokens_in:,} tokens in and {plan.tokens_out:,} out"
        cost = "" if self._price is None else f", {self._cost(plan.tokens_in, plan.tokens_out):.2f} at your price"
        print(f"will ask {self._given.endpoint} {self._given.model!r}: about {asked}, {tokens}{cost}")
        if self._ledger.requests:
            print(f"           {self._ledger.requests:,} replies are here already and are not asked for again")
        limits = [
            f"{n:,} {what}"
            for n, what in ((self._given.max_requests, "requests"), (self._given.max_tokens, "tokens"))
            if n
        ]
        print(f"budget     {' and '.join(limits) or 'none (--max_requests, --max_tokens)'}", flush=True)

    def _cost(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self._price[0] + tokens_out * self._price[1]) / 1e6

    def _take(self, row: dict[str, Any], plan: Plan) -> None:
        self._rows.append(row)
        done = len(self._rows) + sum(self._asker.rejects.values())
        if done % max(1, len(plan.items) // 20) == 0:
            told = f"{len(self._rows):,} rows, {self._asker.asked:,} requests"
            print(f"{done:,} of {len(plan.items):,} {plan.unit}: {told}", flush=True)

    def _write(self, spent: str | None) -> None:
        asker, path = self._asker, self._output / ROWS
        rejected = dict(sorted(asker.rejects.items(), key=lambda r: -r[1]))
        if not self._rows and spent is None:
            reasons = "; ".join(f"{n} x {why}" for why, n in rejected.items())
            raise DataError(f"{self._output}: no row is left; left out: {reasons or 'nothing came in'}")
        with files.new_file(path) as temporary:
            write_json_lines(temporary, self._rows)
        summary = {
            "what": self._given.what,
            "complete": spent is None,
            "rows": len(self._rows),
            "rejected": rejected,
            "model": self._given.model,
            "requests": self._ledger.requests,
            "tokens_in": self._ledger.tokens_in,
            "tokens_out": self._ledger.tokens_out,
        }
        files.write_json(self._output / SUMMARY, summary)
        for why, count in rejected.items():
            print(f"left out   {count:,}: {why}")
        cost = (
            ""
            if self._price is None
            else f", {self._cost(self._ledger.tokens_in, self._ledger.tokens_out):.2f} at your price"
        )
        print(
            f"wrote {path}: {len(self._rows):,} rows; asked {asker.asked:,} times, {asker.cached:,} replies were here; in all "
            f"{self._ledger.tokens_in:,} tokens in, {self._ledger.tokens_out:,} out{cost}"
        )


def _tokens(text: str) -> int:
    """Returns about how many tokens a text has."""
    return len(text) // 4 + 1
