"""Probes of patches against loops, torch-free: shares, linear maps, resizing, and the scores of every pixel."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.linear_model import Ridge as TheirRidge

from embed.evaluation import dense


@pytest.fixture
def random():
    """Each test draws from a generator of its own, so that no test depends on the others."""
    return np.random.default_rng(0)


def test_shares_and_means_are_of_the_pixels_of_a_patch(random):
    classes = random.integers(0, 3, (2, 6, 8))
    shares = dense.patch_shares(classes, 3, 2, 3)
    values = random.normal(size=(2, 6, 8, 2))
    means = dense.patch_means(values, 3, 2)
    for n in range(2):
        for patch in range(6):
            row, column = divmod(patch, 2)
            pixels = classes[n, 2 * row : 2 * row + 2, 4 * column : 4 * column + 4]
            np.testing.assert_allclose(shares[n, patch], [np.mean(pixels == k) for k in range(3)])
            block = values[n, 2 * row : 2 * row + 2, 4 * column : 4 * column + 4]
            np.testing.assert_allclose(means[n, patch], block.mean((0, 1)))


def test_ignored_pixels_and_patches_are_of_no_class(random):
    classes = np.zeros((1, 4, 4), int)
    classes[0, :2, :2], classes[0, 0, 2], classes[0, 1, 2] = -1, -1, 1
    shares = dense.patch_shares(classes, 2, 2, 2)
    np.testing.assert_allclose(shares[0], [[0, 0], [0.5, 0.25], [1, 0], [1, 0]])
    labels = random.integers(0, 2, (10, 8))
    features = np.eye(2)[labels] + random.normal(0, 0.1, (10, 8, 2))
    with_ignored, wrong = labels.copy(), features.copy()
    with_ignored[:, 0], wrong[:, 0] = -1, 99.0  # what is ignored may hold anything
    np.testing.assert_allclose(
        dense.logistic_classes(wrong, with_ignored, features),
        dense.logistic_classes(features[:, 1:], labels[:, 1:], features),
    )
    assert dense.agreement(wrong, with_ignored) == pytest.approx(1.0)


def test_the_ridge_regression_is_that_of_scikit_learn(random):
    features, other = random.normal(3, 2, (30, 12, 5)), random.normal(3, 2, (4, 12, 5))
    values = features @ random.normal(size=(5, 2)) + random.normal(size=(30, 12, 2))
    flat = features.reshape(-1, 5)
    scaled = lambda x: (x.reshape(-1, 5) - flat.mean(0)) / flat.std(0)  # noqa: E731
    position = dense.positions(3, 4).astype(float)
    # The part that positions explain is taken out, as they carry no penalty.
    every, few = np.tile(position, (30, 1)), np.tile(position, (4, 1))
    project = lambda x: x - every @ np.linalg.lstsq(every, x, rcond=None)[0]  # noqa: E731
    inputs, targets = scaled(features), values.reshape(-1, 2)
    theirs = TheirRidge(dense.PENALTY * len(inputs), fit_intercept=False).fit(project(inputs), project(targets))
    rest = np.linalg.lstsq(every, targets - inputs @ theirs.coef_.T, rcond=None)[0]
    expected = (scaled(other) @ theirs.coef_.T + few @ rest).reshape(4, 12, 2)
    np.testing.assert_allclose(dense.Ridge(features, values, 3, 4)(other), expected, rtol=0, atol=1e-5)


def test_positions_alone_explain_what_depends_on_the_position():
    nothing = np.zeros((6, 20, 1))
    target = np.broadcast_to(dense.positions(4, 5)[None, :, :2] * [2, -1] + 0.5, (6, 20, 2))
    np.testing.assert_allclose(dense.Ridge(nothing, target, 4, 5)(nothing), target, atol=1e-5)


@pytest.mark.parametrize(("rows", "columns", "height", "width"), [(4, 4, 16, 16), (3, 5, 12, 10), (1, 2, 4, 8)])
def test_maps_are_resized_between_the_middles_of_patches(rows, columns, height, width, random):
    grid = random.normal(size=(2, rows * columns, 3))
    found = dense.resized(grid, rows, columns, height, width)
    y, x = np.meshgrid(
        (np.arange(height) + 0.5) * rows / height - 0.5, (np.arange(width) + 0.5) * columns / width - 0.5, indexing="ij"
    )
    for n in range(2):
        for channel in range(3):
            one = grid[n, :, channel].reshape(rows, columns)
            expected = ndimage.map_coordinates(one, [y, x], order=1, mode="nearest")
            np.testing.assert_allclose(found[n, ..., channel], expected, atol=1e-6)


def test_intersection_over_union_by_hand():
    gold = np.array([0, 0, 0, 1, 1, 2, 255])
    predicted = np.array([0, 0, 1, 1, 0, 2, 0])
    counts = dense.confusion(predicted, gold, 4, ignored=255)
    assert counts.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert dense.mean_iou(counts) == pytest.approx((2 / 4 + 1 / 3 + 1) / 3)  # the class that never occurs is left out


def test_depths_and_directions():
    assert dense.rmse(np.array([1.0, 3.0]), np.array([1.0, 1.0])) == pytest.approx(np.sqrt(2))
    gold = np.zeros((1, 1, 2, 3))
    gold[..., 2] = 1
    tilted = gold.copy()
    tilted[0, 0, 1] = [5, 0, 5]  # any length
    assert dense.angle(tilted, gold) == pytest.approx(np.sqrt((0 + 45**2) / 2))
    assert dense.angle(gold, gold) == pytest.approx(0, abs=1e-6)


def test_rare_classes_are_found_by_the_balanced_regression(random):
    classes = (random.uniform(size=(40, 25)) < 0.03).astype(int)
    features = np.eye(2)[classes] + random.normal(0, 0.4, (40, 25, 2))
    found = dense.logistic_classes(features[:20], classes[:20], features[20:]).argmax(-1)
    gold = classes[20:]
    recall = [np.mean(found[gold == k] == k) for k in range(2)]
    assert min(recall) > 0.85
    only = dense.logistic_classes(features[:20], 2 * classes[:20], features[20:])
    assert only.shape[-1] == 3 and np.isneginf(only[..., 1]).all()  # a class that no training patch has


def test_clusters_and_colours_show_what_patches_are(random):
    classes = random.integers(0, 3, (10, 16))
    features = np.eye(3)[classes] @ random.normal(0, 5, (3, 8)) + random.normal(0, 0.1, (10, 16, 8))
    assert dense.agreement(features, classes) == pytest.approx(1.0)
    assert abs(dense.agreement(random.normal(size=features.shape), classes)) < 0.1
    shown = dense.colours(features)
    assert shown.shape == (10, 16, 3) and shown.min() >= 0 and shown.max() <= 1
    two = shown[..., :2]  # three classes lie in a plane; the third component is noise
    means = np.array([two[classes == k].mean(0) for k in range(3)])
    spread = max(two[classes == k].std(0).max() for k in range(3))
    assert np.linalg.norm(means[0] - means[1]) > 5 * spread


def test_unknown_patches_are_left_out_of_a_fit_and_unknown_pixels_of_means_and_errors(random):
    features, values = random.normal(size=(5, 6, 3)), random.normal(size=(5, 6, 2))
    unknown = values.copy()
    unknown[3:] = np.nan
    fitted = dense.Ridge(features, unknown, 2, 3)
    # A patch of the wrong value would change the map; the scale of the features is that of all patches.
    assert not np.allclose(fitted(features), dense.Ridge(features, np.nan_to_num(unknown), 2, 3)(features), atol=1e-3)
    again = unknown.copy()
    again[3:, :, 0] = 7.0  # a value of a patch whose other value is not known
    np.testing.assert_allclose(fitted(features), dense.Ridge(features, again, 2, 3)(features), atol=1e-6)
    maps = np.full((1, 2, 4, 1), np.nan)
    maps[0, :, 0] = 3.0
    np.testing.assert_array_equal(dense.patch_means(maps, 1, 2)[0, :, 0], [3.0, np.nan])
    assert dense.rmse(np.array([1.0, 9.0]), np.array([3.0, np.nan])) == 2.0
