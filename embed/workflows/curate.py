"""The work of `embed curate`: options checked, a job begun or gone on with, results printed and written."""

import math
import os
import pathlib
import re
import secrets
from typing import Any

from embed import files
from embed.curation import prompt_templates
from embed.curation.asking import Asker
from embed.curation.endpoint import Endpoint
from embed.curation.ledger import Ledger
from embed.curation.sending import Budget, Spent
from embed.errors import DataError, Preempted, UsageError, did_you_mean
from embed.workflows import curate_plans, curate_rows
from embed.workflows.curate_plans import KEY_VARIABLE, Options, Plan

LEDGER, JOB, SALT = "replies.jsonl", "job.json", "salt"
WHATS = ("queries", "texts", "captions", "filter", "pick", "prompts")


def run(what: str, output, **options) -> None:
    """Has a language model write or judge training data into the folder `output`; `what` and `options` are those of `Options`.

    Every reply is kept: the same call again after a stop asks nothing twice. `what` 'prompts' writes our prompts to a new folder
    and asks nothing. A budget that is spent raises Preempted, with the rows that are complete written.
    """
    if what not in WHATS:
        raise UsageError(f"curate {what}{did_you_mean(what, WHATS)}")
    given = Options(what, output, **options)
    if what == "prompts":
        write_prompts(pathlib.Path(output))
        return
    for name in ("endpoint", "model"):
        if not getattr(given, name):
            raise UsageError(f"curate {what} needs --{name}")
    check(given)
    Job(given, read_key(given.key_variable, KEY_VARIABLE, os.environ)).run()


def write_prompts(output: pathlib.Path) -> None:
    """Writes our prompts to a new folder."""
    files.check_new(output)
    with files.new_folder(output) as folder:
        for name in prompt_templates.names():
            (folder / f"{name}.txt").write_text(prompt_templates.source(name), encoding="utf-8")
    print(f"wrote {output}: {', '.join(prompt_templates.names())}; edit them and give --prompts={output}")


# WHAT -> the options that only some of them take, and what they are when they are not given
OPTIONS = {
    "queries": {"input": None, "sample": None, "least": 4},
    "texts": {"labels": None, "kind": None, "count": 100},
    "captions": {"input": None, "sample": None, "image_field": "image", "caption_field": "caption"},
    "filter": {"input": None, "least": 2, "title_field": "title"},
    "pick": {"input": None, "keep": 1, "likelihood": False, "title_field": "title"},
}
_FIELDS = ("query_field", "target_field", "negatives_field")


def check(given: Options) -> None:
    """Raises UsageError for options that do not belong to WHAT or are out of range, and fills in what was not given."""
    defaults = OPTIONS[given.what]
    for name in {n for options in OPTIONS.values() for n in options} - defaults.keys():
        if getattr(given, name) is not None:
            takers = " and ".join(w for w, options in OPTIONS.items() if name in options)
            raise UsageError(f"--{name} goes with {takers}, not with {given.what}")
    if given.title_field is not None and given.title_field in [getattr(given, name) for name in _FIELDS]:
        raise UsageError(f"--title_field={given.title_field}: is another field too; give each its own")
    for name, default in defaults.items():
        if getattr(given, name) is None:
            setattr(given, name, default)
    low, high = (1, 5) if given.what == "queries" else (0, 3)
    if given.least is not None and not low <= given.least <= high:
        raise UsageError(f"--least={given.least}: the scale goes from {low} to {high}")
    for name in ("model", "labels", "kind", "image_field", "caption_field", "title_field", *_FIELDS):
        if not (getattr(given, name) or "").isprintable():  # bytes that are no UTF-8 are not either
            raise UsageError(f"--{name}: holds control characters or bytes that are no UTF-8; write it without them")
    if "input" in defaults:
        if not given.input:
            raise UsageError(f"curate {given.what} needs --input")
        if pathlib.Path(given.output).resolve() in pathlib.Path(given.input).resolve().parents:
            raise UsageError(
                f"--input={given.input}: lies in --output and would be written over; choose another --output"
            )
    fields = [getattr(given, name) for name in _FIELDS]
    if len(set(fields)) < len(fields) or not all(fields):
        raise UsageError(f"--query_field, --target_field and --negatives_field: {', '.join(fields)}; name three fields")


def read_key(variable: str, default: str, environment) -> str:
    """Returns the key in an environment variable; "" where the default one is not set. A name that is none, which may be the
    key itself, is not shown."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise UsageError("--key_variable: takes the name of an environment variable, not the key itself")
    if variable != default and variable not in environment:
        raise UsageError("--key_variable: no environment variable of that name is set; set it, or correct the name")
    return environment.get(variable, "").strip()


class Job:
    """One run of the command."""

    def __init__(self, given: Options, key: str):
        price = given.price
        if price is not None and (len(price) != 2 or not all(0 <= p < math.inf for p in price)):
            raise UsageError("--price takes two numbers, the price of a million tokens in and out: --price=0.1,0.4")
        self._given, self._output, self._price = given, pathlib.Path(given.output), price
        self._endpoint = Endpoint(
            given.endpoint,
            given.model,
            key,
            given.key_variable,
            attempts=given.attempts,
            deadline=given.deadline,
            first_wait=given.first_wait,
            structured=not given.plain,
        )
        self._prompts = curate_plans.read_prompts(given)
        self._inputs = curate_plans.read_inputs(given)
        self._rows: list[dict[str, Any]] = []

    def run(self) -> None:
        """Asks for everything and writes the rows; where the budget ends it, those that are complete."""
        spent = None
        with files.FolderLock(self._output):
            self._open()
            try:
                files.begin_job(self._output / JOB, self._identity())
                plan = self._plan()
                self._asker.run(plan.work, plan.items, lambda item, row: self._take(row, plan))
            except Spent as e:
                spent = str(e)
            finally:
                self._ledger.close()
            self._write(spent)
        if spent is not None:
            raise self._asker.failure(spent) or Preempted(
                f"{self._output}: the budget of {spent}{self._failed()}; {len(self._rows):,} rows are written, and every reply "
                "is kept: run the same command with a higher budget to go on"
            )

    def _open(self) -> None:
        """Opens what earlier runs left. What is missing or was changed is not begun anew, as its replies would be paid for
        twice."""
        salt, ledger = self._output / SALT, self._output / LEDGER
        counted = curate_rows.check(self._output)
        if ledger.is_file() and not salt.is_file():
            raise DataError(f"{salt}: missing beside {LEDGER}; restore it, or give another --output")
        if not ledger.is_file() and (counted or (self._output / JOB).is_file()):
            raise DataError(f"{ledger}: missing, and with it what was spent; restore it, or give another --output")
        if not salt.is_file():
            files.write_atomic(salt, secrets.token_hex(16))
        secret = salt.read_bytes()
        if not re.fullmatch(rb"[0-9a-f]{32}", secret):
            raise DataError(f"{salt}: was changed; restore it, or give another --output")
        self._ledger = Ledger(ledger, secret)
        problem = None
        if self._ledger.replies + self._ledger.failures < counted:
            problem = f"{ledger}: lacks requests or replies that {curate_rows.SUMMARY} counts"
        elif self._ledger.requests and not (self._output / JOB).is_file():
            problem = f"{self._output / JOB}: missing beside {LEDGER}"
        if problem:
            self._ledger.close()
            raise DataError(f"{problem}; restore it, or give another --output")
        budget = Budget(self._given.max_requests, self._given.max_tokens)
        self._asker = Asker(self._endpoint, self._ledger, budget, secret, self._given.concurrency)

    def _identity(self) -> dict[str, Any]:
        """Returns what the job is; the one in the output must be the same, as its rows must not be mixed with others."""
        given = self._given
        names = (*OPTIONS[given.what], *_FIELDS, "model", "seed", "plain")
        identity = {"what": given.what, **{name: getattr(given, name) for name in names if name != "input"}}
        if given.what != "texts":
            identity["input"] = files.sha256_file(given.input)
        return {**identity, "prompts": {name: prompt.digest for name, prompt in self._prompts.items()}}

    def _plan(self) -> Plan:
        """Returns the plan after saying what it asks for at most. Texts are drawn from lists that are asked for first."""
        given, inputs = self._given, self._inputs
        plans = {
            "texts": curate_plans.plan_lists,
            "queries": curate_plans.plan_queries,
            "captions": curate_plans.plan_captions,
        }
        plan = plans.get(given.what, curate_plans.plan_judged)(given, self._asker, self._prompts, inputs)
        self._announce(plan)
        if given.what != "texts":
            return plan
        listed: dict[str, list[str]] = {"people": [], "subjects": []}
        self._asker.run(plan.work.entries, plan.items, lambda item, entries: listed[item[0]].extend(entries))
        if not all(listed.values()):
            raise DataError(f"{given.model}: listed no people or subjects to write from; reword the prompts")
        plan.items = list(plan.work.draws(given.count, listed["people"], listed["subjects"]))
        return plan

    def _announce(self, plan: Plan) -> None:
        """Says what the run will ask for at most, before it does."""
        count = self._given.count if self._given.what == "texts" else len(plan.items)
        requests = f"{plan.requests:,} requests for {count:,} {plan.unit}"
        tokens = f"about {plan.tokens_in:,} tokens in and {plan.tokens_out:,} out{self._cost(plan.tokens_in, plan.tokens_out)}"
        print(f"will ask {self._given.endpoint} {self._given.model!r}: about {requests}, {tokens}")
        if self._ledger.replies:
            print(f"           {self._ledger.replies:,} replies are here already and are not asked for again")
        if self._ledger.unknown:
            print(
                f"           {self._ledger.unknown:,} requests were under way when a run was killed; they count as sent, with "
                f"the {self._ledger.tokens_open:,} tokens that they can have cost"
            )
        limits = [
            f"{limit:,} {unit}"
            for limit, unit in ((self._given.max_requests, "requests"), (self._given.max_tokens, "tokens"))
            if limit
        ]
        print(f"budget     {' and '.join(limits) or 'none (--max_requests, --max_tokens)'}", flush=True)

    def _cost(self, tokens_in: int, tokens_out: int) -> str:
        if self._price is None:
            return ""
        return f", {(tokens_in * self._price[0] + tokens_out * self._price[1]) / 1e6:.2f} at your price"

    def _failed(self) -> str:
        """Returns how many requests failed, in brackets, where any did."""
        if not self._ledger.failures:
            return ""
        return f" ({self._ledger.failures:,} requests failed, the last: {self._ledger.last_failure})"

    def _take(self, row: dict[str, Any], plan: Plan) -> None:
        self._rows.append(row)
        done = len(self._rows) + sum(self._asker.rejects.values())
        if done % max(1, len(plan.items) // 20) == 0:
            progress = f"{len(self._rows):,} rows, {self._asker.asked:,} requests"
            print(f"{done:,} of {len(plan.items):,} {plan.unit}: {progress}", flush=True)

    def _write(self, spent: str | None) -> None:
        asker, ledger = self._asker, self._ledger
        rejected = dict(sorted(asker.rejects.items(), key=lambda r: -r[1]))
        if not self._rows and spent is None:
            reasons = "; ".join(f"{n} x {why}" for why, n in rejected.items())
            raise DataError(f"{self._output}: no row is left; left out: {reasons or 'nothing came in'}")
        summary = {
            "what": self._given.what,
            "complete": spent is None,
            "rows": len(self._rows),
            "rejected": rejected,
            "model": self._given.model,
        }
        curate_rows.write(self._output, self._rows, summary, ledger)
        for why, count in rejected.items():
            print(f"left out   {count:,}: {why}")
        if ledger.failures:
            print(f"failed     {ledger.failures:,} of {ledger.requests:,} requests; the last: {ledger.last_failure}")
        if ledger.estimated:
            print(
                f"no usage   {ledger.estimated:,} replies told no tokens that can be right; they count with the most possible"
            )
        print(
            f"wrote {self._output / curate_rows.ROWS}: {len(self._rows):,} rows; asked {asker.asked:,} times, "
            f"{asker.cached:,} replies were here; in all {ledger.tokens_in:,} tokens in, {ledger.tokens_out:,} out"
            f"{self._cost(ledger.tokens_in, ledger.tokens_out)}"
        )
