"""Objectives of images alone: metric learning from classes, and distillation from specialists.

An objective with `one_domain_per_batch` compares the images of a batch with each other in the space of their domain's teacher: each
domain is a task, and `tasks.Mixture.one_task_per_batch` is needed. `Classified` takes batches of any domains.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embed.errors import ConfigError
from embed.losses.classes import ByClass
from embed.losses.relational import Relational
from embed.losses.udon import Udon
from embed.types import Batch, Metrics, Model, Outputs, Params, Variables
from embed.vectors import normalize

MODEL, LOSS, TEACHERS = "model", "loss", "teachers"
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
        self._check(batch)
        inputs = {"pixels": batch[IMAGE]}
        return Outputs({IMAGE: self.model.apply(variables.params[MODEL], inputs, method="image", key=key)}, {})

    def _check(self, batch: Batch) -> None:
        """Raises ConfigError for what the batch lacks."""
        for name in self.needed:
            if name not in batch:
                raise ConfigError(
                    f"{type(self).__name__} reads {name!r}, which no feature gives; put it into Recipe.features"
                )

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
class DomainTeachers(_Images):
    """Images and their classes, by UDON: the model is the student, and each domain has a linear teacher on the same backbone.

    The batch has `image` and `label` (`image_features.Classes`); the list of classes is ordered by domain. Deviation: from step
    1,000 on the paper draws hard domains more often. Here the mixture's rates are fixed, as a batch must depend on its number alone
    for a bitwise resume.
    Source: arXiv:2406.08332.
    """

    loss_fn: Udon
    needed = (IMAGE, CLASS)
    one_domain_per_batch = True

    def __post_init__(self):
        super().__post_init__()
        if self.model is not None and self.model.embedding_dim != self.loss_fn.student_dim:
            raise ConfigError(
                f"Udon.student_dim = {self.loss_fn.student_dim}, and the model's embeddings have {self.model.embedding_dim} "
                "values; make them equal"
            )

    def check_features(self, features) -> None:
        """Raises ConfigError unless the classes of the data are as many as those of all domains."""
        for feature in features:
            count = getattr(feature, "num_classes", None)
            if count not in (None, self.loss_fn.num_classes):
                raise ConfigError(
                    f"Udon.classes_per_domain sums to {self.loss_fn.num_classes}, and {feature.names} lists {count}; make them "
                    "equal"
                )

    @property
    def _width(self) -> int:
        return self.model.description["encoder"]["width"]

    def init(self, key, start: Params | None = None) -> Variables:
        """Returns the first variables; the heads of the teachers are float32 [domains, D, T]."""
        keys = jax.random.split(key, 3)
        shape = (len(self.loss_fn.classes_per_domain), self._width, self.loss_fn.teacher_dim)
        teachers = jax.random.normal(keys[2], shape) / self._width**0.5
        model = self.model.init(keys[0]) if start is None else start
        return Variables({MODEL: model, LOSS: self.loss_fn.init(keys[1]), TEACHERS: teachers}, {}, {})

    def axes(self) -> Variables:
        """Returns the logical axes of the variables."""
        params = {MODEL: self.model.axes, LOSS: self.loss_fn.axes(), TEACHERS: (None, "width", "embedding")}
        return Variables(params, {}, {})

    def forward(self, variables: Variables, batch: Batch, key, step) -> Outputs:
        """Returns the embeddings of the student and of the teachers as rows."""
        del step
        self._check(batch)
        given = (variables.params[MODEL], {"pixels": batch[IMAGE]})
        student, token = self.model.apply(*given, method="image_with_token", key=key)
        every = jnp.einsum("bd,ndt->bnt", token, variables.params[TEACHERS])
        domain = self.loss_fn.domain_of(batch[CLASS])
        teacher = normalize(jnp.take_along_axis(every, domain[:, None, None], 1)[:, 0])
        return Outputs({IMAGE: student, TEACHER: teacher}, {})

    def loss(self, params: Params, outputs: Outputs, batch: Batch, step) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss of the whole batch and its metrics."""
        del step
        rows = outputs.rows
        return self.loss_fn(params[LOSS], rows[IMAGE], rows[TEACHER], batch[CLASS], batch.get(f"{IMAGE}_id"))


@dataclasses.dataclass(frozen=True)
class Specialists(_Images):
    """Images and the vectors that the specialist of their domain gives them, compared by `loss_fn`. Source: arXiv:2003.03701.

    The batch has `image` and `teacher` (`features.Vectors` of the images).
    """

    loss_fn: Relational = Relational()
    needed = (IMAGE, TEACHER)
    one_domain_per_batch = True

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
