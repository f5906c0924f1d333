"""Learned positions resized: the rules of PyTorch's two filters, with and without antialiasing, by their definitions."""

import numpy as np
import pytest

from embed.errors import ConfigError
from embed.models.position_grid import RESIZES, resize_grid, resize_weights

SIZES = [(16, 32), (16, 8), (16, 37), (16, 7), (5, 5), (4, 1)]


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(("size", "new_size"), SIZES)
def test_a_constant_stays_and_mirrored_grids_are_resized_to_mirrored_ones(size, new_size, resize):
    matrix = resize_weights(size, new_size, resize)
    assert matrix.shape == (new_size, size)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-12)


@pytest.mark.parametrize("resize", RESIZES)
def test_the_same_size_changes_nothing(resize):
    np.testing.assert_allclose(resize_weights(6, 6, resize), np.eye(6), atol=1e-12)


def test_twice_the_size_is_by_hand():
    """New samples lie a quarter of a cell from the old ones."""
    linear = resize_weights(4, 8, "linear_antialias")
    np.testing.assert_allclose(linear[0], [1, 0, 0, 0])  # what lies beyond the edge does not count
    np.testing.assert_allclose(linear[1], [0.75, 0.25, 0, 0])
    np.testing.assert_allclose(linear[2], [0.25, 0.75, 0, 0])
    # Keys' kernel with a = -0.75 at distances 1.75, 0.75, 0.25 and 1.25: -0.035156, 0.261719, 0.878906, -0.105469.
    cubic = resize_weights(6, 12, "cubic")
    np.testing.assert_allclose(cubic[4], [-0.03515625, 0.26171875, 0.87890625, -0.10546875, 0, 0])
    np.testing.assert_allclose(cubic[1], [0.87890625 - 0.10546875, 0.26171875, -0.03515625, 0, 0, 0])


def test_half_the_size_averages_only_with_antialiasing():
    np.testing.assert_allclose(resize_weights(8, 4, "linear_antialias")[1], [0, 0.125, 0.375, 0.375, 0.125, 0, 0, 0])
    assert np.count_nonzero(resize_weights(16, 4, "cubic")[1]) == 4
    assert np.count_nonzero(resize_weights(16, 4, "cubic_antialias")[1]) > 10


def test_rows_and_columns_are_resized_apart():
    grid = np.random.default_rng(0).normal(size=(4, 4, 3)).astype(np.float32)
    resized = np.asarray(resize_grid(grid, 6, 2, "cubic"))
    vertical, horizontal = resize_weights(4, 6, "cubic"), resize_weights(4, 2, "cubic")
    np.testing.assert_allclose(resized, np.einsum("Hh,Ww,hwD->HWD", vertical, horizontal, grid), atol=1e-6)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ConfigError, match="position_resize 'cubik'; did you mean 'cubic'"):
        resize_weights(4, 8, "cubik")
