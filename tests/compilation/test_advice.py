"""The search for a mesh and a way to run the layers: by steps that are made up, whose best is known."""

import dataclasses
import math

import pytest

from embed.compilation import advice, chips, hlo
from embed.compilation.forecast import Step

CHIP = chips.Chip("made up", memory=100.0, flops=1.0, bandwidth=1.0, exchange=1.0, clock=1.0)


def made_up(shape, memory, seconds) -> Step:
    work = hlo.Work(flops=seconds, kernel_flops=0.0, bytes=0.0, cycles=0.0, collectives=(), unknown_loops=0)
    return Step("train", shape, CHIP, lasting=memory, work=work, model_flops=1.0)


@dataclasses.dataclass
class Compiler:
    """Memory falls with fsdp and with remat, time grows with both; unrolled layers are a tenth faster. Counts what is compiled."""

    compiled: list = dataclasses.field(default_factory=list)

    def __call__(self, shape, layers):
        self.compiled.append((shape, layers))
        data, fsdp, tensor = shape
        again = {"none": 1.0, "dots": 1.2, "full": 1.4}[layers.remat]
        seconds = again * (1 + 0.01 * fsdp + 0.2 * tensor) * (0.9 if layers.unrolled else 1.0)
        return made_up(shape, 600.0 / fsdp / again**2, seconds)


STARTS = [((16, 1, 1), ("none", False)), ((1, 16, 1), ("full", True)), ((1, 1, 16), ("none", False))]


@pytest.mark.parametrize("start", [(shape, advice.Layers(*layers)) for shape, layers in STARTS], ids=str)
def test_the_fastest_that_fits_is_found_from_anywhere_and_nothing_is_compiled_twice(start):
    compiler = Compiler()
    tried = advice.search(compiler, *start, ("none", "dots", "full"), batch_size=1 << 20)
    best = next(iter(tried))
    assert best == ((2, 8, 1), advice.Layers("none", True))  # 75 of 100 with nothing run again
    assert len(set(compiler.compiled)) == len(compiler.compiled) == len(tried)
    fits = [step.fits for step in tried.values()]
    assert fits == sorted(fits, reverse=True)


def test_meshes_over_which_the_batch_does_not_split_are_not_tried():
    compiler = Compiler()
    advice.search(compiler, (4, 1, 4), advice.Layers("none", False), ("none",), batch_size=4)
    assert all(4 % (shape[0] * shape[1]) == 0 for shape, _ in compiler.compiled)


def test_layers_are_told_as_the_table_has_them():
    told = {str(advice.Layers(remat, unrolled)) for remat in ("none", "full") for unrolled in (True, False)}
    assert told == {"unrolled", "scan", "unrolled, remat full", "scan, remat full"}


def test_a_step_that_was_refused_is_worse_than_any_that_was_not():
    refused = Step("train", (1, 1, 1), CHIP, refused="needs 17G of 16G a chip")
    too_large = made_up((1, 1, 1), memory=200.0, seconds=1.0)
    assert advice.badness(refused) > advice.badness(too_large) > advice.badness(made_up((1, 1, 1), 50.0, 9.0))
    assert math.isinf(refused.expected_seconds)
