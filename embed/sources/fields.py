"""Raw rows to records: fields mapped to our roles, texts cleaned, and what is wrong with a row said with its location."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from embed.documents import parse_json
from embed.errors import ConfigError, DataError, did_you_mean
from embed.text import clean, template

Record = dict[str, Any]
PROMPT_ROLES = ("query_prompt", "target_prompt")  # of one record, in place of its task's
OPTIONAL_ROLES = ("title", "negatives", *PROMPT_ROLES)  # of texts; a record may lack their fields
REQUIRED_ROLES = ("query", "target")  # of texts; every record that maps them has them
DEFAULT_FIELDS = {"query": "query", "target": "target"}
DEFAULT_BAD_SHARE = 0.01


def text_of(value: Any, field: str, location: str) -> str:
    """Returns the cleaned text of a field; anything but a text that is not empty is a DataError."""
    return clean(checked_text(value, field, location))


def checked_text(value: Any, field: str, location: str) -> str:
    """Returns the text of a field as it is, for what normalises it later; errors as `text_of`."""
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8", "strict")
        except UnicodeDecodeError as e:
            raise DataError(
                f"{location}: field {field!r} is not valid UTF-8 at byte {e.start}; convert it to UTF-8"
            ) from e
    if not isinstance(value, str):
        kind = "missing or null" if value is None else type(value).__name__
        raise DataError(f"{location}: field {field!r} is {kind}, expected a text")
    checked_unicode(value, field, location)
    if not clean(value):
        raise DataError(f"{location}: field {field!r} is empty; remove the record or fill it")
    return value


def checked_unicode(value: str, field: str, location: str) -> str:
    """Returns a text that UTF-8 can hold; half of a surrogate pair, which JSON can hold, is a DataError."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as e:
        raise DataError(
            f"{location}: field {field!r} holds a lone surrogate, which no UTF-8 text can; remove it"
        ) from e
    return value


def identity(value: Any, field: str, location: str) -> str:
    """Returns an id, a text or a number, as a text that every format of vectors keeps as it is."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as e:
            raise DataError(f"{location}: field {field!r} is not valid UTF-8; give ids as texts or numbers") from e
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if value is None or isinstance(value, bool | list | tuple | dict) or value != value or not is_finite:
        raise DataError(
            f"{location}: field {field!r} is {type(value).__name__} ({str(value)[:40]!r}), expected a text or a number as id"
        )
    text = str(value)
    if not text.strip():
        raise DataError(f"{location}: field {field!r}, the id, is empty; give every record an id")
    return checked_unicode(text, field, location)


def rows_by_id(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yields (location, id, row) of queries or documents, whose id is `_id` or `id`; an id that stands twice is a DataError."""
    ids: set[str] = set()
    for location, row in rows:
        field = "_id" if "_id" in row else "id"
        if field not in row:
            raise DataError(f"{location}: no field 'id'; every query and document needs one")
        key = identity(row[field], field, location)
        if key in ids:
            raise DataError(f"{location}: the id {key!r} stands twice; make ids unique")
        ids.add(key)
        yield location, key, row


MISSING: Any = object()  # what `value_at` returns for a field that is not there
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+|\*)\]")
_PATH = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[(?:\d+|\*)\])+")


def value_at(raw: Mapping[str, Any], field: str) -> Any:
    """Returns the value of a field, or MISSING.

    A field that has no key of its name may be a path: 'answers.text' into nested objects, 'answers[0]' an entry of a list, and
    'passages[*].text' the list of what all entries of a list have there; entries without it are left out.
    """
    if field in raw:
        return raw[field]
    if not _PATH.fullmatch(field):
        return MISSING
    return _follow(raw, [name or index for name, index in _STEP.findall(field)])


def _follow(value: Any, steps: Sequence[str]) -> Any:
    for number, step in enumerate(steps):
        if isinstance(value, Mapping):
            value = value.get(step, MISSING)
        elif isinstance(value, list | tuple) and step == "*":
            values = [_follow(entry, steps[number + 1 :]) for entry in value]
            return [x for x in values if x is not MISSING]
        elif isinstance(value, list | tuple) and step.isdecimal():
            value = value[int(step)] if int(step) < len(value) else MISSING
        else:
            return MISSING
        if value is MISSING:
            return MISSING
    return value


def map_fields(
    raw: Mapping[str, Any], fields: Mapping[str, str], location: str, *, several: bool = True, is_table: bool = False
) -> Record:
    """Returns the record of `raw` under our roles; fields may be paths (`value_at`).

    `query` and `target` are a text, or with `several` a list of texts where the field holds one. A cell of a table (`is_table`)
    holds a list as JSON, such as ["a", "b"]. `negatives` may be a text or a list, and may be absent in a record. Values of other
    roles, such as scores, are passed on as they are; None is for a field that is not there.
    """
    record: Record = {}
    for role, field in fields.items():
        value = value_at(raw, field)
        if value is MISSING and role in REQUIRED_ROLES:
            raise DataError(f"{location}: no field {field!r} (mapped to {role}){did_you_mean(field, raw)}")
        value = None if value is MISSING else value
        if role == "negatives":
            record[role] = [text_of(v, field, location) for v in _texts_of(value, field, location)]
        elif role in REQUIRED_ROLES:
            if is_table and several and isinstance(value, str) and _LIST.fullmatch(value.strip()):
                value = _texts_of(value, field, location)
            record[role] = (_one_or_several if several else text_of)(value, field, location)
        elif role == "title" and several and isinstance(value, list | tuple):
            record[role] = [text_of(v, field, location) for v in value]
        elif role in OPTIONAL_ROLES:
            missing = value is None or (isinstance(value, str) and not value.strip())
            record[role] = "" if missing else text_of(value, field, location)
            if role in PROMPT_ROLES and record[role]:
                _check_prompt(record[role], field, location)
        else:
            record[role] = value
    _check_titles(record, fields, location)
    return record


_LIST = re.compile(r"""\[\s*(["']).*\1\s*\]""", re.DOTALL)  # of texts, as JSON or as Python writes it


def _one_or_several(value: Any, field: str, location: str) -> str | list[str]:
    """Returns the text of a field, or its texts where it holds a list of several."""
    if not isinstance(value, list | tuple):
        return text_of(value, field, location)
    if not value:
        raise DataError(f"{location}: field {field!r} is an empty list; remove the record or fill it")
    texts = [text_of(v, field, location) for v in value]
    return texts[0] if len(texts) == 1 else texts


def _check_titles(record: Record, fields: Mapping[str, str], location: str) -> None:
    """Raises DataError for titles of which it is not clear whose they are; a list of one becomes a text."""
    title, targets = record.get("title"), record.get("target")
    if isinstance(title, list) and len(title) == 1:
        record["title"] = title = title[0]
    count = len(targets) if isinstance(targets, list) else 1
    title_count = len(title) if isinstance(title, list) else 1
    if title and title_count != count:
        raise DataError(
            f"{location}: field {fields['title']!r} holds {title_count} title{'s' if title_count > 1 else ''} for {count} "
            f"target{'s' if count > 1 else ''}; give each its own"
        )


def _check_prompt(prompt: str, field: str, location: str) -> None:
    """Raises DataError for what is neither a template with {content} nor the name of a prompt."""
    try:
        template(prompt)
    except ConfigError as e:
        raise DataError(f"{location}: field {field!r}: {e}") from e


def _texts_of(value: Any, field: str, location: str) -> list:
    """Returns the texts of a field that may hold none, one or several; a table's cell may hold several as a JSON list."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        text = value.strip()
        if not (text.startswith("[") and text.endswith("]")):
            return [value]
        try:
            return parse_json(text, location, list)
        except DataError as e:
            raise DataError(
                f"{location}: field {field!r} looks like a list and is no JSON list ({text[:40]!r}); correct the list, or write a "
                "text in brackets as a list of one text"
            ) from e
    if not isinstance(value, list | tuple):
        raise DataError(f"{location}: field {field!r} is {type(value).__name__}, expected a text or a list of texts")
    return list(value)


class BadRecords:
    """Records of a source that cannot be read or mapped: raised, or left out and counted up to a share of all records."""

    MIN_RECORDS = 1000  # before an excess ends the reading early

    def __init__(self, policy: str, max_share: float, owner: str):
        if policy not in ("error", "skip"):
            raise ConfigError(f"{owner}.on_bad_record = {policy!r}{did_you_mean(policy, ('error', 'skip'))}")
        if policy == "error" and max_share != DEFAULT_BAD_SHARE:
            raise ConfigError(f"{owner}.max_bad_share has an effect with on_bad_record = 'skip' only; leave it out")
        self._policy, self._max_share, self._owner = policy, max_share, owner
        self.skips = policy == "skip"
        self.skipped, self.read = 0, 0
        self.first: list[str] = []

    def refuse(self, error: DataError, *, was_read: bool = False) -> None:
        """Raises the error, or counts the record that it is about, which may have been counted as read."""
        if self._policy == "error":
            raise error
        self.read -= was_read
        self.skipped += 1
        self.first += [str(error)] if len(self.first) < 3 else []
        if self.read + self.skipped >= self.MIN_RECORDS:
            self.check()

    def check(self) -> None:
        """Raises DataError where more records were left out than may be."""
        count = self.read + self.skipped
        if self.skipped > self._max_share * count:
            raise DataError(
                f"{self.skipped:,} of {count:,} records are bad, more than {self._owner}.max_bad_share = {self._max_share:g}; "
                f"the first: {self.first[0]}"
            )


def map_records(
    rows,
    fields: Mapping[str, str],
    optional: Sequence[str],
    owner: str,
    bad: BadRecords | None = None,
    *,
    is_table: bool = False,
) -> Iterator[tuple[str, Record]]:
    """Yields (location, record) of raw rows. A mapped field that no row has is a DataError, but for the roles `optional`.

    A row that cannot be mapped is given to `bad`. With `is_table` the values are the cells of a table.
    """
    bad = bad or BadRecords("error", DEFAULT_BAD_SHARE, owner)
    for role in optional:
        if role in REQUIRED_ROLES:
            raise DataError(f"{owner}.optional: {role!r} is needed in every record; leave it out")
        if role not in fields:
            raise DataError(f"{owner}.optional: {role!r} has no effect, {owner}.fields does not map it; leave it out")
    unseen = {role for role in fields if role not in REQUIRED_ROLES and role not in optional}
    raw: Mapping[str, Any] = {}
    location = ""
    for location, raw in rows:
        unseen = {role for role in unseen if value_at(raw, fields[role]) is MISSING} if unseen else unseen
        try:
            record = map_fields(raw, fields, location, is_table=is_table)
        except DataError as e:
            bad.refuse(e)
            continue
        bad.read += 1
        yield location, record
    bad.check()
    for role in sorted(unseen) if location else ():
        raise DataError(
            f"{location}: no record up to here, the last, has the field {fields[role]!r} (mapped to {role})"
            f"{did_you_mean(fields[role], raw)}; correct {owner}.fields, or take {role!r} out of it"
        )


def check_fields(fields: Mapping[str, str], roles: Mapping[str, bool], owner: str) -> None:
    """Raises DataError for a field map with a role that nobody reads, or without one that is needed.

    `roles` are those of the recipe's features: name -> whether every record needs it.
    """
    for role in fields:
        if role not in roles:
            raise DataError(f"{owner}.fields: unknown role {role!r}{did_you_mean(role, roles)}")
    for role, is_needed in roles.items():
        if is_needed and role not in fields:
            raise DataError(f"{owner}.fields: no field is mapped to {role!r}; it is needed")
