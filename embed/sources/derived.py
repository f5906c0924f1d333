"""Sources made from another source's raw rows: what public sets need beyond a map of fields.

Each takes any source that has `raw()` (files, TFDS, Hugging Face) and yields records as `sources` does.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from embed.errors import ConfigError, DataError, did_you_mean
from embed.sources.fields import DEFAULT_FIELDS, BadRecords, Record, text_of
from embed.text import clean


def field_of(raw: Mapping[str, Any], field: str, location: str) -> Any:
    """Returns a field of a raw row; one that is not there is a DataError."""
    if field not in raw:
        raise DataError(f"{location}: no field {field!r}{did_you_mean(field, raw)}")
    return raw[field]


@dataclasses.dataclass(frozen=True)
class Derived:
    """Base of sources that are made from `source`, which has raw(); bad records are treated as it says (`on_bad_record`)."""

    source: Any

    @property
    def bad_records(self) -> BadRecords | None:
        """The records that the last `examples` left out; None where the source cannot leave any out."""
        return getattr(self.source, "bad_records", None)

    def fetch(self, say: Callable[[str], None] = print) -> None:
        """Fetches what the source needs from elsewhere, such as `WebImages`; `embed prepare` calls it before it reads."""
        fetch_inner = getattr(self.source, "fetch", None)
        if fetch_inner is not None:
            fetch_inner(say)

    def record(self, raw: Mapping[str, Any], location: str) -> Record | None:
        """Returns the record of a raw row, or None for one that is passed over."""
        raise NotImplementedError

    def examples(self) -> Iterator[tuple[str, Record]]:
        """Yields (location, record)."""
        for location, raw in self.raw():
            try:
                record = self.record(raw, location)
            except DataError as e:
                self._refuse(e)
                continue
            if self.bad_records is not None:
                self.bad_records.read += 1
            if record is not None:
                yield location, record
        self._check()

    def _refuse(self, error: DataError) -> None:
        if self.bad_records is None:
            raise error
        self.bad_records.refuse(error)

    def _check(self) -> None:
        if self.bad_records is not None:
            self.bad_records.check()

    def raw(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields the raw rows of the source, whose own map of fields must not be set, as nothing would read it."""
        for name, default in (("fields", DEFAULT_FIELDS), ("optional", ())):
            if getattr(self.source, name, default) != default:
                raise ConfigError(
                    f"{type(self.source).__name__}.{name} has no effect below {type(self).__name__}, which reads the raw rows "
                    "by names of its own; leave it out"
                )
        self.source.__dict__.pop("bad_records", None)  # counted anew
        return self.source.raw()

    def fingerprint(self) -> dict[str, str]:
        """Returns that of the source."""
        return self.source.fingerprint()


@dataclasses.dataclass(frozen=True)
class TitleAndBody(Derived):
    """Web text as (title, body): the title is the field `title`, or without one the first line of the text.

    Texts whose title or body has fewer characters than `shortest` are passed over: menus and stubs.
    Source: arXiv:2503.07891 s3.3 and arXiv:2509.20354 s2.3 train on such pairs; the cut is our choice.
    """

    text: str = "text"
    title: str | None = None
    shortest: tuple[int, int] = (8, 200)

    def record(self, raw: Mapping[str, Any], location: str) -> Record | None:
        """Returns title and body as query and target."""
        body = _plain(field_of(raw, self.text, location), self.text, location)
        if self.title is None:
            title, _, body = body.partition("\n")
        else:
            title = _plain(field_of(raw, self.title, location), self.title, location)
        title, body = clean(title), clean(body)
        is_long = len(title) >= self.shortest[0] and len(body) >= self.shortest[1]
        return {"query": title, "target": body} if is_long else None


def _plain(value: Any, field: str, location: str) -> str:
    """Returns a text, "" where there is none: nobody can mend a row of a public set."""
    is_blank = value is None or (isinstance(value, str | bytes) and not value.strip())
    return "" if is_blank else text_of(value, field, location)


@dataclasses.dataclass(frozen=True)
class Choices(Derived):
    """Questions with several answers of which one is right: that is the target, the others are the negatives.

    `answer` is the field with the number of the right one, from 0; rows without (negative numbers, no text) are passed over.
    """

    question: str = "question"
    options: Sequence[str] = ()
    answer: str = "answer"

    def record(self, raw: Mapping[str, Any], location: str) -> Record | None:
        """Returns the question and its answer, the wrong options as negatives. An option equal to the right one is left out."""
        right = _class_of(field_of(raw, self.answer, location), {}, self.answer, location)
        if right < 0:
            return None
        if right >= len(self.options):
            raise DataError(f"{location}: {self.answer} = {right}, but there are {len(self.options)} options, from 0")
        query = _plain(field_of(raw, self.question, location), self.question, location)
        fields = [_plain(field_of(raw, name, location), name, location) for name in self.options]
        wrong = [text for text in dict.fromkeys(fields) if text not in ("", fields[right])]
        return {"query": query, "target": fields[right], "negatives": wrong} if query and fields[right] else None


def _class_of(value: Any, classes: Mapping[str, int | None], field: str, location: str) -> int | None:
    """Returns the number of a class, given as a number, its digits, or one of `words`."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        name = value.strip().lower()
        if name in classes:
            return classes[name]
        value = int(name) if name.removeprefix("-").isdecimal() else value
    if hasattr(value, "item"):
        value = value.item()  # a number of numpy, as TFDS gives it
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value != int(value):
        known = f" or one of {', '.join(classes)}" if classes else ""
        raise DataError(f"{location}: field {field!r} is {value!r}, expected the number of a class{known}; correct it")
    return int(value)


@dataclasses.dataclass(frozen=True)
class Entailments(Derived):
    """Natural language inference as triplets: a premise, what follows from it, and what contradicts it.

    Premises without either are passed over. `entailment` and `contradiction` are the classes of the field `label`, as numbers;
    a label may also be one of the words entailment, neutral and contradiction.
    """

    premise: str = "premise"
    hypothesis: str = "hypothesis"
    label: str = "label"
    entailment: int = 0
    contradiction: int = 2

    def examples(self) -> Iterator[tuple[str, Record]]:
        """Yields ("location", record), one for each hypothesis that follows, premises in order. Holds the whole set in memory."""
        premises: dict[str, tuple[list, list]] = {}
        for location, row in super().examples():
            premises.setdefault(row["premise"], ([], []))[row["contradicts"]].append((location, row["hypothesis"]))
        for premise, (follows, contradicts) in premises.items():
            negatives = list(dict.fromkeys(text for _, text in contradicts))
            for location, hypothesis in follows if negatives else ():
                yield location, {"query": premise, "target": hypothesis, "negatives": negatives}

    def record(self, raw: Mapping[str, Any], location: str) -> Record | None:
        """Returns one premise and hypothesis, and whether they contradict each other."""
        classes = {"entailment": self.entailment, "contradiction": self.contradiction, "neutral": None}
        label = _class_of(field_of(raw, self.label, location), classes, self.label, location)
        if label not in (self.entailment, self.contradiction):
            return None
        premise = _plain(field_of(raw, self.premise, location), self.premise, location)
        hypothesis = _plain(field_of(raw, self.hypothesis, location), self.hypothesis, location)
        fields = {"premise": premise, "hypothesis": hypothesis, "contradicts": label == self.contradiction}
        return fields if premise and hypothesis else None
