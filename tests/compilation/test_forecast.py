"""What is told of a compiled step: the expected time."""

import dataclasses

from embed.compilation import chips, forecast, hlo


def test_the_expected_time_counts_kernels_of_which_the_compiler_knows_nothing():
    chip = chips.Chip("made up", 1e9, flops=100.0, bandwidth=1.0, exchange=1.0, clock=10.0)
    work = hlo.Work(flops=900.0, kernel_flops=200.0, bytes=0.0, cycles=30.0, collectives=(), unknown_loops=0)
    step = forecast.Step("train", (1, 1, 1), chip, work=work, model_flops=1.0)
    assert step.compiler_seconds == 3.0 + 200.0 / 50.0  # at half of the chip's speed
    assert dataclasses.replace(step, work=dataclasses.replace(work, cycles=0.0)).compiler_seconds is None
