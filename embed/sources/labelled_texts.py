"""Classification data as contrastive pairs."""

import collections
import dataclasses
import random
import re
from collections.abc import Iterator, Sequence

from embed import ranges
from embed.errors import ConfigError, DataError
from embed.sources.fields import Record, map_fields
from embed.sources.lines import read_json_lines
from embed.sources.paths import expand_paths, source_digest


@dataclasses.dataclass(frozen=True)
class LabelledTexts:
    """Classification data (jsonl of text and label) as contrastive pairs, in one of the two label modes.

    `label_as_target`: the target is the label's text, the negative another label (Gemini Embedding). Equal targets mask each
    other in the loss. `same_label_text_as_target`: the target is another text of the same label, the negative a text of
    another label (Gecko); the label, not the text, then decides what is masked. Choices are a function of `seed` and line.

    `label_pattern` is a regular expression: the label is what its group finds in the field `label`, and a row in which it finds
    nothing is passed over. So are the texts of a label that has fewer than `min_texts` of them. Catalogues, categories and intents
    become labels that way.
    Source: arXiv:2503.07891 s3.2 and arXiv:2403.20327 s3.3.
    """

    path: str | Sequence[str]
    text: str = "text"
    label: str = "label"
    mode: str = "label_as_target"
    seed: int = 0
    label_pattern: str | None = None
    min_texts: ranges.Count = 1

    def __post_init__(self):
        ranges.check_fields(self)
        try:
            groups = 1 if self.label_pattern is None else re.compile(self.label_pattern).groups
        except re.error as e:
            raise ConfigError(f"LabelledTexts.label_pattern = {self.label_pattern!r}: {e}; correct it") from e
        if groups != 1:
            raise ConfigError(
                f"LabelledTexts.label_pattern = {self.label_pattern!r} has {groups} groups; put the label in the one pair of "
                "parentheses"
            )

    def fingerprint(self) -> dict[str, str]:
        """Returns {file: sha256}."""
        return {path: source_digest(path) for path in expand_paths(self.path, f"{type(self).__name__}.path")}

    def _label(self, text: str) -> str | None:
        """Returns the label of the field's text; None where the pattern does not fit it."""
        if self.label_pattern is None:
            return text
        match = re.search(self.label_pattern, text)
        return None if match is None else (match[1] or "").strip()

    def _frequent(self, rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
        """Returns the rows whose labels have `min_texts` texts or more."""
        counts = collections.Counter(label for _, _, label in rows)
        return [row for row in rows if counts[row[2]] >= self.min_texts]

    def examples(self) -> Iterator[tuple[str, Record]]:
        """Yields ("file:line", record) with one negative each."""
        if self.mode not in ("label_as_target", "same_label_text_as_target"):
            raise DataError(f"LabelledTexts.mode = {self.mode!r}; known: label_as_target, same_label_text_as_target")
        rows = []
        for path in expand_paths(self.path, f"{type(self).__name__}.path"):
            for location, raw in read_json_lines(path):
                label = raw.get(self.label)
                named = {**raw, self.label: str(label)} if isinstance(label, int) else raw  # class numbers and booleans
                mapped = map_fields(named, {"query": self.text, "target": self.label}, location, several=False)
                label = self._label(mapped["target"])
                if label:
                    rows.append((location, mapped["query"], label))
        rows = self._frequent(rows)
        by_label: dict[str, list[int]] = {}
        for i, (_, _, label) in enumerate(rows):
            by_label.setdefault(label, []).append(i)
        if len(by_label) < 2:
            raise DataError(f"{self.path}: one label only ({next(iter(by_label), 'none')!r}); classification needs two")
        labels = sorted(by_label)
        if self.mode == "same_label_text_as_target" and len({(text, name) for _, text, name in rows}) == len(by_label):
            raise DataError(
                f"{self.path}: every label has one text only; {self.mode!r} needs another text of the same label"
            )
        for i, (location, query, label) in enumerate(rows):
            choose = random.Random(f"{self.seed}:{i}")
            other = choose.choice([x for x in labels if x != label])
            if self.mode == "label_as_target":
                yield location, {"query": query, "target": label, "negatives": [other]}
                continue
            same = [j for j in by_label[label] if rows[j][1] != query]
            if same:  # a label with one text, be it repeated, has no positive to offer
                negative = rows[choose.choice(by_label[other])][1]
                target = rows[choose.choice(same)][1]
                yield (
                    location,
                    {"query": query, "target": target, "negatives": [negative], "target_key": f"label:{label}"},
                )
