"""What the patches of frozen image towers know of every pixel: classes, depths and directions, by maps in closed form.

A ridge regression maps a patch's features, beside polynomials of its position, to what is true of its pixels on average. The map of
patches is resized to the pixels by a linear filter. Floors that no feature passes (position alone, raw pixels) belong beside every
score. For headline figures classes are told apart by a logistic regression that weighs each class alike, as a ridge regression
prefers large classes.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from embed.evaluation.probes import quiet

PENALTY = 0.1  # of the ridge regression, on features of unit variance
_FITTED = 50_000  # patches that a logistic regression is fitted to, at most


def patch_shares(classes: Int[np.ndarray, "n Y X"], rows: int, columns: int, count: int) -> Float[np.ndarray, "n P C"]:
    """Returns the share of each class in the pixels of each patch, row by row. Pixels of class -1 count for no class."""
    one_hot = (classes[..., None] == np.arange(count)).astype(np.float32)
    return patch_means(one_hot, rows, columns)


def patch_means(values: Float[np.ndarray, "n Y X C"], rows: int, columns: int) -> Float[np.ndarray, "n P C"]:
    """Returns the mean of the pixels of each patch, row by row. The sides are multiples of the grid's.

    Unknown pixels (NaN) are left out. The mean of a patch without a known pixel is NaN.
    """
    count, height, width, channels = values.shape
    blocks = values.reshape(count, rows, height // rows, columns, width // columns, channels)
    known = ~np.isnan(blocks)
    if known.all():
        return blocks.mean((2, 4)).reshape(count, rows * columns, channels)
    with np.errstate(invalid="ignore"):
        means = np.where(known, blocks, 0).sum((2, 4)) / known.sum((2, 4))
    return means.reshape(count, rows * columns, channels)


def positions(rows: int, columns: int) -> Float[np.ndarray, "P 6"]:
    """Returns x, y, x^2, y^2, xy and 1 of each patch's middle, from -1 to 1."""
    y, x = np.meshgrid(
        (np.arange(rows) + 0.5) * 2 / rows - 1, (np.arange(columns) + 0.5) * 2 / columns - 1, indexing="ij"
    )
    return np.stack([x, y, x**2, y**2, x * y, np.ones_like(x)], -1).reshape(-1, 6).astype(np.float32)


class Ridge:
    """A linear map from patches [n, P, D] to values [n, P, C], beside polynomials of the position, which carry no penalty.

    Features are scaled by the deviations of the training patches. Patches with an unknown value (NaN) are not
    fitted.
    """

    def __init__(self, features: np.ndarray, values: np.ndarray, rows: int, columns: int, penalty: float = PENALTY):
        self._positions = positions(rows, columns)
        flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
        self._mean, self._std = flat.mean(0), np.maximum(flat.std(0), 1e-6)
        wanted = values.reshape(-1, values.shape[-1]).astype(np.float64)
        known = np.isfinite(wanted).all(-1)
        inputs, wanted = self._inputs(features)[known], wanted[known]
        penalties = np.r_[np.full(features.shape[-1], penalty * len(inputs)), np.zeros(self._positions.shape[1])]
        gram = inputs.T @ inputs + np.diag(penalties) + 1e-9 * np.eye(inputs.shape[1])
        self._weights = np.linalg.solve(gram, inputs.T @ wanted)

    def _inputs(self, features: np.ndarray) -> np.ndarray:
        scaled = (features.reshape(-1, features.shape[-1]) - self._mean) / self._std
        return np.concatenate([scaled, np.tile(self._positions, (len(features), 1))], 1)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Returns the values of patches."""
        return (self._inputs(features) @ self._weights).reshape(*features.shape[:2], -1).astype(np.float32)


def logistic_classes(
    train: np.ndarray, classes: np.ndarray, test: np.ndarray, seed: int = 0
) -> Float[np.ndarray, "n P C"]:
    """Returns the log-probabilities of test patches' classes; `classes` [n, P] are those of most pixels of training patches.

    Every class weighs alike. Training patches of class -1 are left out. Of many training patches a part is drawn.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    known = classes.reshape(-1) >= 0
    features, labels = train.reshape(-1, train.shape[-1])[known], classes.reshape(-1)[known]
    if len(labels) > _FITTED:
        chosen = np.random.default_rng(seed).choice(len(labels), _FITTED, replace=False)
        features, labels = features[chosen], labels[chosen]
    scaler = StandardScaler().fit(features)
    with quiet():
        fitted = LogisticRegression(max_iter=300, class_weight="balanced").fit(scaler.transform(features), labels)
    flat = fitted.predict_log_proba(scaler.transform(test.reshape(-1, test.shape[-1])))
    log_probabilities = np.full((len(flat), int(labels.max()) + 1), -np.inf)
    log_probabilities[:, fitted.classes_] = flat
    return log_probabilities.reshape(*test.shape[:2], -1).astype(np.float32)


def resized(grid: Float[np.ndarray, "n P C"], rows: int, columns: int, height: int, width: int) -> np.ndarray:
    """Returns maps of patches at every pixel [n, height, width, C], by a linear filter between the middles of patches."""
    maps = grid.reshape(len(grid), rows, columns, -1)
    maps = np.einsum("yr,nrcd->nycd", _weights(rows, height), maps)
    return np.einsum("xc,nycd->nyxd", _weights(columns, width), maps)


def _weights(patches: int, pixels: int) -> np.ndarray:
    """Returns [pixels, patches]: how much each patch counts for a pixel along one side; the outermost patches reach to the edge."""
    middle = np.clip((np.arange(pixels) + 0.5) * patches / pixels - 0.5, 0, patches - 1)
    low = np.minimum(middle.astype(int), max(patches - 2, 0))
    weights = np.zeros((pixels, patches), np.float32)
    weights[np.arange(pixels), low] = 1 - (middle - low)
    weights[np.arange(pixels), np.minimum(low + 1, patches - 1)] += middle - low
    return weights


def confusion(predicted: np.ndarray, gold: np.ndarray, count: int, ignored: int | None = None) -> np.ndarray:
    """Returns how many pixels of each class (rows) were called each class (columns)."""
    predicted, gold = predicted.reshape(-1).astype(np.int64), gold.reshape(-1).astype(np.int64)
    if ignored is not None:
        kept = gold != ignored
        predicted, gold = predicted[kept], gold[kept]
    return np.bincount(gold * count + predicted, minlength=count * count).reshape(count, count)


def mean_iou(counts: np.ndarray) -> float:
    """Returns the mean over the classes that occur of intersection over union. Source: spec of the Pascal VOC challenge."""
    right = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - right
    return float((right[union > 0] / union[union > 0]).mean())


def rmse(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Returns the root of the mean squared error, in the unit of both. What is NaN in `gold` is not scored."""
    return float(np.sqrt(np.nanmean((predicted.astype(np.float64) - gold) ** 2)))


def angle(predicted: Float[np.ndarray, "n Y X 3"], gold: Float[np.ndarray, "n Y X 3"]) -> float:
    """Returns the root of the mean squared angle between directions of any length, in degrees. NaN in `gold` is not scored."""
    one, other = (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9) for x in (predicted, gold))
    angles = np.degrees(np.arccos(np.clip(np.sum(one * other, -1), -1, 1)))
    return float(np.sqrt(np.nanmean(angles**2)))


def agreement(features: np.ndarray, classes: np.ndarray, seed: int = 0) -> float:
    """Returns the adjusted Rand index of k-means on patches with as many clusters as there are classes. -1 is no class."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    known = classes.reshape(-1) >= 0
    features, labels = features.reshape(-1, features.shape[-1])[known], classes.reshape(-1)[known]
    means = KMeans(len(np.unique(labels)), n_init=4, random_state=seed)
    with quiet():
        clusters = means.fit_predict(features)
    return float(adjusted_rand_score(labels, clusters))


def colours(features: Float[np.ndarray, "n P D"], kept: Sequence[int] | None = None, seed: int = 0) -> np.ndarray:
    """Returns colours of patches [n, P, 3] in [0, 1]: their first three principal components, whitened, through a sigmoid.

    The components are those of up to 100,000 patches of the images `kept` (all).
    """
    if features.shape[-1] < 3:
        features = np.pad(features, ((0, 0), (0, 0), (0, 3 - features.shape[-1])))
    chosen = features if kept is None else features[list(kept)]
    flat = chosen.reshape(-1, features.shape[-1])
    if len(flat) > 100_000:
        flat = flat[np.random.default_rng(seed).choice(len(flat), 100_000, replace=False)]
    mean = flat.mean(0, dtype=np.float64)
    variances, vectors = np.linalg.eigh(np.cov(flat - mean, rowvar=False))
    vectors = vectors[:, ::-1][:, :3]
    vectors *= np.sign(vectors[np.abs(vectors).argmax(0), range(3)])  # of the two signs the one of the largest entry
    components = (features.reshape(-1, features.shape[-1]) - mean) @ vectors
    whitened = components / np.sqrt(np.maximum(variances[::-1][:3], 1e-12))
    return (1 / (1 + np.exp(-2 * whitened))).reshape(*features.shape[:2], 3)
