"""The loss on examples that are held out of training."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from embed import hosts, sharding
from embed.data.examples import Examples
from embed.data.loader import Batches
from embed.data.tasks import Mixture
from embed.errors import ConfigError
from embed.training.programs import Programs
from embed.training.state import with_shardings
from embed.training.step import make_validation
from embed.types import Batch, Objective, Variables


@dataclasses.dataclass(frozen=True)
class Validation:
    """The loss of `objective` on the held-out examples of `caches`, each seen about once, in batches like those of training.

    `fit` sets `batches`.
    """

    objective: Objective
    mixture: Mixture
    caches: Sequence[Any]
    mesh: jax.sharding.Mesh
    batches: Batches | None = None

    def fit(self, training: Batches) -> "Validation":
        """Returns the validation in micro-batches of the size that training has, or in a smaller one of fewer examples.

        Fewer examples than shards are a ConfigError.
        """
        count, part = sum(map(len, self.caches)), training.unit * training.shards
        micro_batches = min(training.micro_batches, count // part) or 1
        size = micro_batches * part if count >= part else count // training.shards * training.shards
        if not size:
            raise ConfigError(
                f"Recipe.validation_share holds out {count} examples, and a batch on this mesh has {training.shards} at least; "
                "raise it"
            )
        examples = Examples(self.mixture, self.caches, training.examples.features, size, seed=0)
        batches = dataclasses.replace(training, examples=examples, micro_batches=micro_batches, max_shapes=1)
        return dataclasses.replace(self, batches=batches)

    @property
    def steps(self) -> int:
        """How many batches are scored."""
        return math.ceil(sum(map(len, self.caches)) / self.batches.examples.batch_size)

    @functools.cached_property
    def _programs(self) -> dict[Any, Programs]:
        return {}

    def __call__(self, variables: Variables, step: jax.Array) -> dict[str, float]:
        """Returns {"validation/loss": mean over the batches, and so for the objective's metrics}, as they are at `step`."""
        state = (variables, step)
        key = jax.tree.structure(variables)
        if key not in self._programs:
            placed = with_shardings(state, jax.tree.map(lambda x: x.sharding, state))
            self._programs[key] = Programs(make_validation(self.objective), placed, self.batches, self.mesh, step=False)
        shards, metrics = self.batches.shards, []
        batches = self.batches.iterate(0, *sharding.process_rows(shards, self.mesh))
        for number in range(self.steps):
            hosts.at(f"scoring validation batch {number + 1}", hosts.SAVING)
            batch = Batch(sharding.to_global(next(batches), self.mesh, shards), self.batches.max_segments)
            metrics.append(jax.device_get(self._programs[key](state, batch)))
        return _means(metrics)


def _means(metrics: list[Mapping[str, Any]]) -> dict[str, float]:
    return {f"validation/{name}": float(np.mean([values[name] for values in metrics])) for name in metrics[0]}
