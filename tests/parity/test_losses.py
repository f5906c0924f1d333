"""Losses of scores against sentence-transformers on the same numbers: values and gradients."""

import jax
import numpy as np
import pytest

from embed.losses.distillation import CandidateKL, EmbeddingDistillation, MarginMSE
from embed.losses.scores import AnglE, CoSENT
from embed.losses.spread_out import SpreadOut
from embed.types import PairEmbeddings

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def losses():
    return pytest.importorskip("sentence_transformers.sentence_transformer.losses")


def embeddings(seed: int, negatives: int = 0, size: int = 24, dim: int = 12) -> list[np.ndarray]:
    """Returns unit vectors of queries, targets and each column of negatives, float64."""
    x = np.random.default_rng(seed).normal(size=(2 + negatives, size, dim))
    return list(x / np.linalg.norm(x, axis=-1, keepdims=True))


def theirs(loss, vectors, labels):
    import torch

    tensors = [torch.tensor(x, requires_grad=True) for x in vectors]
    value = loss.compute_loss_from_embeddings(tensors, torch.tensor(labels))
    value.backward()
    return value.item(), [x.grad.numpy() for x in tensors]


def ours(loss, vectors, **labels):
    def value(vectors):
        query, target, *negatives = vectors
        hard = jax.numpy.stack(negatives, 1) if negatives else None
        return loss(PairEmbeddings(query, target, hard, **labels))[0]

    with jax.enable_x64(True):
        found, gradient = jax.value_and_grad(value)(vectors)
        return float(found), list(map(np.asarray, gradient))


def tangent(gradient, vectors):
    """Returns the gradient along the sphere: ours are of embeddings that are scaled to unit length, theirs are of any."""
    return [g - np.sum(g * x, -1, keepdims=True) * x for g, x in zip(gradient, vectors)]


def same(one, other, vectors):
    np.testing.assert_allclose(one[0], other[0], rtol=1e-6)
    for mine, their in zip(tangent(one[1], vectors), tangent(other[1], vectors), strict=True):
        np.testing.assert_allclose(mine, their, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "made"), [("CoSENTLoss", CoSENT), ("AnglELoss", AnglE)])
@pytest.mark.parametrize("scale", [20.0, 3.0])
def test_losses_of_pairs_with_a_score(losses, seed, name, made, scale):
    vectors = embeddings(seed)
    score = np.random.default_rng(seed).integers(0, 6, 24) / 5.0  # some are equal
    found = ours(made(scale), vectors, score=score)
    same(found, theirs(getattr(losses, name)(None, scale=scale), vectors, score), vectors)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("negatives", [1, 3])
def test_margin_mse(losses, seed, negatives):
    vectors = embeddings(seed, negatives)
    scores = np.random.default_rng(seed).normal(size=(24, 1 + negatives))
    expected = theirs(losses.MarginMSELoss(None), vectors, scores)
    same(ours(MarginMSE(), vectors, scores=scores), expected, vectors)
    margins = scores[:, :1] - scores[:, 1:]
    as_margins = theirs(losses.MarginMSELoss(None), vectors, margins if negatives > 1 else margins[:, 0])
    same(ours(MarginMSE(), vectors, scores=np.concatenate([0 * margins[:, :1], -margins], 1)), as_margins, vectors)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("temperature", "teacher_temperature"), [(1.0, 1.0), (0.5, 2.0)])
def test_divergence_of_candidates(losses, seed, temperature, teacher_temperature):
    """Theirs has one temperature for both, so the teacher's scores are scaled to have its own."""
    vectors = embeddings(seed, 3)
    scores = np.random.default_rng(seed).normal(size=(24, 4))
    expected = theirs(
        losses.DistillKLDivLoss(None, temperature=temperature), vectors, scores * temperature / teacher_temperature
    )
    same(ours(CandidateKL(temperature, teacher_temperature), vectors, scores=scores), expected, vectors)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mean_weight", [0.0, 0.7])
def test_spread_out(losses, seed, mean_weight):
    """Theirs has a hinge, sums columns when it is told to, and gives its terms apart."""
    import torch

    vectors = embeddings(seed, dim=4)
    tensors = [torch.tensor(x, requires_grad=True) for x in vectors]
    loss = losses.GlobalOrthogonalRegularizationLoss(None, mean_weight=mean_weight, aggregation="sum")
    value = sum(loss.compute_loss_from_embeddings(tensors).values())
    value.backward()
    expected = value.item(), [x.grad.numpy() for x in tensors]
    same(ours(SpreadOut(mean_weight=mean_weight, hinge=True), vectors), expected, vectors)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("distance", ["l2", "mse", "cosine"])
def test_embedding_distillation(losses, seed, distance):
    """Theirs is the mean over columns, ours their sum."""
    vectors, teacher = embeddings(seed, 1), embeddings(seed + 10, 1)
    value, gradient = theirs(losses.EmbedDistillLoss(None, distance), vectors, np.stack(teacher))
    expected = 3 * value, [3 * g for g in gradient]
    given = {"teacher_query": teacher[0], "teacher_target": teacher[1], "teacher_negatives": teacher[2][:, None]}
    same(ours(EmbeddingDistillation(distance), vectors, **given), expected, vectors)
