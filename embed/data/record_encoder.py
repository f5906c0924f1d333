"""Records to the arrays of a cache: every feature encodes its values. The same code for training and for its tests."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from embed.data.features import Context, Feature
from embed.data.tokenizers import Tokenizer
from embed.sources.fields import Record
from embed.text import template


def prompts_of(record: Record, query_prompt: str, target_prompt: str) -> tuple[str, str]:
    """Returns the templates of a record's query and target: its own, where it has some, or those of its task."""
    return (
        template(record.get("query_prompt") or query_prompt),
        template(record.get("target_prompt") or target_prompt),
    )


@dataclasses.dataclass(frozen=True)
class RecordEncoder:
    """Turns records of a task into the arrays of its features. The prompts are those of the task."""

    features: Sequence[Feature]
    tokenizer: Tokenizer
    query_prompt: str
    target_prompt: str

    def __call__(self, records: Sequence[Record]) -> list[dict[str, np.ndarray]]:
        """Returns one dict of arrays per record, in order."""
        templates = [
            dict(zip(("query", "target"), prompts_of(r, self.query_prompt, self.target_prompt))) for r in records
        ]
        context = Context(self.tokenizer, templates)
        encoded: list[dict[str, np.ndarray]] = [{} for _ in records]
        for feature in self.features:
            for arrays, values in zip(encoded, feature.encode(records, context), strict=True):
                arrays |= values
        return encoded
