"""Heads of self-distillation: features and prototypes of unit length, whatever the size of what comes in."""

import math

import jax
import numpy as np

from embed.models import heads
from embed.models.heads import PrototypeHead

HEAD = PrototypeHead(num_prototypes=11, hidden=7, features=5)


def test_features_are_those_of_numpy_and_prototypes_have_unit_length():
    x = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    shapes = jax.eval_shape(lambda: heads.init(HEAD, jax.random.key(0), 6))
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda s: random.normal(size=s.shape).astype(np.float32), shapes)
    features = jax.jit(lambda p, x: HEAD.apply({"params": p}, x))(params, x)
    y = np.float64(x)
    gelu = np.vectorize(lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))))
    for i in range(3):
        y = y @ params[f"layer_{i}"]["kernel"] + params[f"layer_{i}"]["bias"]
        y = gelu(y) if i < 2 else y
    np.testing.assert_allclose(features, y / np.linalg.norm(y, axis=-1, keepdims=True), atol=1e-5)
    unit_prototypes = np.asarray(heads.prototypes(params))
    assert unit_prototypes.shape == (5, 11)
    np.testing.assert_allclose(
        unit_prototypes, params["prototypes"] / np.linalg.norm(params["prototypes"], axis=0), atol=1e-6
    )


def test_every_parameter_has_axes():
    axes = heads.axes_of(HEAD, 6)
    shapes = jax.eval_shape(lambda: heads.init(HEAD, jax.random.key(0), 6))
    jax.tree.map(lambda s, names: np.testing.assert_equal(len(s.shape), len(names)), shapes, axes)
