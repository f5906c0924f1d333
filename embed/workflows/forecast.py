"""What a recipe's steps need, on devices that need not be there: they are compiled for them, and what was compiled is read."""

import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from embed import sharding
from embed.compilation import chips, hlo
from embed.data.loader import Batches, Examples
from embed.inference.encoder import Encoder
from embed.inference.model import cast_once
from embed.training.programs import DoesNotFit, Programs, fit
from embed.training.state import create, layout, with_shardings
from embed.training.step import make_step
from embed.types import Method, Model, Objective


@dataclasses.dataclass(frozen=True)
class FullCache:
    """Stands for a task's token cache before there is one: every text is as long as the recipe lets it be."""

    name: str
    texts: tuple[int, ...]  # tokens of the query, the target, each negative

    @property
    def longest(self) -> int:
        return max(self.texts)

    @property
    def most_negatives(self) -> int:
        return len(self.texts) - 2

    @property
    def lengths(self) -> np.ndarray:
        return np.tile(np.array(self.texts, np.int32), (len(self), 1))

    def __len__(self) -> int:
        return 4


@dataclasses.dataclass(frozen=True)
class Step:
    """One step as compiled for the devices of a mesh. Bytes and FLOPs are those of one device.

    `lasting` are the bytes of arguments and outputs, `temporary` those in between; `model_flops` what the texts need by the
    formula of the model (training: three times the forward pass, whatever is computed again). `refused` is what the compiler
    said of a step that its device cannot hold, and then the rest is zero.
    """

    name: str
    mesh: tuple[int, int, int]
    chip: chips.Chip | None
    lasting: float = 0.0
    temporary: float = 0.0
    model_flops: float = 0.0
    work: hlo.Work | None = None
    seconds_to_compile: float = 0.0
    micro_batches: int = 1
    refused: str | None = None

    @property
    def memory(self) -> float:
        return self.lasting + self.temporary

    @property
    def fits(self) -> bool | None:
        """Whether a device holds it; None where its memory is not known."""
        if self.refused:
            return False
        return None if self.chip is None else self.memory <= self.chip.memory

    @property
    def executed(self) -> float:
        """FLOPs that are run for one that the model needs."""
        return self.work.flops / self.model_flops if self.work else float("nan")

    @property
    def compiler_seconds(self) -> float | None:
        """The compiler's own estimate of the time, without waiting for other devices; None where it makes none.

        Of attention's kernels it knows nothing: they are taken to run at half of the chip's speed.
        """
        if not (self.chip and self.work and self.work.cycles):
            return None
        return self.work.cycles / self.chip.clock + self.work.kernel_flops / (0.5 * self.chip.flops)

    @property
    def bounds(self) -> Mapping[str, float]:
        """Seconds that the step takes at least, by what limits it: each alone, at the speed of the data sheet."""
        if self.chip is None or self.work is None:
            return {}
        return {
            "compute": self.work.flops / self.chip.flops,
            "memory": self.work.bytes / self.chip.bandwidth,
            "exchange": self.work.exchanged / self.chip.exchange,
        }


@dataclasses.dataclass(frozen=True)
class Plan:
    """What of a recipe decides its steps."""

    model: Model
    objective: Objective
    optimizer: Any
    caches: tuple[FullCache, ...]
    mixture: Any
    batch_size: int
    num_negatives: int
    max_length: int

    @property
    def _text(self) -> Method:
        return self.model.methods["text"]

    def train(self, mesh: Mesh, micro_batches: int | None = None) -> Step:
        """Compiles the training step, every text at its longest; in as many micro-batches as training would choose for None."""
        sharding.check_batch_size(self.batch_size, mesh, micro_batches or 1)
        examples = Examples(self.mixture, self.caches, self.batch_size, self.num_negatives, 0)
        batches = Batches(examples, sharding.batch_shards(mesh), packs=self._text.packs, most_shapes=1)
        abstract = jax.eval_shape(lambda: create(self.objective, self.optimizer, 0))
        state = with_shardings(abstract, layout(self.objective, abstract, mesh))

        def make(cut: Batches) -> Programs:
            return Programs(make_step(self.objective, self.optimizer, seed=0), state, cut, mesh)

        def compile_it():
            cut, programs = fit(make, batches, micro_batches, _memory(mesh) * sharding.OF_DEVICE)
            return programs.largest, cut.parts

        flops = 3 * sum(self._text.flops(n) for n in self.caches[0].texts) * self.batch_size
        return _compiled("train", mesh, flops, compile_it)

    def evaluate(self, mesh: Mesh) -> Step:
        """Compiles what scoring runs in training: texts of the longest kind, with the parameters where they lie."""
        return self._encode("evaluate", mesh, jax.eval_shape(self.model.init, jax.random.key(0)))

    def encode(self, devices) -> Step:
        """Compiles what `embed encode` runs on the devices of one host (a CPU lays the layers of a small model apart)."""
        shapes = jax.eval_shape(self.model.init, jax.random.key(0))
        memory = _memory(sharding.make_mesh(devices=devices))
        mesh = sharding.make_mesh(sharding.serving_shape(shapes, len(devices), memory), devices)
        return self._encode("encode", mesh, jax.eval_shape(lambda params: cast_once(params, self.model), shapes))

    def _encode(self, name: str, mesh: Mesh, shapes) -> Step:
        encoder = Encoder(self.model, None, {}, self.max_length, mesh)
        longest = np.zeros(self.max_length, np.int32)
        batch = encoder.plan([longest] * (encoder.batch_tokens // self.max_length + 1))[0]
        params = with_shardings(shapes, sharding.shardings(self.model.axes, shapes, mesh))
        flops = self._text.flops(self.max_length) * len(batch.texts)
        return _compiled(name, mesh, flops, lambda: (encoder.lowered(params, batch).compile(), 1))


def _memory(mesh: Mesh) -> float:
    """Returns the bytes of a device of the mesh."""
    device = mesh.devices.flat[0]
    chip = chips.chip_of(device)
    return chip.memory if chip else sharding.device_memory() / sharding.OF_DEVICE


def _compiled(name: str, mesh: Mesh, flops: float, compile_it: Callable[[], tuple[Any, int]]) -> Step:
    """Returns what was compiled and in how many micro-batches, or how it was refused. `flops` are of all devices."""
    shape, chip = tuple(mesh.devices.shape), chips.chip_of(mesh.devices.flat[0])
    began = time.perf_counter()
    try:
        with jax.set_mesh(mesh):
            program, parts = compile_it()
    except jax.errors.JaxRuntimeError as e:
        if "RESOURCE_EXHAUSTED" not in str(e):
            raise
        return Step(name, shape, chip, refused=_needed(str(e)), seconds_to_compile=time.perf_counter() - began)
    except DoesNotFit as e:
        return Step(name, shape, chip, refused=str(e), seconds_to_compile=time.perf_counter() - began)
    took = time.perf_counter() - began
    memory = program.memory_analysis()
    lasting = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    work = hlo.work(program.as_text())
    return Step(name, shape, chip, lasting, memory.temp_size_in_bytes, flops / mesh.size, work, took, parts)


def _needed(message: str) -> str:
    """Returns what the compiler says a program needs that its device cannot hold."""
    used = re.search(r"Used ([\d.]+[KMGT]) of ([\d.]+[KMGT])", message) or re.search(
        r"\(([\d.]+[KMGT])\) exceeds available \w+ \(([\d.]+[KMGT])\)", message
    )
    return f"needs {used.group(1)} of {used.group(2)} a chip" if used else message.splitlines()[0][:100]
