"""Records of text to token ids: prompt, tokenise, truncate, hash. The same code for training, evaluation and inference."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from embed import ranges
from embed.data.fields import Record
from embed.data.text import apply_prompt, content_id, target_id, template
from embed.data.tokenizers import Tokenizer
from embed.ranges import Count


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Most tokens per side, special tokens and prompt included. Longer texts are truncated and counted."""

    query: Count = 64
    target: Count = 128

    def __post_init__(self):
        ranges.check_fields(self)

    @property
    def negatives(self) -> int:
        """Hard negatives are on the target's side and as long."""
        return self.target


def prompts_of(record: Record, query_prompt: str, target_prompt: str) -> tuple[str, str]:
    """Returns the templates of a record's query and target: its own, where it has some, or those of its task."""
    return (
        template(record.get("query_prompt") or query_prompt),
        template(record.get("target_prompt") or target_prompt),
    )


@dataclasses.dataclass(frozen=True)
class PairEncoder:
    """Turns records of a task into the arrays of `records.TEXT_FIELDS`, and two more for the cache's writer.

    Those are `truncated`, how many texts were cut (query, target, negatives), and `target_text_ids`, the ids that a negative
    has which says what the target says: without its title, and with the title in front.
    """

    tokenizer: Tokenizer
    lengths: Lengths
    query_prompt: str
    target_prompt: str

    def __call__(self, records: Sequence[Record]) -> list[dict[str, np.ndarray]]:
        """Returns one dict of arrays per record, in order."""
        templates = [prompts_of(r, self.query_prompt, self.target_prompt) for r in records]
        queries = [apply_prompt(ask, r["query"]) for (ask, _), r in zip(templates, records)]
        targets = [apply_prompt(answer, r["target"], r.get("title", "")) for (_, answer), r in zip(templates, records)]
        negatives = [
            apply_prompt(answer, n) for (_, answer), r in zip(templates, records) for n in r.get("negatives", ())
        ]
        query_rows, query_cut = self.tokenizer.encode_batch(queries, self.lengths.query)
        target_rows, target_cut = self.tokenizer.encode_batch(targets, self.lengths.target)
        negative_rows, negative_cut = (
            self.tokenizer.encode_batch(negatives, self.lengths.negatives) if negatives else ([], [])
        )
        encoded, used = [], 0
        for i, record in enumerate(records):
            count = len(record.get("negatives", ()))
            own, own_cut = negative_rows[used : used + count], negative_cut[used : used + count]
            used += count
            title, target = record.get("title", ""), record["target"]
            encoded.append(
                {
                    "query": query_rows[i],
                    "target": target_rows[i],
                    "negatives": np.concatenate(own) if own else np.zeros(0, np.int32),
                    "negatives_lengths": np.array([len(n) for n in own], np.int32),
                    "negatives_id": np.array([target_id(n) for n in record.get("negatives", ())], np.int64),
                    "query_id": content_id(record["query"]),
                    "target_id": content_id(record["target_key"])
                    if record.get("target_key")
                    else target_id(target, title),
                    "target_text_ids": np.array(
                        [target_id(target), target_id(f"{title} {target}" if title else target)]
                    ),
                    "truncated": np.array([query_cut[i], target_cut[i], sum(own_cut)], np.int32),
                }
            )
        return encoded
