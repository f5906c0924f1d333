"""Which mesh and which way to run the layers let a training step fit and run fastest: one change after the other is compiled."""

import dataclasses
from collections.abc import Callable, Sequence

from embed.compilation.forecast import Step

Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Layers:
    """How the layers of a model are run: the remat policy, a name of `transformer.REMAT`, and whether the scan over them is
    unrolled whole."""

    remat: str
    unrolled: bool

    def __str__(self):
        again = "" if self.remat == "none" else f", remat {self.remat}"
        return f"{'unrolled' if self.unrolled else 'scan'}{again}"


def search(
    attempt: Callable[[Shape, Layers], Step], shape: Shape, layers: Layers, policies: Sequence[str], batch_size: int
) -> dict[tuple[Shape, Layers], Step]:
    """Returns {(mesh, layers): step} of everything that was tried, best first.

    `attempt` compiles the step on a mesh (data, fsdp, tensor) with its layers run in one way. The search starts from `shape` and
    `layers` and goes on while a neighbour is better: a mesh axis doubled and another halved, another of the remat `policies`, or
    the scan unrolled where it was not, or not unrolled where it was.
    """
    num_devices = shape[0] * shape[1] * shape[2]
    tried: dict[tuple[Shape, Layers], Step] = {}

    def step_of(shape: Shape, layers: Layers) -> Step:
        if (shape, layers) not in tried:
            tried[shape, layers] = attempt(shape, layers)
        return tried[shape, layers]

    def is_legal(shape: Shape) -> bool:
        return num_devices == shape[0] * shape[1] * shape[2] and batch_size % (shape[0] * shape[1]) == 0

    best = step_of(shape, layers)
    while True:
        changes = [(s, layers) for s in _neighbours(shape) if is_legal(s)]
        changes += [(shape, Layers(other, layers.unrolled)) for other in policies if other != layers.remat]
        changes += [(shape, Layers(layers.remat, not layers.unrolled))]
        change = min(changes, key=lambda c: badness(step_of(*c)))
        if badness(step_of(*change)) >= badness(best):
            return dict(sorted(tried.items(), key=lambda item: badness(item[1])))
        (shape, layers), best = change, step_of(*change)


def _neighbours(shape: Shape) -> list[Shape]:
    data, fsdp, tensor = shape
    return [
        (data * 2, fsdp // 2, tensor), (data // 2, fsdp * 2, tensor),
        (data, fsdp // 2, tensor * 2), (data, fsdp * 2, tensor // 2),
        (data // 2, fsdp, tensor * 2), (data * 2, fsdp, tensor // 2),
    ]  # fmt: skip


def badness(step: Step) -> tuple[bool, float, float, float, float]:
    """Orders steps. Those that fit come first, by the time that is expected of them; where the speed of the chip is not known,
    by the FLOPs that are run, then by memory. Those that do not fit come by their memory, so that the search leads to one that
    does."""
    excess = 0.0 if step.fits is not False else float("inf") if step.refused else step.memory
    flops = step.work.flops if step.work else 0.0
    return step.fits is False, excess, step.expected_seconds, flops, step.memory
