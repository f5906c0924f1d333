"""What a gin recipe builds: every part of a run, as one object that `prepare` and `train` share."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from embed.data import encoding, tasks, text
from embed.errors import ConfigError
from embed.sharding import MeshShape
from embed.training import loop


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The parts of a training run. gin files bind its fields; `embed train` and `embed prepare` read it.

    `batch_size` is the global batch in pairs; `micro_batches` cuts it for plain gradient accumulation. `init_from` is a MODEL
    whose parameters replace the random ones. `suite` is scored every `schedule.evaluate_every` steps, and `best_metric`,
    'task/metric', picks the best checkpoint. `cache_dir` holds the token caches.
    """

    model: Any
    mixture: tasks.Mixture
    tokenizer: Any
    loss: Any
    optimizer: Any
    schedule: loop.Schedule
    batch_size: int
    cache_dir: str
    lengths: encoding.Lengths = dataclasses.field(default_factory=encoding.Lengths)
    num_negatives: int = 0
    mesh: MeshShape = dataclasses.field(default_factory=MeshShape)
    seed: int = 0
    ema_decay: float | None = None
    micro_batches: int = 1
    init_from: str | None = None
    prompts: Mapping[str, str] | None = None
    suite: str | None = None
    best_metric: str | None = None

    def __post_init__(self):
        self.mixture.check()
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(f"Recipe.ema_decay = {self.ema_decay} must lie between 0 and 1, e.g. 0.999")
        if self.num_negatives < 0 or self.micro_batches < 1:
            raise ConfigError("Recipe.num_negatives must be at least 0 and Recipe.micro_batches at least 1")

    def all_prompts(self) -> dict[str, str]:
        """Returns the prompts the model will carry: the standard ones, overridden by the recipe's own."""
        return {**text.PROMPTS, **(self.prompts or {})}
