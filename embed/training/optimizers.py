"""Optimisers and schedules; which parameters learn, and how fast, by regular expressions on their paths."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import optax
from msgspec import Meta

from embed.errors import ConfigError
from embed.ranges import Count, Natural, NonNegative, Positive, Share
from embed.trees import flatten

Schedule = Callable[[jax.Array], jax.Array]


class Optimizer(NamedTuple):
    """An optax transformation that knows its learning rate, so that the trainer can report it. Any other works as well.

    `over(steps)` returns the optimiser for a run of that many steps, for a learning rate that depends on them.
    """

    init: Callable
    update: Callable
    learning_rate: Schedule
    over: Callable[[int], "Optimizer"]


@dataclasses.dataclass(frozen=True)
class OverRun:
    """A learning rate that depends on the length of the run: `over(steps)` returns it as a schedule."""

    over: Callable[[int], Schedule]

    def __call__(self, step):
        raise ConfigError(
            "the learning rate depends on the length of the run; give schedule.total_steps, or train with `over`"
        )


# `mean` and `inverse_deviation` are constants of `gemma_vision`, which no gradient moves.
_NOT_DECAYED = re.compile(r"(scale|bias|temperature|/mean|inverse_deviation)$")


def schedule(
    peak: NonNegative,
    total_steps: Count | None = None,
    warmup_steps: Natural = 0,
    decay: str = "cosine",
    final_ratio: Share = 0.0,
) -> Schedule | OverRun:
    """Returns the learning rate per step: linear warm-up to `peak`, then constant, linear, cosine or rsqrt decay.

    Linear and cosine end at `final_ratio * peak` after `total_steps`; None is the length of the run.
    """
    if total_steps is None:
        return OverRun(lambda steps: schedule(peak, steps, warmup_steps, decay, final_ratio))
    if not 0 <= warmup_steps <= total_steps:
        raise ConfigError(f"schedule.warmup_steps = {warmup_steps} must lie between 0 and total_steps = {total_steps}")
    if final_ratio and decay in ("constant", "rsqrt"):
        raise ConfigError(
            f"schedule.final_ratio = {final_ratio} has no effect with decay = {decay!r}; use linear or cosine"
        )
    left = max(1, total_steps - warmup_steps)
    after = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, peak * final_ratio, left),
        "cosine": lambda: optax.cosine_decay_schedule(peak, left, final_ratio),
        "rsqrt": lambda: lambda t: peak * jnp.sqrt(max(warmup_steps, 1) / (max(warmup_steps, 1) + t)),
    }
    if decay not in after:
        raise ConfigError(f"schedule.decay = {decay!r}; known: {', '.join(after)}")
    return optax.join_schedules(
        [optax.linear_schedule(0.0, peak, max(warmup_steps, 1)), after[decay]()], [warmup_steps]
    )


def _matches(patterns: Sequence[str], params, what: str) -> dict[str, str | None]:
    """Returns {path: first pattern that is found in it}; a pattern that matches no path is a ConfigError."""
    paths = list(flatten(params))
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in paths):
            raise ConfigError(f"{what}: {pattern!r} matches no parameter; the paths are like {', '.join(paths[:4])}")
    return {path: next((p for p in patterns if re.search(p, path)), None) for path in paths}


def _map_paths(function, params):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: function(jax.tree_util.keystr(path, simple=True, separator="/")), params
    )


def _decayed(params):
    return _map_paths(lambda path: not _NOT_DECAYED.search(path), params)


def scale_by_path(multipliers: Mapping[str, float]) -> optax.GradientTransformation:
    """Returns the transformation that multiplies updates by the factor of the first pattern found in their path."""

    def update(updates, state, params=None):
        matches = _matches(list(multipliers), updates, "rate_multipliers")
        factors = _map_paths(lambda path: multipliers.get(matches[path], 1.0), updates)
        return jax.tree.map(lambda u, f: u * f, updates, factors), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def over(optimizer: optax.GradientTransformation, steps: int) -> optax.GradientTransformation:
    """Returns the optimiser of a run of that many steps."""
    return optimizer.over(steps) if isinstance(optimizer, Optimizer) else optimizer


def rate_of(optimizer: optax.GradientTransformation, opt_state) -> jax.Array | None:
    """Returns the learning rate of the next update; None where the optimiser does not know it."""
    if not isinstance(optimizer, Optimizer):
        return None
    counts = [x for path, x in flatten(opt_state).items() if path.rpartition("/")[2] == "count"]
    return jnp.asarray(optimizer.learning_rate(counts[0] if counts else 0), jnp.float32)


def _finish(
    make: Callable[..., optax.GradientTransformation], learning_rate, max_grad_norm, frozen, rate_multipliers
) -> Optimizer:
    """Returns the optimiser `make(learning_rate)` with clipping, multipliers and frozen parameters."""

    def over(steps: int) -> Optimizer:
        rate = learning_rate.over(steps) if isinstance(learning_rate, OverRun) else learning_rate
        return _finish(make, rate, max_grad_norm, frozen, rate_multipliers)

    inner = make(learning_rate)
    parts = [optax.clip_by_global_norm(max_grad_norm)] if max_grad_norm else []
    parts.append(inner)
    if rate_multipliers:
        parts.append(scale_by_path(rate_multipliers))
    chained = optax.chain(*parts)
    rate = learning_rate if callable(learning_rate) else optax.constant_schedule(learning_rate)
    if not frozen:
        return Optimizer(chained.init, chained.update, rate, over)

    def labels(params):
        matches = _matches(frozen, params, "frozen")
        return _map_paths(lambda path: "frozen" if matches[path] else "learning", params)

    whole = optax.multi_transform({"learning": chained, "frozen": optax.set_to_zero()}, labels)
    return Optimizer(whole.init, whole.update, rate, over)


def adamw(
    learning_rate: Schedule | OverRun | NonNegative,
    b1: Annotated[float, Meta(ge=0, lt=1)] = 0.9,
    b2: Annotated[float, Meta(ge=0, lt=1)] = 0.999,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
    max_grad_norm: Positive | None = 1.0,
    frozen: Sequence[str] = (),
    rate_multipliers: Mapping[str, NonNegative] | None = None,
) -> Optimizer:
    """Returns AdamW. Norm scales, biases and temperatures are not decayed. Parameters whose path holds a `frozen` pattern stay
    as they are and take no optimiser memory."""
    make = functools.partial(optax.adamw, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=_decayed)
    return _finish(make, learning_rate, max_grad_norm, tuple(frozen), rate_multipliers)


def adafactor(
    learning_rate: Schedule | OverRun | NonNegative,
    weight_decay: NonNegative = 0.0,
    min_dim_size_to_factor: Count = 128,
    max_grad_norm: Positive | None = 1.0,
    frozen: Sequence[str] = (),
    rate_multipliers: Mapping[str, NonNegative] | None = None,
) -> Optimizer:
    """Returns Adafactor without momentum: second moments of matrices are kept as rows and columns. Source: arXiv:1804.04235.

    As in optax, `weight_decay` here is the share taken off at every step, not multiplied by the learning rate.
    """
    make = functools.partial(
        optax.adafactor,
        min_dim_size_to_factor=min_dim_size_to_factor,
        multiply_by_parameter_scale=False,
        weight_decay_rate=weight_decay or None,
        weight_decay_mask=_decayed,
    )
    return _finish(make, learning_rate, max_grad_norm, tuple(frozen), rate_multipliers)
