"""Which mesh and which remat policy let a training step fit and run fastest: one change after the other is compiled."""

from collections.abc import Callable, Sequence

from embed.compilation.forecast import Step

Shape = tuple[int, int, int]


def search(
    attempt: Callable[[Shape, str], Step], shape: Shape, remat: str, policies: Sequence[str], batch_size: int
) -> dict[tuple[Shape, str], Step]:
    """Returns {(mesh, remat): step} of everything that was tried, best first.

    `attempt` compiles the step on a mesh (data, fsdp, tensor) with a remat policy. The search starts from `shape` and `remat`
    and goes on while a neighbour is better: a mesh axis doubled and another halved, or another of `policies`.
    """
    num_devices = shape[0] * shape[1] * shape[2]
    tried: dict[tuple[Shape, str], Step] = {}

    def step_of(shape: Shape, remat: str) -> Step:
        if (shape, remat) not in tried:
            tried[shape, remat] = attempt(shape, remat)
        return tried[shape, remat]

    def is_legal(shape: Shape) -> bool:
        return num_devices == shape[0] * shape[1] * shape[2] and batch_size % (shape[0] * shape[1]) == 0

    best = step_of(shape, remat)
    while True:
        changes = [(s, remat) for s in _neighbours(shape) if is_legal(s)]
        changes += [(shape, other) for other in policies if other != remat]
        change = min(changes, key=lambda c: badness(step_of(*c)), default=(shape, remat))
        if badness(step_of(*change)) >= badness(best):
            return dict(sorted(tried.items(), key=lambda item: badness(item[1])))
        (shape, remat), best = change, step_of(*change)


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
