"""What a gin recipe builds: every part of a run, as one object that `prepare` and `train` share."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from embed import ranges
from embed.data import encoding, tasks, text
from embed.errors import ConfigError
from embed.models.lora import Lora
from embed.objectives.adapters import Adapters
from embed.objectives.moving_average import MovingAverage
from embed.ranges import Count, Natural, OpenShare
from embed.sharding import MeshShape
from embed.training import loop
from embed.types import Model, Objective


def _parts(value: Any) -> Iterator[Any]:
    """Yields a dataclass, an objective or a loss, and those that it is made of."""
    yield value
    for field in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
        inner = getattr(value, field.name)
        for part in inner.values() if isinstance(inner, Mapping) else [inner]:
            if dataclasses.is_dataclass(part):
                yield from _parts(part)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The parts of a training run. gin files bind its fields; `embed train` and `embed prepare` read it.

    `objective` is what the run learns (a class of `embed.objectives`, or your own `types.Objective`).
    `batch_size` is the global batch in pairs, which are all compared with each other. Its texts are embedded in
    `micro_batches` parts, to the same result (cached gradients); None takes as few as fit into memory. `init_from` is a MODEL,
    or a folder of Hugging Face or sentence-transformers, whose parameters replace the random ones; where `model`,
    `tokenizer`, `prompts` or `text_normalization` (a name of `data.text.NORMALIZATIONS`) are not given, those of `init_from`
    are taken. `model_changes` replaces fields of that model, e.g. {'encoder.dtype': 'bfloat16', 'matryoshka_dims': (256, 128)}.
    `max_length` is what a text is cut at when the model is used, in tokens (default: as in `init_from`, else the longer side
    of `lengths`). `suite` is scored every `schedule.evaluate_every` steps, and `best_metric` ('task/score', a type, or 'mean
    of the types') picks the best checkpoint. `cache_dir` holds the token caches. With `lora` only low-rank adapters learn;
    checkpoints hold the merged model. With `ema_decay` a moving average of what learns is evaluated, saved and served. A
    program is compiled for each of up to `most_shapes` sizes of batches (twice as many where some have negatives): more leave
    less padding, fewer compile sooner.
    """

    mixture: tasks.Mixture
    objective: Any
    optimizer: Any
    schedule: loop.Schedule
    batch_size: Count
    cache_dir: str
    model: Any = None
    tokenizer: Any = None
    model_changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    max_length: Count | None = None
    lora: Lora | None = None
    lengths: encoding.Lengths = dataclasses.field(default_factory=encoding.Lengths)
    num_negatives: Natural = 0
    mesh: MeshShape = dataclasses.field(default_factory=MeshShape)
    seed: Natural = 0
    ema_decay: OpenShare | None = None
    micro_batches: Count | None = None
    most_shapes: Count = 6
    init_from: str | None = None
    prompts: Mapping[str, str] | None = None
    text_normalization: str | None = None
    suite: str | None = None
    best_metric: str | None = None

    def __post_init__(self):
        ranges.check_fields(self)
        self.mixture.check()
        if self.schedule.patience is not None and self.best_metric is None:
            raise ConfigError(
                f"Schedule.patience = {self.schedule.patience} counts evaluations that are no better; "
                "bind Recipe.best_metric, which says by what"
            )
        if self.best_metric is not None and (self.suite is None or self.schedule.evaluate_every is None):
            raise ConfigError("Recipe.best_metric needs Recipe.suite and Schedule.evaluate_every, or nothing is scored")
        if (self.suite is None) != (self.schedule.evaluate_every is None):
            raise ConfigError(
                "Recipe.suite and Schedule.evaluate_every have an effect together only: what is scored, and how often"
            )
        if self.text_normalization is not None:
            text.normalizer(self.text_normalization)
        self._check_negatives()
        for name in ("model", "tokenizer"):
            if getattr(self, name) is None and self.init_from is None:
                raise ConfigError(f"Recipe.{name} is not bound; bind it, or Recipe.init_from to a model that has one")
        if self.model_changes and self.model is not None:
            raise ConfigError(
                "Recipe.model_changes goes with the model of init_from; bind the fields of Recipe.model instead"
            )

    def _check_negatives(self) -> None:
        """Raises ConfigError for what is said of hard negatives in a recipe that uses none."""
        if self.num_negatives:
            return
        for task in self.mixture.tasks:
            source = getattr(task, "source", None)
            field = getattr(source, "fields", {}).get("negatives")
            if field is not None and "negatives" not in source.optional:
                raise ConfigError(
                    f"task {task.name!r} maps 'negatives' to {field!r}, and Recipe.num_negatives = 0 uses none of them; set "
                    "Recipe.num_negatives, or take 'negatives' out of the source's fields"
                )
        for part in _parts(self.objective):
            if getattr(part, "hardness", 0):
                raise ConfigError(
                    f"{type(part).__name__}.hardness = {part.hardness} weighs hard negatives, and Recipe.num_negatives = 0 "
                    "uses none; set one of them"
                )

    def built_objective(self, model: Model) -> Objective:
        """Returns the objective for the built `model`, with its adapters and its moving average."""
        objective = dataclasses.replace(self.objective, model=model)
        if self.lora is not None:
            objective = Adapters(objective, self.lora)
        return objective if self.ema_decay is None else MovingAverage(objective, self.ema_decay)
