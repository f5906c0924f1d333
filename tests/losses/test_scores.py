"""CoSENT and AnglE against loops over the pairs in float64, in one piece and in several."""

import itertools
import math

import jax
import numpy as np
import pytest

from embed.errors import ConfigError
from embed.losses import contrastive
from embed.losses.matryoshka import Matryoshka
from embed.losses.scores import AnglE, CoSENT
from embed.types import PairEmbeddings


def unit(seed, size=12, dim=6):
    x = np.random.default_rng(seed).normal(size=(2, size, dim))
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def cosine(query, target):
    return query @ target


def angle(query, target):
    half = len(query) // 2
    z, w = query[:half] + 1j * query[half:], target[:half] + 1j * target[half:]
    quotient = z * np.conj(w)  # of unit vectors: the quotient, but for lengths that cancel
    return abs((quotient.real + quotient.imag).sum())


def by_hand(similarity, query, target, score, scale):
    s = [similarity(q, t) for q, t in zip(query, target)]
    terms = [
        math.exp(scale * (s[i] - s[j])) for i, j in itertools.product(range(len(s)), repeat=2) if score[i] < score[j]
    ]
    ordered = [s[i] < s[j] for i, j in itertools.product(range(len(s)), repeat=2) if score[i] < score[j]]
    return math.log(1 + sum(terms)), np.mean(ordered)


@pytest.mark.parametrize("chunks", [1, 4])
@pytest.mark.parametrize(("loss", "similarity"), [(CoSENT(7.0), cosine), (AnglE(7.0), angle)])
def test_the_loss_is_that_of_its_equation(loss, similarity, chunks, monkeypatch):
    monkeypatch.setattr(contrastive, "MAX_LOGITS", 144 // chunks)
    query, target = unit(0)
    score = np.random.default_rng(1).integers(0, 4, 12) / 3.0
    with jax.enable_x64(True):
        value, metrics = loss(PairEmbeddings(query, target, score=score))
        gradient = np.asarray(jax.grad(lambda q: loss(PairEmbeddings(q, target, score=score))[0])(query))
    expected, ordered = by_hand(similarity, query, target, score, 7.0)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(metrics["ordered"], ordered)
    step = 1e-6 * np.eye(6)[2] - 1e-6 * query[3] * query[3, 2]  # along the sphere
    moved = [
        by_hand(similarity, np.vstack([query[:3], query[3] + d, query[4:]]), target, score, 7.0)[0]
        for d in (step, -step)
    ]
    np.testing.assert_allclose(gradient[3] @ step * 2, moved[0] - moved[1], rtol=1e-4)


@pytest.mark.slow
def test_pairs_of_one_score_lose_nothing():
    query, target = unit(0)
    value, metrics = CoSENT()(PairEmbeddings(query, target, score=np.ones(12)))
    assert float(value) == 0.0 and float(metrics["ordered"]) == 0.0
    assert np.isfinite(jax.grad(lambda q: CoSENT()(PairEmbeddings(q, target, score=np.ones(12)))[0])(query)).all()


def test_what_is_missing_is_said():
    query, target = unit(0)
    with pytest.raises(ConfigError, match="CoSENT needs the score of each pair; map the role 'score'"):
        CoSENT()(PairEmbeddings(query, target))
    with pytest.raises(ConfigError, match="AnglE needs embeddings of an even size, not 5"):
        Matryoshka(AnglE(), (6, 5))(PairEmbeddings(query, target, score=np.arange(12.0)))
