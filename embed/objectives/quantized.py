"""Quantisation-aware training of any objective: it sees the values of a quantised model, and float32 parameters learn."""

import dataclasses
import functools
from typing import Any

import jax
from jaxtyping import Array, Float

from embed.errors import ConfigError
from embed.models.quantization import Quantization, fake_quantize
from embed.objectives.pairs import MODEL
from embed.quantized_arrays import Scheme
from embed.types import Batch, Metrics, Objective, Outputs, Params, Variables


@dataclasses.dataclass(frozen=True)
class Quantized:
    """`objective`, which is computed with the parameters "model" as `quantization` rounds them.

    The parameters themselves stay float32 and learn by straight-through gradients. `export` returns the quantised values: what is
    saved as `params`, evaluated and served is the quantised model. Its other parameters, such as a temperature, are not rounded.
    Source: arXiv:2509.20354 s2.3.
    """

    objective: Objective
    quantization: Quantization

    def __post_init__(self):
        _ = self.schemes  # rules that change nothing are an error before a run begins

    @functools.cached_property
    def schemes(self) -> dict[str, Scheme]:
        """How each array of the model that is quantised is."""
        params = jax.eval_shape(self.objective.init, jax.random.key(0)).params
        if MODEL not in params:
            raise ConfigError(
                f"{type(self.objective).__name__} has no parameters {MODEL!r}, which quantisation is of, but {', '.join(params)}; "
                f"call those of its model {MODEL!r}"
            )
        model = params[MODEL]
        return self.quantization.plan(model, self.objective.axes().params[MODEL]).schemes

    def init(self, key, start: Params | None = None) -> Variables:
        """Returns the objective's variables, in float32."""
        return self.objective.init(key, start)

    def axes(self) -> Variables:
        """Returns the objective's axes."""
        return self.objective.axes()

    def forward(self, variables: Variables, batch: Batch, key, step) -> Outputs:
        """Returns the objective's outputs, of the quantised model."""
        return self.objective.forward(self._quantized(variables), batch, key, step)

    def loss(self, params: Params, outputs: Outputs, batch: Batch, step) -> tuple[Float[Array, ""], Metrics]:
        """Returns the objective's loss, with quantised values where it uses the model's parameters."""
        return self.objective.loss(self._rounded(params), outputs, batch, step)

    def update(self, variables: Variables, outputs: Outputs, step) -> dict[str, Any]:
        """Returns the objective's next `moving`, from the quantised model."""
        return self.objective.update(self._quantized(variables), outputs, step)

    def export(self, variables: Variables) -> Params:
        """Returns what the objective exports, quantised."""
        return fake_quantize(self.objective.export(variables), self.schemes)

    def served(self, variables: Variables) -> Variables:
        """Returns the variables that the objective serves, in float32; what is computed with them rounds them."""
        return self.objective.served(variables)

    def _quantized(self, variables: Variables) -> Variables:
        return dataclasses.replace(variables, params=self._rounded(variables.params))

    def _rounded(self, params: Params) -> Params:
        return {**params, MODEL: fake_quantize(params[MODEL], self.schemes)}
