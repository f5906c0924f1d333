"""A program on batches: results in order whatever waits, and the first vector that is not finite is named."""

import jax
import numpy as np
import pytest

from embed import sharding
from embed.errors import NumericError
from embed.inference.program import Program, check_finite, shared
from embed.sharding import MeshShape


@pytest.mark.parametrize("shape", [MeshShape(1, 1, 1), MeshShape(4, 2, 1)])
def test_batches_come_back_in_order_and_are_counted_as_they_go(shape):
    mesh = sharding.make_mesh(shape, jax.devices()[: shape.data * shape.fsdp * shape.tensor])
    program = Program(lambda params, arrays: arrays["x"] * params, mesh, "numbers")
    results, handed = {}, []
    batches = [np.full((8 * (1 + i % 2), 3), i, np.float32) for i in range(9)]
    program.run(np.float32(2), ({"x": x} for x in batches), results.__setitem__, handed.append)
    assert list(results) == handed == list(range(9))
    for number, x in enumerate(batches):
        np.testing.assert_array_equal(results[number], 2 * x)
    assert program._apply._cache_size() == 2


def test_nothing_runs_without_batches():
    program = Program(
        lambda params, arrays: 1 / 0, sharding.make_mesh(MeshShape(1, 1, 1), jax.devices()[:1]), "numbers"
    )
    program.run(None, [], lambda *_: pytest.fail("no batch"))


def test_the_first_vector_that_is_not_finite_is_named():
    vectors = np.zeros((4, 2), np.float32)
    check_finite(vectors, "text")
    vectors[2:, 1] = np.inf
    with pytest.raises(NumericError, match="^the vector of text 2 of 4 is not finite; look at the model's weights$"):
        check_finite(vectors, "text")


def test_functions_of_equal_arguments_are_one_and_are_traced_once():
    traced = []

    def scaled(factor):
        def run(params, arrays):
            traced.append(factor)
            return factor * arrays["x"] + params

        return run

    mesh = sharding.make_mesh(MeshShape(1, 1, 1), jax.devices()[:1])
    for factor in (2.0, 2.0, 3.0):
        results = {}
        program = Program(shared(scaled, factor), mesh, "numbers")
        program.run(np.float32(1), [{"x": np.ones((2, 3), np.float32)}], results.__setitem__)
        np.testing.assert_array_equal(results[0], np.full((2, 3), factor + 1))
    assert traced == [2.0, 3.0]
