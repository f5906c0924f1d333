"""Objectives of images alone: gradients by micro-batches, what learns, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest
from image_towers import image_tower
from training_batches import fast

from embed.errors import ConfigError
from embed.losses.classes import ByClass
from embed.losses.relational import Relational
from embed.losses.udon import Udon
from embed.models import api
from embed.objectives.images import Classified, DomainTeachers, Specialists
from embed.training.step import loss_and_gradient
from embed.trees import flatten
from embed.types import Batch

SIZE = 12


def model():
    return api.build(image_tower().clone(projection=(6,)))


def batch(parts: int) -> Batch:
    """Eight images with classes and vectors of a specialist, cut into micro-batches."""
    random = np.random.default_rng(0)
    arrays = {
        "image": random.integers(0, 256, (8, SIZE, SIZE, 3)).astype(np.uint8),
        "image_id": random.integers(0, 99, (8, 2)).astype(np.uint32),
        "label": random.integers(0, 3, 8).astype(np.int32),
        "teacher": random.normal(size=(8, 5)).astype(np.float32),
    }
    cut = {name: x.reshape(parts, 1, 8 // parts, *x.shape[1:]).swapaxes(0, 1) for name, x in arrays.items()}
    return Batch(cut, None)


OBJECTIVES = {
    "proxies": lambda: Classified(ByClass(3, 6), model=model()),
    "pairs": lambda: Classified(ByClass(3, 6, "pairs"), model=model()),
    "neighbours": lambda: Specialists(Relational(), model=model()),
    "udon": lambda: DomainTeachers(Udon((2, 1), 6, 7), model=model()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_by_micro_batches_is_that_of_the_whole_batch(name):
    objective = OBJECTIVES[name]()
    variables = fast(lambda: objective.init(jax.random.key(0)))()
    compute = fast(lambda v, b: loss_and_gradient(objective, v, b, jax.random.key(1), 0))
    whole, cut = compute(variables, batch(1)), compute(variables, batch(4))
    assert float(cut[0]) == pytest.approx(float(whole[0]), rel=1e-5)
    gradients = [flatten(result[2]) for result in (whole, cut)]
    scale = np.sqrt(sum(float(np.sum(np.square(g))) for g in gradients[0].values()))
    for path, gradient in gradients[0].items():
        assert np.abs(gradient - gradients[1][path]).max() < 2e-6 * scale, path
    assert all(np.any(g) for path, g in gradients[0].items() if "proxies" in path or "projection" in path)
    assert jax.tree.structure(objective.axes(), is_leaf=lambda x: isinstance(x, tuple)) == jax.tree.structure(variables)


@pytest.mark.slow
def test_a_model_of_texts_and_missing_features_are_refused():
    classified = Classified(ByClass(3, 6), model=model())
    variables = fast(lambda: classified.init(jax.random.key(0)))()
    without = {name: x for name, x in batch(1).arrays.items() if name != "label"}
    with pytest.raises(ConfigError, match="Classified reads 'label', which no feature gives"):
        classified.forward(variables, Batch(without, None), None, 0)
    with pytest.raises(ConfigError, match="Specialists needs a model that embeds images"):
        Specialists(model=dataclasses.replace(model(), methods={"text": None}))
    wide = Specialists(Relational("vectors"), model=model())
    outputs = wide.forward(variables, Batch({n: x[0, 0] for n, x in batch(1).arrays.items()}, None), None, 0)
    with pytest.raises(ConfigError, match="compares embeddings of 6 values with a specialist's of 5"):
        wide.loss({}, outputs, Batch({n: x[0, 0] for n, x in batch(1).arrays.items()}, None), 0)


@pytest.mark.slow
def test_the_vector_of_a_teacher_is_that_of_the_domain_of_the_image():
    objective = OBJECTIVES["udon"]()
    variables = fast(lambda: objective.init(jax.random.key(0)))()
    arrays = {name: x[0, 0] for name, x in batch(1).arrays.items()}
    found = objective.forward(variables, Batch(arrays, None), None, 0).rows["teacher"]
    given = (variables.params["model"], {"pixels": arrays["image"]})
    _, token = objective.model.apply(*given, method="image_with_token")
    domains = [int(label >= 2) for label in arrays["label"]]  # two classes of the first domain, one of the second
    assert set(domains) == {0, 1}
    for row, domain in enumerate(domains):
        vector = np.asarray(token[row], np.float64) @ np.asarray(variables.params["teachers"][domain], np.float64)
        np.testing.assert_allclose(found[row], vector / np.linalg.norm(vector), atol=1e-5)
