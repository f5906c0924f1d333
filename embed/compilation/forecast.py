"""What one compiled step needs of a device: memory, FLOPs, exchange and time, or why its device cannot hold it."""

import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from embed import sharding
from embed.compilation import chips, hlo
from embed.compilation.parts import Part, parts
from embed.errors import DoesNotFit


@dataclasses.dataclass(frozen=True)
class Step:
    """One step as compiled for the devices of a mesh. Bytes and FLOPs are those of one device.

    `lasting` are the bytes of arguments and outputs, `temporary` those in between; `model_flops` what the texts need by the
    formula of the model (training: three times the forward pass, whatever is computed again). `parts` is where the work goes.
    `refused` is what the compiler said of a step that its device cannot hold, and then the rest is zero.
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
    parts: tuple[Part, ...] = ()

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
    def expected_seconds(self) -> float:
        """The compiler's estimate, no less than any bound; infinite for a step that was refused."""
        return max([self.compiler_seconds or 0.0, *self.bounds.values()]) if self.work else float("inf")

    @property
    def utilization(self) -> float | None:
        """The share of the chip's peak that the model's own FLOPs would take of the expected time (MFU); None where it is not
        known."""
        if not (self.chip and self.compiler_seconds):
            return None
        return self.model_flops / self.chip.flops / self.expected_seconds

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


def memory_of(mesh: Mesh) -> float:
    """Returns the bytes of a device of the mesh."""
    device = mesh.devices.flat[0]
    chip = chips.chip_of(device)
    return chip.memory if chip else sharding.device_memory() / sharding.OF_DEVICE


def compiled(name: str, mesh: Mesh, flops: float, compile_it: Callable[[], tuple[Any, int]]) -> Step:
    """Returns what was compiled and in how many micro-batches, or how it was refused. `flops` are of all devices."""
    shape, chip = tuple(mesh.devices.shape), chips.chip_of(mesh.devices.flat[0])
    began = time.perf_counter()
    try:
        with jax.set_mesh(mesh):
            program, micro_batches = compile_it()
    except jax.errors.JaxRuntimeError as e:
        if "RESOURCE_EXHAUSTED" not in str(e):
            raise
        return Step(name, shape, chip, refused=_needed(str(e)), seconds_to_compile=time.perf_counter() - began)
    except DoesNotFit as e:
        return Step(name, shape, chip, refused=str(e), seconds_to_compile=time.perf_counter() - began)
    took = time.perf_counter() - began
    memory = program.memory_analysis()
    lasting = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    module = hlo.Program(program.as_text())
    return Step(
        name,
        shape,
        chip,
        lasting,
        memory.temp_size_in_bytes,
        flops / mesh.size,
        module.work(),
        took,
        micro_batches,
        parts=tuple(parts(module.costs(), chip)),
    )


def _needed(message: str) -> str:
    """Returns what the compiler says a program needs that its device cannot hold."""
    used = re.search(r"Used ([\d.]+[KMGT]) of ([\d.]+[KMGT])", message) or re.search(
        r"\(([\d.]+[KMGT])\) exceeds available \w+ \(([\d.]+[KMGT])\)", message
    )
    return f"needs {used.group(1)} of {used.group(2)} a chip" if used else message.splitlines()[0][:100]
