"""Objectives of images alone: metric learning from classes, and distillation from specialists.

A batch is of one domain (`tasks.Mixture.one_task_per_batch`).
"""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Float

from embed.errors import ConfigError
from embed.losses.classes import ByClass
from embed.losses.relational import Relational
from embed.types import Batch, Metrics, Model, Outputs, Params, Variables

MODEL, LOSS = "model", "loss"
IMAGE, TEACHER, CLASS = "image", "teacher", "label"


@dataclasses.dataclass(frozen=True)
class _Images:
    """Base: a model that embeds the images of a batch. The trainer sets `model`."""

    model: Model | None = dataclasses.field(default=None, kw_only=True)
    needed = (IMAGE,)

    def __post_init__(self):
        if self.model is not None and "image" not in self.model.methods:
            raise ConfigError(
                f"{type(self).__name__} needs a model that embeds images; bind Recipe.model to a dual_encoder.ImageEmbedder"
            )

    def axes(self) -> Variables:
        """Returns the logical axes of the variables."""
        return Variables({MODEL: self.model.axes, LOSS: self._loss_axes()}, {}, {})

    def _loss_axes(self) -> Params:
        return {}

    def forward(self, variables: Variables, batch: Batch, key, step) -> Outputs:
        """Returns the embeddings of a micro-batch as rows."""
        del step
        for name in self.needed:
            if name not in batch:
                raise ConfigError(
                    f"{type(self).__name__} reads {name!r}, which no feature gives; put it into Recipe.features"
                )
        dropout = key if self.model.dropout else None
        inputs = {"pixels": batch[IMAGE]}
        return Outputs({IMAGE: self.model.apply(variables.params[MODEL], inputs, method="image", key=dropout)}, {})

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


@dataclasses.dataclass(frozen=True)
class Classified(_Images):
    """Images and their classes, by `loss_fn`. The batch has `image` and `label` (`image_features.Classes`).

    With one domain it trains a specialist; with the classes of several it is the fused training of arXiv:2003.03701.
    """

    loss_fn: ByClass
    needed = (IMAGE, CLASS)

    def __post_init__(self):
        super().__post_init__()
        if self.model is not None and self.model.embedding_dim != self.loss_fn.embedding_dim:
            raise ConfigError(
                f"ByClass.embedding_dim = {self.loss_fn.embedding_dim}, and the model's embeddings have "
                f"{self.model.embedding_dim} values; set it to that"
            )

    def check_features(self, features) -> None:
        """Raises ConfigError unless the classes of the data are as many as the loss has."""
        for feature in features:
            count = getattr(feature, "num_classes", None)
            if count not in (None, self.loss_fn.num_classes):
                raise ConfigError(
                    f"ByClass.num_classes = {self.loss_fn.num_classes}, and {feature.names} names {count} classes; set it to that"
                )

    def init(self, key, start: Params | None = None) -> Variables:
        """Returns the first variables."""
        model_key, loss_key = jax.random.split(key)
        model = self.model.init(model_key) if start is None else start
        return Variables({MODEL: model, LOSS: self.loss_fn.init(loss_key)}, {}, {})

    def _loss_axes(self) -> Params:
        return self.loss_fn.axes()

    def loss(self, params: Params, outputs: Outputs, batch: Batch, step) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss of the whole batch and its metrics."""
        del step
        return self.loss_fn(params[LOSS], outputs.rows[IMAGE], batch[CLASS])


@dataclasses.dataclass(frozen=True)
class Specialists(_Images):
    """Images and the vectors that the specialist of their domain gives them, compared by `loss_fn`. Source: arXiv:2003.03701.

    The batch has `image` and `teacher` (`features.Vectors` of the images).
    """

    loss_fn: Relational = Relational()
    needed = (IMAGE, TEACHER)

    def init(self, key, start: Params | None = None) -> Variables:
        """Returns the first variables."""
        return Variables({MODEL: self.model.init(key) if start is None else start, LOSS: {}}, {}, {})

    def loss(self, params: Params, outputs: Outputs, batch: Batch, step) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss of the whole batch and its metrics."""
        del params, step
        student, teacher = outputs.rows[IMAGE], batch[TEACHER]
        if self.loss_fn.kind == "vectors" and student.shape[-1] != teacher.shape[-1]:
            raise ConfigError(
                f"Relational.kind = 'vectors' compares embeddings of {student.shape[-1]} values with a specialist's of "
                f"{teacher.shape[-1]}; make them equal, or compare distances"
            )
        return self.loss_fn(student, teacher, batch.get(f"{IMAGE}_id"))
