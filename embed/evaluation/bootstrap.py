"""Confidence intervals by drawing a task's items again and again, and of the difference between two models."""

import dataclasses
import io
import math
import pathlib
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
from scipy import stats

from embed import documents, files
from embed.errors import DataError
from embed.evaluation.dense import mean_iou
from embed.evaluation.pairs import threshold_scores

DRAWS = 1000


@dataclasses.dataclass(frozen=True)
class Sample:
    """What a main score is computed from: a value for each item, and where the statistic needs one, a second.

    `statistic` is a key of `STATISTICS`.
    """

    statistic: str
    values: np.ndarray
    others: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    def of(self, rows: np.ndarray) -> float:
        """Returns the score of the items `rows`."""
        others = None if self.others is None else self.others[rows]
        return STATISTICS[self.statistic](self.values[rows], others)


def _mean(values, _) -> float:
    values = values[~np.isnan(values)]  # items without a value
    return float(values.mean()) if len(values) else float("nan")


def _pearson(values, others) -> float:
    if np.ptp(values) == 0 or np.ptp(others) == 0:
        return float("nan")
    return float(stats.pearsonr(values, others).statistic)


def _spearman(values, others) -> float:
    if np.ptp(values) == 0 or np.ptp(others) == 0:
        return float("nan")
    return float(stats.spearmanr(values, others).statistic)


def _average_precision(values, labels) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, values)) if labels.any() else float("nan")


def _weighted_f1(predicted, gold) -> float:
    """Weighted by the gold items: 2 TP / (predicted + gold) of each, whose mean over rows this is."""
    size = max(int(predicted.max()), int(gold.max())) + 1
    right = np.bincount(gold[predicted == gold], minlength=size)
    both = np.bincount(predicted, minlength=size) + np.bincount(gold, minlength=size)
    f1 = 2 * right / np.maximum(both, 1)
    return float(f1[gold].mean())


def _macro_mean(values, groups) -> float:
    return float(np.mean([values[groups == g].mean() for g in np.unique(groups)]))


def _mean_iou(counts, _) -> float:
    size = int(round(counts.shape[1] ** 0.5))
    return mean_iou(counts.sum(0).reshape(size, size))


def _nmi(predicted, gold) -> float:
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(gold, predicted))


def _kendall(predicted, gold) -> float:
    if np.ptp(predicted) == 0 or np.ptp(gold) == 0:
        return float("nan")
    return float(stats.kendalltau(gold, predicted).statistic)


def _best_accuracy(values, labels) -> float:
    """The accuracy at the best threshold between two similarities."""
    return threshold_scores(values, labels)["accuracy"] if len(set(labels.tolist())) > 1 else float("nan")


def _macro_f1(predicted, gold) -> float:
    """The mean over experiments [n, experiments] of the mean F1 of the labels that occur."""
    scores, size = [], int(max(predicted.max(), gold.max())) + 1
    for one in predicted.T:
        both = np.bincount(one, minlength=size) + np.bincount(gold, minlength=size)
        right = np.bincount(gold[one == gold], minlength=size)
        scores.append((2 * right[both > 0] / both[both > 0]).mean())
    return float(np.mean(scores))


def _labels_f1(predicted, gold) -> float:
    """The mean over experiments of the mean F1 of all labels; predictions [n, experiments, labels], gold [n, labels]."""
    right = np.minimum(predicted, gold[:, None]).sum(0, dtype=np.int64)
    both = predicted.sum(0, dtype=np.int64) + gold.sum(0, dtype=np.int64)
    return float((2 * right / np.maximum(both, 1)).mean())


STATISTICS = {
    "mean": _mean,
    "macro_mean": _macro_mean,
    "spearman": _spearman,
    "pearson": _pearson,
    "average_precision": _average_precision,
    "weighted_f1": _weighted_f1,
    "kendall": _kendall,
    "nmi": _nmi,
    "mean_iou": _mean_iou,
    "best_accuracy": _best_accuracy,
    "macro_f1": _macro_f1,
    "labels_f1": _labels_f1,
}


def interval(sample: Sample, level: float = 0.95, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """Returns the percentile interval of the score."""
    return _percentiles(np.array([sample.of(rows) for rows in _rows(len(sample), draws, seed)]), level)


def save(path, samples: Mapping[str, Sample]) -> None:
    """Writes samples to an npz file, for comparisons with runs to come."""
    arrays = {}
    for name, sample in samples.items():
        arrays[f"{name}\t{sample.statistic}\tvalues"] = sample.values
        if sample.others is not None:
            arrays[f"{name}\t{sample.statistic}\tothers"] = sample.others
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    files.write_atomic(path, buffer.getvalue())


_KINDS = "fiub"  # kinds of numbers that samples have
_UNPACKED = (64 << 20, 64)  # what may come out of a file: so many bytes, and so many for each of its own


def load(path) -> dict[str, Sample]:
    """Returns the samples that `save` wrote. Any other file is a DataError, found before memory is taken for it."""
    parts: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, pathlib.Path(path).stat().st_size)
            for member in archive.infolist():
                name, statistic, part = member.filename.removesuffix(".npy").rsplit("\t", 2)
                parts.setdefault((name, statistic), {})[part] = _array(archive, member)
        return {name: _sample(statistic, arrays) for (name, statistic), arrays in parts.items()}
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        zlib.error,
        zipfile.BadZipFile,
    ) as e:
        reason = documents.first_line(e)
        raise DataError(f"{path}: not samples of an evaluation ({reason}); restore the file, or remove it") from e


def _check_sizes(archive: zipfile.ZipFile, packed: int) -> None:
    floor, ratio = _UNPACKED
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > floor + ratio * packed:
        raise ValueError(f"{unpacked:,} bytes would come out of {packed:,}")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Returns one array, whose header must say the size that the member has."""
    data = archive.read(member)
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"an array of format {version}")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in _KINDS or is_fortran or not 1 <= len(shape) <= 3:
        raise ValueError(f"an array of {dtype} with {len(shape)} dimensions")
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"an array of shape {shape} in {len(data):,} bytes")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)


def _sample(statistic: str, parts: Mapping[str, np.ndarray]) -> Sample:
    values, others = parts.get("values"), parts.get("others")
    if statistic not in STATISTICS or values is None or set(parts) - {"values", "others"}:
        raise ValueError(f"the statistic {statistic[:40]!r} of {', '.join(sorted(parts))[:40]}")
    if others is not None and len(others) != len(values):
        raise ValueError(f"{len(values)} values with {len(others)} others")
    return Sample(statistic, values, others)


def difference(
    one: Sample, other: Sample, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float, float]:
    """Returns (one minus other, and its interval), both scored on the same draws of the items they share.

    Raises ValueError when they are not of the same items.
    """
    if len(one) != len(other) or one.statistic != other.statistic:
        raise ValueError(f"{len(one)} items against {len(other)}: not scored on the same task")
    if not len(one):
        return (float("nan"),) * 3
    everything = np.arange(len(one))
    differences = np.array([one.of(rows) - other.of(rows) for rows in _rows(len(one), draws, seed)])
    return one.of(everything) - other.of(everything), *_percentiles(differences, level)


def _rows(count: int, draws: int, seed: int):
    generator = np.random.default_rng(seed)
    for _ in range(draws if count else 0):
        yield generator.integers(count, size=count)


def _percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
