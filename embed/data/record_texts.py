"""The different texts of a mixture's records, by side: what a teacher is asked for before a run learns from its vectors."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from embed.data import seqio_tasks
from embed.data.features import Feature, Field, roles_of
from embed.data.tasks import Mixture
from embed.data.text_features import Side, text_features
from embed.data.tokenizers import Tokenizer
from embed.errors import DataError
from embed.sources.input_texts import Text


@dataclasses.dataclass(frozen=True)
class _Collector(Feature):
    """Keeps every text that the text features among `of` read, by side and content id, and writes how many a record has."""

    of: Sequence[Feature]
    texts: dict[Side, dict[int, Text]]
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
            for text, title in feature.texts_of(record):
                number, count = int(feature.id_of(record, text, title)), count + 1
                item = Text(str(number), text, title, record["location"])
                first = self.texts[feature.side].setdefault(number, item)
                if (first.text, first.title) != (text, title):
                    raise DataError(
                        f"{item.location}: {feature.name} has the id of another text, at {first.location}; a teacher's vectors are "
                        f"joined by it, so take {feature.name}_key out of the source's fields"
                    )
        return count


def read(mixture: Mixture, tokenizer: Tokenizer, features: Sequence[Feature]) -> dict[Side, list[Text]]:
    """Returns the different texts of all records that the text features among `features` read, by side.

    They are in the order of their content ids, and their ids are those numbers in decimal. All texts are held in memory. Two texts
    of one id are a DataError, as is whatever is wrong with a record.
    """
    collector = _Collector(tuple(features), {feature.side: {} for feature in text_features(features)})
    for task in mixture.tasks:
        for _ in seqio_tasks.examples(task, tokenizer, [collector]):
            pass
    return {side: [texts[number] for number in sorted(texts)] for side, texts in collector.texts.items()}
