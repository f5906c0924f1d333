"""MarginMSE against its equation in float64."""

import jax
import numpy as np
import pytest

from embed.errors import ConfigError
from embed.losses.distillation import MarginMSE
from embed.types import PairEmbeddings


def batch(masked=True):
    random = np.random.default_rng(0)
    x = random.normal(size=(2 + 3, 7, 4))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    mask = random.integers(0, 2, (7, 3)).astype(bool) if masked else None
    return PairEmbeddings(x[0], x[1], np.moveaxis(x[2:], 0, 1), mask, scores=random.normal(size=(7, 4)))


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_loss_is_that_of_its_equation(masked, scale):
    pairs = batch(masked)
    errors = []
    for i in range(7):
        for k in range(3):
            if pairs.negatives_mask is None or pairs.negatives_mask[i, k]:
                margin = pairs.query[i] @ pairs.target[i] - pairs.query[i] @ pairs.negatives[i, k]
                errors.append((scale * margin - (pairs.scores[i, 0] - pairs.scores[i, 1 + k])) ** 2)
    with jax.enable_x64(True):
        np.testing.assert_allclose(MarginMSE(scale)(pairs)[0], np.mean(errors), rtol=1e-12)


def test_a_negative_that_is_not_there_has_no_gradient():
    pairs = batch()
    gradient = jax.grad(
        lambda n: MarginMSE()(PairEmbeddings(pairs.query, pairs.target, n, pairs.negatives_mask, scores=pairs.scores))[
            0
        ]
    )
    found = np.asarray(gradient(pairs.negatives))
    assert (found[~pairs.negatives_mask] == 0).all() and (found[pairs.negatives_mask] != 0).any(-1).all()


@pytest.mark.parametrize("missing", ["scores", "negatives"])
def test_what_is_missing_is_said(missing):
    pairs = batch()
    given = {
        "query": pairs.query,
        "target": pairs.target,
        "negatives": pairs.negatives,
        "scores": pairs.scores,
        missing: None,
    }
    with pytest.raises(ConfigError, match="MarginMSE needs .*; map the role"):
        MarginMSE()(PairEmbeddings(**given))
