"""What a recipe's steps need, on devices that need not be there: they are compiled for them, and what was compiled is read."""

import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from embed import sharding
from embed.data import packing
from embed.data.loader import Batches, Examples
from embed.training import chips, compiled
from embed.training.programs import Programs
from embed.training.state import create, layout, with_shardings
from embed.training.step import make_step
from embed.types import Loss, Model


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
    work: compiled.Work | None = None
    seconds_to_compile: float = 0.0
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
        """The compiler's own estimate of the time, without waiting for other devices; None where it makes none."""
        return self.work.cycles / self.chip.clock if self.chip and self.work and self.work.cycles else None

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
    loss: Loss
    optimizer: optax.GradientTransformation
    caches: tuple[FullCache, ...]
    mixture: Any
    batch_size: int
    num_negatives: int
    max_length: int
    ema: bool = False
    dropout: bool = False

    @property
    def size(self) -> int:
        """Bytes of the parameters."""
        shapes = jax.eval_shape(self.model.init, jax.random.key(0))
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))

    def train(self, mesh: Mesh, micro_batches: int = 1) -> Step:
        """Compiles the training step, every text at its longest."""
        sharding.check_batch_size(self.batch_size, mesh, micro_batches)
        examples = Examples(self.mixture, self.caches, self.batch_size, self.num_negatives, 0)
        batches = Batches(
            examples, sharding.batch_shards(mesh), parts=micro_batches, packs=self.model.packs, most_shapes=1
        )
        ema_decay = 0.999 if self.ema else None
        step = make_step(
            self.model,
            self.loss,
            self.optimizer,
            seed=0,
            dropout=self.dropout,
            ema_decay=ema_decay,
            slots=batches.slots,
        )
        abstract = jax.eval_shape(lambda: create(self.model, self.optimizer, self.ema, 0))
        flops = 3 * sum(self.model.forward_flops(n) for n in self.caches[0].texts) * self.batch_size
        return _compiled(
            "train",
            mesh,
            flops,
            lambda: Programs(step, with_shardings(abstract, layout(self.model, abstract, mesh)), batches, mesh).largest,
        )

    def encode(self, mesh: Mesh, tokens: int = 16_384, name: str = "encode") -> Step:
        """Compiles what evaluating and encoding run: `tokens` a shard of the batch, in rows of the longest texts."""
        length = packing.row_length(self.max_length)
        height = sharding.batch_shards(mesh) * max(1, tokens // length)
        slots = max(1, length // self.max_length) if self.model.packs else None
        shapes = jax.eval_shape(self.model.init, jax.random.key(0))
        placed = sharding.shardings(self.model.axes, shapes, mesh)
        params = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, placed)
        rows = jax.ShapeDtypeStruct((height, length), jnp.int32, sharding=sharding.batch_sharding(mesh))

        def run(params, ids, segments):
            if slots is None:
                return self.model.apply(params, ids, segments > 0)
            return self.model.apply(params, ids, segments, slots=slots)

        jitted = jax.jit(run, out_shardings=sharding.replicated(mesh))
        flops = self.model.forward_flops(self.max_length) * height * (slots or 1)
        return _compiled(name, mesh, flops, lambda: jitted.lower(params, rows, rows).compile())


def _compiled(name: str, mesh: Mesh, flops: float, compile_it: Callable[[], Any]) -> Step:
    """Returns what was compiled, or how the compiler refused it. `flops` are of all devices."""
    shape, chip = tuple(mesh.devices.shape), chips.chip_of(mesh.devices.flat[0])
    began = time.perf_counter()
    try:
        with jax.set_mesh(mesh):
            program = compile_it()
    except jax.errors.JaxRuntimeError as e:
        if "RESOURCE_EXHAUSTED" not in str(e):
            raise
        return Step(name, shape, chip, refused=_needed(str(e)), seconds_to_compile=time.perf_counter() - began)
    took = time.perf_counter() - began
    memory = program.memory_analysis()
    lasting = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    work = compiled.work(program.as_text())
    return Step(name, shape, chip, lasting, memory.temp_size_in_bytes, flops / mesh.size, work, took)


def _needed(message: str) -> str:
    """Returns what the compiler says a program needs that its device cannot hold."""
    used = re.search(r"Used ([\d.]+[KMGT]) of ([\d.]+[KMGT])", message) or re.search(
        r"\(([\d.]+[KMGT])\) exceeds available \w+ \(([\d.]+[KMGT])\)", message
    )
    return f"needs {used.group(1)} of {used.group(2)}" if used else message.splitlines()[0][:100]
