"""Spans that are left out: their statistics, what they leave, and what is refused."""

import numpy as np
import pytest

from embed.data.denoisers import Denoiser, corrupt
from embed.errors import ConfigError

SENTINELS = np.arange(1000, 1400, dtype=np.int32)
UL2 = [Denoiser(0.15, 3), Denoiser(0.15, 8), Denoiser(0.5, 3), Denoiser(0.5, 8), Denoiser(0.15, 64), Denoiser(0.5, 64)]


def restored(inputs, targets):
    """Returns the text: every sentinel of the inputs replaced by what stands after it in the targets."""
    spans, current = {}, None
    for token in targets.tolist():
        if token >= 1000:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    return [t for token in inputs.tolist() for t in (spans[token] if token >= 1000 else [token])]


@pytest.mark.slow
@pytest.mark.parametrize("denoiser", UL2, ids=str)
def test_rate_and_mean_span_are_those_of_the_denoiser(denoiser):
    """Over 10,000 texts of different lengths."""
    sizes = np.random.default_rng(0).integers(denoiser.min_length, 900, 10_000)
    spans = [denoiser.spans(int(n), np.random.default_rng([1, i])) for i, n in enumerate(sizes)]
    missing = np.array([stop - start for some in spans for start, stop in some])
    assert missing.sum() / sizes.sum() == pytest.approx(denoiser.rate, rel=0.02)
    assert missing.mean() == pytest.approx(denoiser.mean_span, rel=0.02)


@pytest.mark.slow
def test_a_prefix_leaves_out_its_share_at_the_end():
    spans = [Denoiser(0.25, prefix=True).spans(101, np.random.default_rng(i)) for i in range(10_000)]
    assert all(len(some) == 1 and some[0][1] == 101 for some in spans)
    assert np.mean([101 - some[0][0] for some in spans]) == pytest.approx(0.25 * 101, rel=0.005)


@pytest.mark.parametrize("denoiser", [*UL2, Denoiser(0.75, prefix=True)], ids=str)
def test_inputs_and_targets_rebuild_the_text_within_their_bounds(denoiser):
    for i in range(300):
        rng = np.random.default_rng([2, i])
        text = rng.integers(0, 1000, int(rng.integers(denoiser.min_length, 700))).astype(np.int32)
        inputs, targets = corrupt(text, denoiser, SENTINELS, rng)
        assert (
            np.concatenate([inputs, targets]).tolist() if denoiser.prefix else restored(inputs, targets)
        ) == text.tolist()
        assert len(inputs) <= denoiser.max_inputs(len(text)) <= denoiser.max_inputs(700)
        assert len(targets) <= denoiser.max_targets(len(text)) <= denoiser.max_targets(700)
        sentinels = inputs[inputs >= 1000]
        assert sentinels.tolist() == SENTINELS[: len(sentinels)].tolist() and len(sentinels) <= denoiser.max_spans(
            len(text)
        )


def test_average_sizes_are_those_of_many_texts():
    denoiser = Denoiser(0.5, 3)
    drawn = [corrupt(np.arange(99, dtype=np.int32), denoiser, SENTINELS, np.random.default_rng(i)) for i in range(3000)]
    expected = denoiser.average_sizes(99)
    assert np.mean([[len(x) for x in pair] for pair in drawn], axis=0) == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
def test_every_composition_is_equally_likely():
    """Of 4 missing tokens in 2 spans: lengths 1 + 3, 2 + 2 and 3 + 1."""
    counts = np.zeros(4)
    for i in range(6000):
        (start, stop), _ = Denoiser(0.5, 2).spans(8, np.random.default_rng(i))
        counts[stop - start] += 1
    assert counts[1:] / 6000 == pytest.approx(np.full(3, 1 / 3), abs=0.03)


def test_the_shortest_text_has_room_for_one_mean_span():
    assert [d.min_length for d in UL2] == [20, 54, 6, 16, 427, 128]
    assert Denoiser(0.25, prefix=True).min_length == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.5}, "give mean_span, the tokens of a span on average, or prefix = True"),
        ({"rate": 0.5, "mean_span": 3, "prefix": True}, "give mean_span"),
        ({"rate": 0.5, "mean_span": 0.5}, "a span has one token at least; raise it"),
        ({"rate": 1.0, "mean_span": 3}, "rate"),
    ],
)
def test_a_denoiser_that_cannot_be_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Denoiser(**options)
