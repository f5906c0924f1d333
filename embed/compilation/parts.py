"""Where the work of a compiled step goes: its instructions, summed by the part of the model or of the training step they belong to.

XLA keeps the names of Flax's modules and of `jax.named_scope` with each instruction; the part is found by these names. A fusion
belongs to the part of its largest matrix product, or of its result where it has none: a norm that is fused into a product counts
as the product's part.
"""

import collections
import dataclasses
import re
from collections.abc import Sequence

from embed.compilation.chips import Chip
from embed.compilation.hlo import COLLECTIVES, Cost

OPTIMIZER, EXCHANGE, OTHER = "optimizer", "exchange", "other"
# The first pattern that matches a scope decides: modules inside a block come before the block, and the block before the model.
_PARTS = (
    (OPTIMIZER, r"\boptimizer\b"),
    ("loss", r"\bloss\b"),
    ("norms", r"\w*norm\b"),
    ("attention", r"\b(cross_)?attention\b|splash"),
    ("mlp", r"\bmlp\b"),
    ("token table", r"\bembedding\b"),
    ("blocks: sums, loops", r"\blayers\b|\bstack\b"),
    ("before and after blocks", r"\bjvp\(|Embedder|params"),
)
PASSES = ("forward", "again", "backward")


@dataclasses.dataclass(frozen=True)
class Part:
    """What one part of a step costs on one device, as in `hlo.Work`, and seconds by pass.

    `seconds` are the compiler's estimate, with attention kernels at half of the chip's peak, and 0 for a chip that is not known.
    `passes` are the seconds of each of `PASSES`. `bound` are the seconds that the part takes at least: the largest of its FLOPs,
    its memory traffic and its exchanged bytes, each divided by the chip's speed.
    """

    name: str
    flops: float
    bytes: float
    seconds: float
    passes: tuple[float, float, float]
    bound: float


def parts(costs: Sequence[Cost], chip: Chip | None) -> list[Part]:
    """Returns the parts of a step, the slowest first; without a chip, the part with the most traffic first."""
    groups: dict[str, list[Cost]] = collections.defaultdict(list)
    for cost in costs:
        groups[part_of(cost)].append(cost)
    summed = [_part(name, group, chip) for name, group in groups.items()]
    return sorted(summed, key=lambda part: (-part.seconds, -part.bytes))


def part_of(cost: Cost) -> str:
    """Returns the name of the part that an instruction belongs to."""
    if cost.opcode.removesuffix("-start") in COLLECTIVES:
        return EXCHANGE
    scope = cost.scope
    return next((name for name, pattern in _PARTS if re.search(pattern, scope)), OTHER)


def pass_of(cost: Cost) -> str | None:
    """Returns which of `PASSES` an instruction belongs to: 'again' is the forward pass that is recomputed for the backward one.

    None where it belongs to none: exchanges, the optimiser, and what nothing is known of.
    """
    if part_of(cost) in (EXCHANGE, OPTIMIZER, OTHER):
        return None
    if "rematted_computation" in cost.scope:
        return "again"
    if "transpose(" in cost.scope:
        return "backward"
    return "again" if re.search(r"\bagain\b", cost.scope) else "forward"


def _part(name: str, costs: Sequence[Cost], chip: Chip | None) -> Part:
    passes = dict.fromkeys(PASSES, 0.0)
    total = bound = 0.0
    for cost in costs:
        if chip is None:
            continue
        seconds = cost.cycles / chip.clock + cost.kernel_flops / (0.5 * chip.flops)
        total += seconds
        if which := pass_of(cost):
            passes[which] += seconds
    flops, traffic = sum(cost.flops for cost in costs), sum(cost.bytes for cost in costs)
    if chip is not None:
        exchanged = sum(cost.exchanged for cost in costs)
        bound = max(flops / chip.flops, traffic / chip.bandwidth, exchanged / chip.exchange)
    return Part(name, flops, traffic, total, tuple(passes[which] for which in PASSES), bound)
