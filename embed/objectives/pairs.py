"""Contrastive training on pairs of texts, images, or texts with images. Source: arXiv:2503.07891 s3.3, arXiv:2509.20354 s2.2."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Float

from embed.errors import ConfigError
from embed.objectives.items import embed_items
from embed.types import (
    EMBEDDINGS,
    INTERMEDIATE,
    Batch,
    Loss,
    Metrics,
    Model,
    Outputs,
    PairEmbeddings,
    Params,
    Variables,
    needs_of,
)

MODEL, LOSS = "model", "loss"
_TOWERS = ("query", "target", "negatives")
_EMBEDDINGS = (*_TOWERS, *(tower + INTERMEDIATE for tower in _TOWERS))
_BESIDE = tuple(f.name for f in dataclasses.fields(PairEmbeddings) if f.name not in _EMBEDDINGS)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Queries, their targets and hard negatives, embedded by one model and compared by `loss_fn` across the whole batch.

    `query` and `target` are features of texts, of images (`image_features.Image`), or of texts with images
    (`interleaved.Interleaved`).

    The parameters are {"model": the model's, "loss": the loss's own, such as a learned temperature}. The trainer sets `model`.
    Intermediate embeddings are computed, in the same forward pass, where a loss needs them.
    """

    loss_fn: Loss
    model: Model | None = None

    def __post_init__(self):
        if self.model is not None and self._needs_intermediate and EMBEDDINGS not in self.model.methods:
            raise ConfigError(
                "a loss learns from the intermediate embedding, which a model of fewer than two linear maps does not have; give "
                "Embedder.projection two sizes, such as (3072, 768), or set EmbeddingDistillation.student = 'final'"
            )

    @property
    def _needs_intermediate(self) -> bool:
        return any(name.endswith(INTERMEDIATE) for name in needs_of(self.loss_fn))

    def init(self, key, start: Params | None = None) -> Variables:
        """Returns the variables; `types.Objective`."""
        model_params = self.model.init(key) if start is None else start
        return Variables({MODEL: model_params, LOSS: self.loss_fn.init()}, {}, {})

    def axes(self) -> Variables:
        """Returns their logical axes: the loss's own parameters are scalars."""
        scalars = jax.tree.map(lambda x: (None,) * x.ndim, jax.eval_shape(self.loss_fn.init))
        return Variables({MODEL: self.model.axes, LOSS: scalars}, {}, {})

    def forward(self, variables: Variables, batch: Batch, key, step) -> Outputs:
        """Returns the embeddings of a micro-batch as rows."""
        del step
        given = (self.model, variables.params[MODEL], batch, _TOWERS, key, self._needs_intermediate)
        return Outputs(embed_items(*given), {})

    def loss(self, params: Params, outputs: Outputs, batch: Batch, step) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss of the whole batch and its metrics."""
        beside: dict[str, Any] = {name: batch[name] for name in _BESIDE if name in batch}
        return self.loss_fn(PairEmbeddings(**outputs.rows, **beside), params[LOSS], step)

    def update(self, variables: Variables, outputs: Outputs, step) -> dict[str, Any]:
        """Returns {}: nothing moves."""
        del variables, outputs, step
        return {}

    def export(self, variables: Variables) -> Params:
        """Returns the model's parameters."""
        return variables.params[MODEL]

    def served(self, variables: Variables) -> Variables:
        """Returns the variables as they are."""
        return variables
