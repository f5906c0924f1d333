"""Low-rank adapters for any objective: the model's parameters are frozen, and small factors learn in their place."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Float

from embed.models.lora import Lora
from embed.objectives.pairs import MODEL
from embed.types import Batch, Metrics, Objective, Outputs, Params, Variables

BASE = "base"


@dataclasses.dataclass(frozen=True)
class Adapters:
    """`objective`, whose parameters "model" are frozen as `frozen["base"]`; "model" are the factors of `lora` instead.

    Its other parameters, such as a temperature, learn as before. `export` returns the merged model.
    """

    objective: Objective
    lora: Lora

    def init(self, key, start: Params | None = None) -> Variables:
        """Returns the objective's variables with the model as `frozen["base"]`."""
        first = self.objective.init(key, start)
        base = first.params[MODEL]
        factors = self.lora.init(key, base, self.objective.axes().params[MODEL])
        return Variables({**first.params, MODEL: factors}, first.moving, {**first.frozen, BASE: base})

    def axes(self) -> Variables:
        """Returns the axes of the factors, and those of the model for `frozen["base"]`."""
        axes = self.objective.axes()
        shapes = jax.eval_shape(self.objective.init, jax.random.key(0)).params[MODEL]
        factors = self.lora.axes(shapes, axes.params[MODEL])
        return Variables({**axes.params, MODEL: factors}, axes.moving, {**axes.frozen, BASE: axes.params[MODEL]})

    def forward(self, variables: Variables, batch: Batch, key, step) -> Outputs:
        """Returns the objective's outputs, of the merged model."""
        return self.objective.forward(self._merged(variables), batch, key, step)

    def loss(self, params: Params, outputs: Outputs, batch: Batch, step) -> tuple[Float[Array, ""], Metrics]:
        """Returns the objective's loss. It must not use the model's parameters, which are factors here."""
        return self.objective.loss(params, outputs, batch, step)

    def update(self, variables: Variables, outputs: Outputs, step) -> dict[str, Any]:
        """Returns the objective's next `moving`."""
        return self.objective.update(self._merged(variables), outputs, step)

    def export(self, variables: Variables) -> Params:
        """Returns what the objective exports of the merged model."""
        return self.objective.export(self._merged(variables))

    def served(self, variables: Variables) -> Variables:
        """Returns the variables as they are."""
        return variables

    def _merged(self, variables: Variables) -> Variables:
        frozen = dict(variables.frozen)
        model = self.lora.merge(frozen.pop(BASE), variables.params[MODEL])
        return Variables({**variables.params, MODEL: model}, variables.moving, frozen)
