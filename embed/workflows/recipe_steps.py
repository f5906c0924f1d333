"""The steps of a recipe, compiled for devices that need not be there: training, scoring and encoding."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from embed import sharding
from embed.compilation import forecast
from embed.compilation.advice import Layers
from embed.data.examples import Examples
from embed.data.features import Feature
from embed.data.loader import Batches
from embed.data.text_features import text_features
from embed.inference.encoder import Encoder
from embed.inference.model import cast_once, image_encoder
from embed.models import api
from embed.training import optimizers
from embed.training.programs import Programs, fit
from embed.training.state import create, layout, with_shardings
from embed.training.step import make_step
from embed.types import Method, Model, Objective
from embed.workflows.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class FullCache:
    """Stands for a task's cache before there is one: every text is as long as the recipe lets it be."""

    name: str
    features: Sequence[Feature]

    @property
    def columns(self) -> dict[str, int]:
        """As `Cache.columns`."""
        return {f.name: math.prod(f.each) for f in text_features(self.features)}

    @property
    def longest(self) -> int:
        """As `Cache.longest`."""
        return max((f.length for f in text_features(self.features) if math.prod(f.each)), default=0)

    def lengths(self, name: str, indices: Sequence[int]) -> np.ndarray:
        """As `Cache.lengths`."""
        length = next(f.length for f in text_features(self.features) if f.name == name)
        return np.full((len(indices), self.columns[name]), length, np.int32)

    def __len__(self) -> int:
        return 4


@dataclasses.dataclass(frozen=True)
class Plan:
    """What of a recipe decides its steps."""

    model: Model
    objective: Objective
    optimizer: Any
    caches: tuple[FullCache, ...]
    mixture: Any
    batch_size: int
    features: Sequence[Feature]
    max_length: int

    @property
    def _text(self) -> Method | None:
        """How texts are embedded; None of a model of images alone."""
        return self.model.methods.get("text")

    @property
    def _packs(self) -> bool:
        return self._text is not None and self._text.packs

    def train(self, mesh: Mesh, micro_batches: int | None = None) -> forecast.Step:
        """Compiles the training step, every text at its longest; in as many micro-batches as training would choose for None."""
        sharding.check_batch_size(self.batch_size, mesh, micro_batches or 1)
        examples = Examples(self.mixture, self.caches, self.features, self.batch_size, 0)
        batches = Batches(examples, sharding.batch_shards(mesh), packs=self._packs, max_shapes=1)
        abstract = jax.eval_shape(lambda: create(self.objective, self.optimizer, 0))
        state = with_shardings(abstract, layout(self.objective, abstract, mesh))

        def make(cut: Batches) -> Programs:
            return Programs(make_step(self.objective, self.optimizer, seed=0), state, cut, mesh)

        def compile_it():
            cut, programs = fit(make, batches, micro_batches, forecast.memory_of(mesh) * sharding.OF_DEVICE)
            return programs.largest, cut.micro_batches

        flops = 3 * self.batch_size * sum(f.flops(self.model.methods) for f in self.features)
        return forecast.compiled("train", mesh, flops, compile_it)

    def evaluate(self, mesh: Mesh) -> forecast.Step:
        """Compiles what scoring runs in training: texts of the longest kind, or images, with the parameters where they lie."""
        return self._encode("evaluate", mesh, jax.eval_shape(self.model.init, jax.random.key(0)))

    def encode(self, devices) -> forecast.Step:
        """Compiles what `embed encode` runs on the devices of one host (a CPU lays the layers of a small model apart)."""
        shapes = jax.eval_shape(self.model.init, jax.random.key(0))
        memory = forecast.memory_of(sharding.make_mesh(devices=devices))
        mesh = sharding.make_mesh(sharding.serving_shape(shapes, len(devices), memory), devices)
        return self._encode("encode", mesh, jax.eval_shape(lambda params: cast_once(params, self.model), shapes))

    def _encode(self, name: str, mesh: Mesh, shapes) -> forecast.Step:
        if self._text is None:
            return self._encode_images(name, mesh, shapes)
        encoder = Encoder(self.model, None, {}, self.max_length, mesh)
        longest = np.zeros(self.max_length, np.int32)
        batch = encoder.plan([longest] * (encoder.batch_tokens // self.max_length + 1))[0]
        params = with_shardings(shapes, sharding.shardings(self.model.axes, shapes, mesh))
        flops = self._text.flops(self.max_length) * len(batch.texts)
        return forecast.compiled(name, mesh, flops, lambda: (encoder.lowered(params, batch).compile(), 1))

    def _encode_images(self, name: str, mesh: Mesh, shapes) -> forecast.Step:
        encoder = image_encoder(self.model, mesh)
        params = with_shardings(shapes, sharding.shardings(self.model.axes, shapes, mesh))
        flops = self.model.methods["image"].flops(encoder.size, encoder.size) * encoder.batch_size
        return forecast.compiled(name, mesh, flops, lambda: (encoder.lowered(params, encoder.batch_size).compile(), 1))


def plan_of(recipe: Recipe, layers: Layers | None = None) -> Plan:
    """Returns the plan of a recipe, with the layers of its encoders run as `layers` says where it is given."""
    module = recipe.model if layers is None else api.with_layers(recipe.model, layers.remat, layers.unrolled)
    model, features = api.build(module), recipe.record_features
    return Plan(
        model=model,
        objective=recipe.built_objective(model),
        optimizer=optimizers.over(
            recipe.optimizer, recipe.schedule.steps or 1
        ),  # the rate changes nothing of a program
        caches=tuple(FullCache(task.name, features) for task in recipe.mixture.tasks),
        mixture=recipe.mixture,
        batch_size=recipe.batch_size,
        features=features,
        max_length=recipe.max_length or recipe.longest_text,
    )
