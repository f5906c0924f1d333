"""The different texts of a mixture's records, by side and prompt: what a teacher encodes before a run learns from its vectors."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embed.data import seqio_tasks
from embed.data.features import Feature, Field, roles_of
from embed.data.tasks import Mixture
from embed.data.text_features import Side, TextFeature, text_features
from embed.data.tokenizers import Tokenizer
from embed.errors import DataError
from embed.sources.input_texts import Text

PromptOf = Callable[
    [str, Side, str], str
]  # a task's name, a side, the record's own prompt or "" -> the teacher's template
Texts = dict[Side, dict[str, list[Text]]]  # side -> template -> texts


@dataclasses.dataclass
class _Kept:
    """A text, the template that it is read in, and the task that it was first met in."""

    text: Text
    prompt_template: str
    task: str


class _Conflicts:
    """Texts that two prompts ask for: how many, and what is said of the first of them."""

    def __init__(self):
        self._count, self._first = 0, ""

    def add(self, kept: _Kept, location: str, task: str, prompt_template: str) -> None:
        self._count += 1
        self._first = self._first or (
            f"{location}: a text of task {task!r} is read in the prompt {prompt_template!r}, and at {kept.text.location}, of task "
            f"{kept.task!r}, in {kept.prompt_template!r}"
        )

    def check(self) -> None:
        """Raises DataError where there is any."""
        if self._count:
            raise DataError(
                f"{self._first}; a teacher's vectors are joined by the text alone, so give one prompt for all with --query_prompt "
                f"or --target_prompt, or take one of the tasks out ({self._count:,} times in all)"
            )


@dataclasses.dataclass(frozen=True)
class _Collector(Feature):
    """Keeps the texts that the text features among `of` read in a task, by side and content id; writes how many a record has."""

    of: Sequence[Feature]
    task: str
    texts: dict[Side, dict[int, _Kept]]
    prompt_of: PromptOf
    conflicts: _Conflicts
    name: str = "number_of_texts"

    @property
    def roles(self):
        return tuple(roles_of(self.of).values())

    @property
    def fields(self):
        return (Field(self.name, "int32", 0),)

    def encode(self, records, context):
        return [{self.name: np.int32(self._keep(record))} for record in records]

    def _keep(self, record: dict[str, Any]) -> int:
        count = 0
        for feature in text_features(self.of):
            prompt_template = self.prompt_of(self.task, feature.side, record.get(f"{feature.side}_prompt") or "")
            for text, title in feature.texts_of(record):
                self._keep_text(feature, record, text, title, prompt_template)
                count += 1
        return count

    def _keep_text(self, feature: TextFeature, record, text: str, title: str, prompt_template: str) -> None:
        number = int(feature.id_of(record, text, title))
        item = Text(str(number), text, title, record["location"])
        kept = self.texts[feature.side].setdefault(number, _Kept(item, prompt_template, self.task))
        if (kept.text.text, kept.text.title) != (text, title):
            raise DataError(
                f"{item.location}: {feature.name} has the id of another text, at {kept.text.location}; a teacher's vectors are "
                f"joined by it, so take {feature.name}_key out of the source's fields"
            )
        if kept.prompt_template != prompt_template:
            self.conflicts.add(kept, item.location, self.task, prompt_template)


def read(mixture: Mixture, tokenizer: Tokenizer, features: Sequence[Feature], prompt_of: PromptOf) -> Texts:
    """Returns the different texts of all records that the text features among `features` read, by side and template.

    They are in the order of their content ids, and their ids are those numbers in decimal. All texts are held in memory. Two texts
    of one id, and one text in two prompts of a side, are DataErrors, as is whatever is wrong with a record.
    """
    texts: dict[Side, dict[int, _Kept]] = {feature.side: {} for feature in text_features(features)}
    conflicts = _Conflicts()
    for task in mixture.tasks:
        collector = _Collector(tuple(features), task.name, texts, prompt_of, conflicts)
        for _ in seqio_tasks.examples(task, tokenizer, [collector]):
            pass
    conflicts.check()
    return {side: _by_template(kept) for side, kept in texts.items()}


def _by_template(kept: dict[int, _Kept]) -> dict[str, list[Text]]:
    by_template: dict[str, list[Text]] = {}
    for number in sorted(kept):
        by_template.setdefault(kept[number].prompt_template, []).append(kept[number].text)
    return dict(sorted(by_template.items()))
