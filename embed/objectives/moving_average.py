"""The exponential moving average of what an objective learns: evaluated, saved and served in place of the last parameters."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embed import ranges
from embed.ranges import OpenShare
from embed.types import Batch, Metrics, Objective, Outputs, Params, Variables

EMA = "ema"


@dataclasses.dataclass(frozen=True)
class MovingAverage:
    """`objective`, with a moving average of its parameters as `moving["ema"]`, which `export` takes in their place."""

    objective: Objective
    decay: OpenShare = 0.999

    def __post_init__(self):
        ranges.check_fields(self)

    def init(self, key, start: Params | None = None) -> Variables:
        """Returns the objective's variables; the average starts as a copy of the parameters."""
        first = self.objective.init(key, start)
        return dataclasses.replace(first, moving={**first.moving, EMA: jax.tree.map(jnp.copy, first.params)})

    def axes(self) -> Variables:
        """Returns the objective's axes; the average lies as the parameters do."""
        axes = self.objective.axes()
        return dataclasses.replace(axes, moving={**axes.moving, EMA: axes.params})

    def forward(self, variables: Variables, batch: Batch, key, step) -> Outputs:
        """Returns the objective's outputs."""
        return self.objective.forward(_inner(variables), batch, key, step)

    def loss(self, params: Params, outputs: Outputs, batch: Batch, step) -> tuple[Float[Array, ""], Metrics]:
        """Returns the objective's loss."""
        return self.objective.loss(params, outputs, batch, step)

    def update(self, variables: Variables, outputs: Outputs, step) -> dict[str, Any]:
        """Returns the objective's next `moving` and the next average."""
        moving = self.objective.update(_inner(variables), outputs, step)
        return {**moving, EMA: moving_average(variables.moving[EMA], variables.params, self.decay, step)}

    def export(self, variables: Variables) -> Params:
        """Returns what the objective exports of the averaged parameters."""
        return self.objective.export(_inner(self.served(variables)))

    def served(self, variables: Variables) -> Variables:
        """Returns the variables with the averaged parameters in place of the last ones."""
        return dataclasses.replace(variables, params=variables.moving[EMA])


def _inner(variables: Variables) -> Variables:
    """Returns the variables as the averaged objective knows them."""
    moving = {name: tree for name, tree in variables.moving.items() if name != EMA}
    return dataclasses.replace(variables, moving=moving)


def moving_average(average: Params, params: Params, decay: float, step) -> Params:
    """Returns decay * average + (1 - decay) * params. Early steps forget faster: decay is at most (1 + step) / (10 + step)."""
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: rate * a + (1 - rate) * p, average, params)
