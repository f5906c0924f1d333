"""Training data written by a language model: queries for passages, and labelled texts. Source: arXiv:2503.07891 s4.2.

Queries: few-shot, then rated by the model itself, as in FRet and SWIM-IR. Labelled texts: in stages, from people and subjects
that are listed first; of long lists the tail is taken, where what is less usual stands.
"""

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from embed.curation.asking import Asker, Rejected
from embed.curation.prompt_templates import PromptTemplate
from embed.sources.input_texts import Text
from embed.text import clean

TASKS = ("question answering", "search result", "fact checking")
LENGTHS = ("one sentence", "two or three sentences", "a short paragraph", "a long paragraph")
FIELDS = {
    "query": {"passage"},
    "rate_query": {"query", "passage"},
    "people": {"count", "kind"},
    "subjects": {"count", "kind"},
    "labelled_text": {"kind", "person", "subject", "label", "labels", "length"},
}


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


QUERY = _object(
    task={"type": "string", "enum": list(TASKS)}, query={"type": "string", "minLength": 3, "maxLength": 400}
)
RATING = _object(rating={"type": "integer", "minimum": 1, "maximum": 5})
ITEMS = _object(items={"type": "array", "items": {"type": "string", "minLength": 3, "maxLength": 300}, "minItems": 4})
TEXT = _object(text={"type": "string", "minLength": 10, "maxLength": 4000})


@dataclasses.dataclass(frozen=True)
class Queries:
    """Writes a query for a passage; kept when the model's own rating is at least `least` (1 to 5)."""

    asker: Asker
    prompt_templates: Mapping[str, PromptTemplate]
    least: int = 4
    seed: int = 0

    async def __call__(self, passage: Text) -> dict[str, Any]:
        """Returns a row {"query", "positive", "title"?, "task", "rating", "made"}."""
        text = f"{passage.title}\n{passage.text}" if passage.title else passage.text
        generated = await self.asker.ask(self.prompt_templates["query"], QUERY, {"passage": text}, self.seed)
        query = clean(generated["query"])
        if not query or query in text:
            raise Rejected("query: copied from the passage")
        both = {"query": query, "passage": text}
        rated = await self.asker.ask(
            self.prompt_templates["rate_query"], RATING, both, self.seed, temperature=0.0, max_tokens=64
        )
        if rated["rating"] < self.least:
            raise Rejected(f"rated {rated['rating']}, below {self.least}")
        row = {"query": query, "positive": passage.text, **({"title": passage.title} if passage.title else {})}
        return {**row, "task": generated["task"], "rating": rated["rating"], "made": self._made(passage)}

    def _made(self, passage: Text) -> dict[str, Any]:
        prompts = {name: self.prompt_templates[name].digest for name in ("query", "rate_query")}
        return {"model": self.asker.endpoint.model, "prompts": prompts, "from": passage.location, "seed": self.seed}


@dataclasses.dataclass(frozen=True)
class Draw:
    """One text that is to be written: its number, label, length, and by and on what."""

    number: int
    label: str
    person: str
    subject: str
    length: str


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Writes texts of given labels. `kind` says what they are ('product reviews'); lists have `listed` entries, of which the
    last `tail` (a share) are used."""

    asker: Asker
    prompt_templates: Mapping[str, PromptTemplate]
    kind: str
    labels: Sequence[str]
    listed: int = 40
    tail: float = 0.5
    seed: int = 0

    async def entries(self, what: tuple[str, int]) -> list[str]:
        """Returns the tail of one list of 'people' or 'subjects', of the given number."""
        name, number = what
        values = {"count": str(self.listed), "kind": self.kind}
        reply = await self.asker.ask(
            self.prompt_templates[name],
            ITEMS,
            {},
            self.seed + number,
            temperature=1.0,
            max_tokens=40 * self.listed,
            **values,
        )
        items = [item for item in dict.fromkeys(map(clean, reply["items"])) if item]
        return items[int(len(items) * (1 - self.tail)) :]

    def draws(self, count: int, people: Sequence[str], subjects: Sequence[str]) -> Iterator[Draw]:
        """Yields `count` combinations: labels in turn, the rest drawn."""
        for number in range(count):
            choose = random.Random(f"{self.seed}:{number}")
            label = self.labels[number % len(self.labels)]
            yield Draw(number, label, choose.choice(people), choose.choice(subjects), choose.choice(LENGTHS))

    async def __call__(self, draw: Draw) -> dict[str, Any]:
        """Returns a row {"text", "label", "made"}."""
        values = {"kind": self.kind, "label": draw.label, "labels": ", ".join(self.labels), "length": draw.length}
        # What was listed came from a model too: it is put between marks like any other text.
        texts = {"person": draw.person, "subject": draw.subject}
        reply = await self.asker.ask(
            self.prompt_templates["labelled_text"],
            TEXT,
            texts,
            self.seed + draw.number,
            temperature=1.0,
            max_tokens=600,
            **values,
        )
        text = clean(reply["text"])
        if not text:
            raise Rejected("labelled_text: blank")
        prompts = {name: self.prompt_templates[name].digest for name in ("people", "subjects", "labelled_text")}
        origin = {"model": self.asker.endpoint.model, "prompts": prompts, "from": draw.person, "seed": self.seed}
        return {"text": text, "label": draw.label, "made": origin}
