"""Denoisers of UL2: which spans of a text are left out, and the inputs and targets that follow. Source: arXiv:2205.05131 s3.1."""

import dataclasses
import math

import numpy as np

from embed import ranges
from embed.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """Leaves out the share `rate` of a text's tokens in spans of `mean_span` tokens on average, or with `prefix` at its end.

    Numbers of tokens and of spans are rounded at random to one of their neighbours, so that their means are exact. The
    lengths of the spans, and those between them, are a random composition of their sums, as in T5 (arXiv:1910.10683 s3.3.4); a text
    begins with a token that is kept. `weight` is how often the denoiser is drawn, beside the others.
    """

    rate: ranges.OpenShare
    mean_span: ranges.Positive | None = None
    weight: ranges.Positive = 1.0
    prefix: bool = False

    def __post_init__(self):
        ranges.check_fields(self)
        if self.prefix == (self.mean_span is not None):
            raise ConfigError(
                "Denoiser: give mean_span, the tokens of a span on average, or prefix = True, which leaves out the end of a text"
            )
        if self.mean_span is not None and self.mean_span < 1:
            raise ConfigError(f"Denoiser.mean_span = {self.mean_span}: a span has one token at least; raise it")

    def __str__(self) -> str:
        span = "prefix" if self.prefix else f"mean_span {self.mean_span:g}"
        return f"the denoiser ({span}, rate {self.rate:g})"

    @property
    def min_length(self) -> int:
        """The tokens of the shortest text of which one mean span can be left out."""
        return 2 if self.prefix else max(2, math.ceil(max(1.0, self.mean_span) / self.rate - 1e-9))

    def max_spans(self, length: int) -> int:
        """Returns the most spans that a text of `length` tokens can miss; 0 with `prefix`, which has no sentinels."""
        return 0 if self.prefix else math.ceil(self._max_noise(length) / self.mean_span)

    def _max_noise(self, length: int) -> int:
        return min(math.ceil(length * self.rate), length - 1)

    def max_inputs(self, length: int) -> int:
        """Returns the most tokens of inputs that a text of up to `length` tokens gives."""
        min_noise = max(math.floor(length * self.rate), 1)
        return length - min_noise + (0 if self.prefix else math.ceil(min_noise / self.mean_span))

    def max_targets(self, length: int) -> int:
        """Returns the most tokens of targets that a text of up to `length` tokens gives."""
        return self._max_noise(length) + self.max_spans(length)

    def average_sizes(self, length: float) -> tuple[float, float]:
        """Returns the mean tokens of inputs and of targets for texts of `length` tokens."""
        noise = length * self.rate
        spans = 0.0 if self.prefix else noise / self.mean_span
        return length - noise + spans, noise + spans

    def spans(self, length: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Returns (start, stop) of what is left out of a text of `length` tokens, in order; at least 2 tokens."""
        noise = int(np.clip(_rounded(length * self.rate, rng), 1, length - 1))
        if self.prefix:
            return [(length - noise, length)]
        count = int(np.clip(_rounded(noise / self.mean_span, rng), 1, min(noise, length - noise)))
        missing, kept = _composition(noise, count, rng), _composition(length - noise, count, rng)
        stops = np.cumsum(missing + kept)
        return [(int(stop - size), int(stop)) for stop, size in zip(stops, missing)]


def _rounded(x: float, rng: np.random.Generator) -> int:
    """Returns x rounded to a neighbour at random, x on average."""
    return math.floor(x + rng.random())


def _composition(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """Returns `parts` positive integers that sum to `total`, every choice of them equally likely."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False) + 1) if parts > 1 else np.zeros(0, np.int64)
    return np.diff(np.concatenate([[0], cuts, [total]]))


def corrupt(
    tokens: np.ndarray, denoiser: Denoiser, sentinels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (inputs, targets) of a text's token ids, int32, without special tokens.

    Each missing span is one of `sentinels` in the inputs, in order, and stands after it in the targets. With `prefix` the
    inputs are the beginning and the targets the end.
    """
    spans = denoiser.spans(len(tokens), rng)
    if denoiser.prefix:
        start = spans[0][0]
        return tokens[:start], tokens[start:]
    inputs, targets, last = [], [], 0
    for sentinel, (start, stop) in zip(sentinels[: len(spans), None], spans, strict=True):
        inputs += [tokens[last:start], sentinel]
        targets += [sentinel, tokens[start:stop]]
        last = stop
    return np.concatenate([*inputs, tokens[last:]]), np.concatenate(targets)
