"""A model behind an OpenAI-compatible embeddings endpoint, such as Gemini Embedding, in the place of a MODEL that is encoded with.

Every reply is kept the moment it comes, until the job is finished: a job that was stopped asks nothing twice, and its budget counts
what runs before have sent.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from embed import console, ranges, text
from embed.curation.asking import Asker
from embed.curation.embedding import TextEmbedder
from embed.curation.embedding_requests import MAX_TEXTS
from embed.curation.endpoint import Endpoint
from embed.curation.ledger import Ledger
from embed.curation.sending import Budget, Spent
from embed.errors import Preempted, UsageError
from embed.sources.input_texts import Text
from embed.workflows.curate import read_key
from embed.workflows.curate_plans import KEY_VARIABLE
from embed.workflows.encode import Encoding

LEDGER = ".replies.jsonl"
TEXT_ALONE = "{content}"  # the prompt by default: an endpoint knows none of ours


@dataclasses.dataclass
class Served(Encoding):
    """The model `model` at the base URL `endpoint`, asked for the vectors of `batch_size` texts in a request.

    The key is read from the environment variable `key_variable`. `max_requests` and `max_tokens` are budgets over all runs of a
    job, and times are in seconds. Texts are sent with the template of their prompt around them, by default alone. Vectors are
    scaled to unit length, and `dims` is sent as `dimensions`.
    """

    endpoint: str
    model: str
    key_variable: str = KEY_VARIABLE
    batch_size: int = 32
    max_requests: int | None = None
    max_tokens: int | None = None
    concurrency: int = 8
    attempts: int = 8
    first_wait: float = 1.0
    deadline: float = 120.0

    default_prompt = TEXT_ALONE

    def __post_init__(self):
        if not 1 <= self.batch_size <= MAX_TEXTS:
            raise UsageError(f"--batch_size={self.batch_size}: give 1 to {MAX_TEXTS} texts a request")
        if not self.model.isprintable():  # bytes that are no UTF-8 are not either
            raise UsageError("--model: holds control characters or bytes that are no UTF-8; write it without them")
        key = read_key(self.key_variable, KEY_VARIABLE, os.environ)
        times = {"deadline": self.deadline, "first_wait": self.first_wait}
        self._endpoint = Endpoint(
            self.endpoint, self.model, key, self.key_variable, attempts=self.attempts, structured=False, **times
        )
        self._ledger: Ledger | None = None
        self._embed: TextEmbedder | None = None
        self.job = {"batch_size": self.batch_size}  # other batches would ask for the same texts again

    @property
    def prompts(self) -> Mapping[str, str]:
        """The prompts of EmbeddingGemma, by our names."""
        return text.PROMPTS

    def check(self, prompt: str, dims: int | None) -> None:
        """Raises an error for an unknown prompt. Which sizes there are, the server knows."""
        self.template(prompt)
        reason = None if dims is None else ranges.problem(dims, ranges.Size)
        if reason is not None:
            raise UsageError(f"dims = {dims}: {reason}")

    def identity(self, prompt: str, dims: int | None) -> dict[str, Any]:
        """Returns what decides the vectors of a text, as far as it is known: not where the model is served."""
        return {"model": f"{self.model} of an endpoint", "prompt": self.template(prompt), "dims": dims}

    def announce(self, texts: int, prompt: str, shard_size: int) -> None:
        """Says what the job will ask for, how the texts are sent, and what may be spent."""
        whole, rest = divmod(texts, shard_size)
        requests = whole * -(-shard_size // self.batch_size) + -(-rest // self.batch_size)
        limits = ((self.max_requests, "requests"), (self.max_tokens, "tokens"))
        budget = (
            " and ".join(f"{limit:,} {unit}" for limit, unit in limits if limit)
            or "none (--max_requests, --max_tokens)"
        )
        prompt_template = self.template(prompt)
        form = "alone" if prompt_template == TEXT_ALONE else f"as {prompt_template!r}"
        console.say(
            f"will ask {self.endpoint} {self.model!r} for the vectors of {texts:,} texts, sent {form}: at most {requests:,} "
            f"requests without failures; budget {budget}"
        )

    @contextlib.contextmanager
    def working_in(self, folder: pathlib.Path) -> Iterator[None]:
        """Keeps the replies in `folder` until the jobs are finished, whose vectors are then in verified files."""
        self._folder = folder
        try:
            yield
        finally:
            if self._ledger is not None:
                self._ledger.close()
            self._ledger = self._embed = None
        (folder / LEDGER).unlink(missing_ok=True)

    def vectors(self, items: list[Text], prompt_template: str, dims: int | None) -> tuple[np.ndarray, int]:
        """Returns the vectors of some texts; the server does not say which it cut."""
        if self._ledger is None:  # only now: a job that is refused writes nothing
            self._begin(dims)
        sent = [text.prompted(prompt_template, item.text, item.title, "none") for item in items]
        try:
            with console.text_bar(len(items), every_minute=True) as progress:
                return self._embed(sent, [item.location for item in items], progress), 0
        except Spent as e:
            ledger = self._ledger
            failed = (
                f" ({ledger.failures:,} requests failed, the last: {ledger.last_failure})" if ledger.failures else ""
            )
            raise self._asker.failure(str(e)) or Preempted(
                f"{self._folder}: the budget of {e}{failed}; every reply is kept: run the same command with a higher budget "
                "to go on"
            ) from None

    def _begin(self, dims: int | None) -> None:
        self._ledger = Ledger(self._folder / LEDGER)
        budget = Budget(self.max_requests, self.max_tokens)
        self._asker = Asker(self._endpoint, self._ledger, budget, b"", self.concurrency)
        self._embed = TextEmbedder(self._asker, self.batch_size, dims)
        if self._ledger.replies:
            console.say(f"           {self._ledger.replies:,} replies are here already and are not asked for again")
        if self._ledger.unknown:
            console.say(
                f"           {self._ledger.unknown:,} requests were under way when a run was killed; they count as sent, with the "
                f"{self._ledger.tokens_open:,} tokens that they can have cost"
            )

    def summary(self, texts: int, cut: int) -> str:
        """Returns what the replies have cost."""
        if self._ledger is None:
            return ""
        estimated = (
            f" ({self._ledger.estimated:,} replies told none; the most possible counts)"
            if self._ledger.estimated
            else ""
        )
        failed = f", {self._ledger.failures:,} of them failed" if self._ledger.failures else ""
        return f"; in all {self._ledger.requests:,} requests{failed}, {self._ledger.tokens:,} tokens{estimated}"
