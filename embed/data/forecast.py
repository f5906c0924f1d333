"""What preparing a task will take, said before it begins: judged by its first records, which are encoded once more for it."""

import dataclasses
import itertools
import time
from collections.abc import Sequence

from embed import console
from embed.data import records
from embed.data.features import Feature
from embed.data.record_encoder import RecordEncoder
from embed.data.seqio_tasks import written_fields
from embed.data.tasks import AnyTask, Task
from embed.data.text_features import text_features
from embed.data.tokenizers import Tokenizer
from embed.errors import EmbedError

_LEAST = 20_000  # records; fewer are prepared in seconds
_SAMPLE, _BATCH = 256, 32


@dataclasses.dataclass(frozen=True)
class Forecast:
    """About how many records a task has, how many tokens each, the seconds that one process encodes, and the cache's bytes."""

    records: int
    tokens: float
    seconds: float
    size: float

    def text(self, workers: int) -> str:
        """Returns the forecast in words. Encoding is not all of the work, so that it takes as long at least."""
        minutes = console.digits(self.seconds / workers / 60)
        processes = "1 process" if workers == 1 else f"{workers} processes"
        return (
            f"about {self.records:,} records of {self.tokens:.0f} tokens, at least {minutes} minutes with {processes}, "
            f"{console.size_text(self.size)}"
        )


def forecast(task: AnyTask, tokenizer: Tokenizer, features: Sequence[Feature]) -> Forecast | None:
    """Returns the forecast of a task; None of a small one, of one whose records cannot be counted, and of one with bad records."""
    count = getattr(getattr(task, "source", None), "count", None)
    if not isinstance(task, Task) or count is None:
        return None
    try:
        total = count()
        if total is None or total < _LEAST:
            return None
        sample = [record for _, record in itertools.islice(task.source.examples(), _SAMPLE)]
        encode = RecordEncoder(features, tokenizer, task.query_prompt, task.target_prompt)
        encode(sample[:_BATCH])  # what is loaded first
        begun = time.perf_counter()
        rows = [row for start in range(0, len(sample), _BATCH) for row in encode(sample[start : start + _BATCH])]
        seconds = time.perf_counter() - begun
    except EmbedError:
        return None  # preparing says what is wrong, and where
    share, fields = total / len(sample), written_fields(features)
    size = share * sum(len(records.pack(row, fields)) for row in rows)
    tokens = sum(len(row[feature.name]) for feature in text_features(features) for row in rows) / len(rows)
    return Forecast(total, tokens, seconds * share, size)
