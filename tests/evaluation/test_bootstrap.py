"""Intervals and differences by drawing items: statistics against direct ones, and what any interval must satisfy."""

import math
import zipfile

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from embed.errors import DataError
from embed.evaluation import bootstrap
from embed.evaluation.bootstrap import Sample, difference, interval


def mean_sample(count: int = 200, seed: int = 0) -> Sample:
    return Sample("mean", np.random.default_rng(seed).uniform(0, 1, count))


def samples(seed: int = 0, count: int = 120) -> dict[str, Sample]:
    draw = np.random.default_rng(seed)
    values = draw.standard_normal(count)
    return {
        "mean": Sample("mean", values),
        "macro_mean": Sample("macro_mean", values, draw.integers(0, 5, count)),
        "spearman": Sample("spearman", values, np.round(values + draw.standard_normal(count))),
        "pearson": Sample("pearson", values, np.round(values + draw.standard_normal(count))),
        "average_precision": Sample(
            "average_precision", values, (values + draw.standard_normal(count) > 0).astype(int)
        ),
        "weighted_f1": Sample("weighted_f1", draw.integers(0, 9, count), draw.integers(0, 7, count)),
        "kendall": Sample("kendall", values, np.round(values + draw.standard_normal(count))),
        "best_accuracy": Sample(
            "best_accuracy", np.round(values, 1), (values + draw.standard_normal(count) > 0).astype(int)
        ),
        "nmi": Sample("nmi", draw.integers(0, 4, count), draw.integers(0, 3, count)),
        "mean_iou": Sample("mean_iou", draw.integers(0, 9, (count, 9))),
        "macro_f1": Sample("macro_f1", draw.integers(0, 5, (count, 3)), draw.integers(1, 6, count)),
        "labels_f1": Sample("labels_f1", draw.integers(0, 2, (count, 3, 4)), draw.integers(0, 2, (count, 4))),
    }


def everything(sample: Sample) -> np.ndarray:
    return np.arange(len(sample))


# statistics


def direct(name: str, values, others) -> float:
    if name == "mean":
        return sum(values) / len(values)
    if name == "macro_mean":
        groups = sorted(set(others))
        means = [sum(v for v, g in zip(values, others) if g == group) / list(others).count(group) for group in groups]
        return sum(means) / len(means)
    if name == "spearman":
        return stats.spearmanr(values, others).statistic
    if name == "pearson":
        return stats.pearsonr(values, others).statistic
    if name == "average_precision":
        return metrics.average_precision_score(others, values)
    if name == "kendall":
        return stats.kendalltau(others, values).statistic
    if name == "best_accuracy":
        cuts = [(a + b) / 2 for a, b in zip(sorted(set(values)), sorted(set(values))[1:])]
        return max(np.mean([(v > cut) == bool(x) for v, x in zip(values, others)]) for cut in cuts)
    if name == "nmi":
        return metrics.normalized_mutual_info_score(others, values)
    if name == "mean_iou":
        counts = np.array(values).sum(0).reshape(3, 3)
        each = [counts[k, k] / (counts[k].sum() + counts[:, k].sum() - counts[k, k]) for k in range(3)]
        return sum(each) / 3
    if name in ("macro_f1", "labels_f1"):
        experiments = range(np.array(values).shape[1])
        f1 = lambda i: metrics.f1_score(others, np.array(values)[:, i], average="macro", zero_division=0)  # noqa: E731
        return np.mean([f1(i) for i in experiments])
    return metrics.f1_score(others, values, average="weighted", zero_division=0)


@pytest.mark.parametrize("name", list(bootstrap.STATISTICS))
@pytest.mark.parametrize("seed", range(4))
def test_each_statistic_equals_a_direct_computation(name, seed):
    assert set(bootstrap.STATISTICS) == set(samples())
    sample = samples(seed)[name]
    draw = np.random.default_rng(seed + 50)
    for rows in (everything(sample), draw.integers(120, size=120), draw.integers(120, size=10)):
        others = None if sample.others is None else sample.others[rows].tolist()
        assert sample.of(rows) == pytest.approx(direct(name, sample.values[rows].tolist(), others), abs=1e-9)


def test_statistics_that_are_not_defined_are_not_a_number():
    rows = np.arange(3)
    same, differ = np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0])
    assert math.isnan(Sample("spearman", same, differ).of(rows))
    assert math.isnan(Sample("spearman", differ, same).of(rows))
    assert math.isnan(Sample("average_precision", differ, np.zeros(3, int)).of(rows))


def test_weighted_f1_by_hand():
    sample = Sample("weighted_f1", np.array([0, 0, 2]), np.array([0, 1, 2]))
    assert sample.of(np.arange(3)) == pytest.approx((2 / 3 + 0 + 1) / 3)


# intervals


@pytest.mark.parametrize("name", ["mean", "macro_mean", "spearman", "pearson", "average_precision", "weighted_f1"])
def test_the_interval_holds_the_score_and_is_narrow(name):
    sample = samples()[name]
    low, high = interval(sample, draws=300)
    assert low <= sample.of(everything(sample)) <= high
    assert 0 < high - low < 1


def test_the_interval_of_a_mean_is_that_of_the_central_limit():
    sample = mean_sample(400)
    error = sample.values.std() / math.sqrt(400)
    low, high = interval(sample, draws=4000)
    assert low == pytest.approx(sample.values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(sample.values.mean() + 1.96 * error, abs=0.1 * error)


def test_the_interval_shrinks_with_the_items():
    widths = [high - low for low, high in (interval(mean_sample(n)) for n in (25, 100, 400, 1600))]
    for wide, narrow in zip(widths, widths[1:]):
        assert narrow == pytest.approx(wide / 2, rel=0.3)


def test_a_higher_level_is_wider():
    narrow, wide = interval(mean_sample(), level=0.5), interval(mean_sample(), level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_same_seed_gives_the_same_interval():
    assert interval(mean_sample()) == interval(mean_sample())
    assert interval(mean_sample(), seed=1) != interval(mean_sample())


def test_equal_items_have_no_width():
    assert interval(Sample("mean", np.full(30, 0.25))) == (0.25, 0.25)


def test_no_items_have_no_interval():
    assert all(math.isnan(x) for x in interval(Sample("mean", np.array([]))))


def test_draws_that_are_not_defined_are_passed_over():
    # Every tenth draw or so has no positive pair at all.
    sample = Sample("average_precision", np.array([0.9, 0.8, 0.7, 0.1]), np.array([1, 0, 0, 0]))
    assert all(math.isfinite(x) for x in interval(sample, draws=200))


# differences


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mean", "macro_mean", "spearman", "pearson", "average_precision", "weighted_f1"])
def test_a_sample_differs_from_itself_by_nothing(name):
    assert difference(samples()[name], samples()[name], draws=200) == (0.0, 0.0, 0.0)


def test_differences_are_drawn_in_pairs():
    one = mean_sample()
    # Every item is better by the same: draws of the same items always differ by just that.
    value, low, high = difference(Sample("mean", one.values + 0.125), one)
    assert (value, low, high) == pytest.approx((0.125, 0.125, 0.125))
    noise = np.random.default_rng(5).normal(0, 0.01, 200)
    value, low, high = difference(Sample("mean", one.values + 0.1 + noise), one)
    assert low < value < high and high - low < 0.01 < interval(one)[1] - interval(one)[0]


def test_a_difference_changes_its_sign_with_the_order():
    one, other = mean_sample(seed=1), mean_sample(seed=2)
    value, low, high = difference(one, other)
    assert difference(other, one) == pytest.approx((-value, -high, -low))
    assert value == pytest.approx(one.values.mean() - other.values.mean())


def test_samples_of_other_items_cannot_be_compared():
    with pytest.raises(ValueError, match="200 items against 100"):
        difference(mean_sample(200), mean_sample(100))
    with pytest.raises(ValueError, match="not scored on the same task"):
        difference(samples()["spearman"], samples()["average_precision"])


def test_the_difference_of_nothing_is_not_a_number():
    assert all(math.isnan(x) for x in difference(Sample("mean", np.array([])), Sample("mean", np.array([]))))


# files


def test_samples_are_read_as_they_were_written(tmp_path):
    given = {f"a model/task {name}/768 int8": sample for name, sample in samples().items()}
    bootstrap.save(tmp_path / "samples.npz", given)
    found = bootstrap.load(tmp_path / "samples.npz")
    assert list(found) == list(given)
    for name, sample in given.items():
        assert found[name].statistic == sample.statistic
        np.testing.assert_array_equal(found[name].values, sample.values)
        assert (found[name].others is None) == (sample.others is None)
        if sample.others is not None:
            np.testing.assert_array_equal(found[name].others, sample.others)
        assert interval(found[name], draws=50) == interval(sample, draws=50)
    assert [p.name for p in tmp_path.iterdir()] == ["samples.npz"]


def test_no_samples_are_a_file_too(tmp_path):
    bootstrap.save(tmp_path / "samples.npz", {})
    assert bootstrap.load(tmp_path / "samples.npz") == {}


# files that are not samples


def npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def header(shape: str, dtype: str = "<f8") -> bytes:
    """Returns the start of an npy file that declares a shape."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def zipped(path, name="m/t/8\tmean\tvalues.npy", content=b"", **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        archive.writestr(name, content)
    return path


def refused(path, part=""):
    with pytest.raises(DataError) as caught:
        bootstrap.load(path)
    assert "\n" not in str(caught.value) and "restore the file, or remove it" in str(caught.value)
    assert str(path) in str(caught.value) and part in str(caught.value)


def test_what_are_no_samples_is_refused(tmp_path):
    path = tmp_path / "s.npz"
    for content in (b"", b"PK", b"not a zip", header("(1,)") + bytes(8)):
        path.write_bytes(content)
        refused(path)
    refused(tmp_path / "gone.npz")
    refused(npz(path, plain=np.zeros(3)))
    refused(npz(path, **{"a\tmode\tvalues": np.zeros(3)}), "'mode'")
    refused(npz(path, **{"a\tmean\tothers": np.zeros(3)}))
    refused(npz(path, **{"a\tmean\tvalues": np.zeros(3), "a\tmean\tothers": np.zeros(2)}), "3 values with 2 others")
    refused(npz(path, **{"a\tmean\tvalues": np.array(["x"])}), "<U1")
    refused(npz(path, **{"a\tmean\tvalues": np.array(3.0)}), "0 dimensions")
    np.savez(path, **{"a\tmean\tvalues": np.array([{}], dtype=object)})
    refused(path)


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(-1,)", "(2,)", "(99999999999, 99999999999)"])
def test_a_shape_that_the_file_does_not_hold_is_refused_before_memory_is_taken(tmp_path, shape):
    refused(zipped(tmp_path / "s.npz", content=header(shape) + bytes(8)))


def test_a_file_that_grows_without_measure_is_refused(tmp_path):
    content = header(f"({(80 << 20) // 8},)") + bytes(80 << 20)
    refused(zipped(tmp_path / "s.npz", content=content), "bytes would come out of")


def test_every_flipped_byte_is_noticed_or_changes_nothing(tmp_path):
    path = tmp_path / "s.npz"
    given = {"m/t/8": mean_sample(20)}
    bootstrap.save(path, given)
    whole = path.read_bytes()
    for index in range(0, len(whole), 7):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 0x41]) + whole[index + 1 :])
        try:
            found = bootstrap.load(path)
        except DataError:
            continue
        # The directory of a zip file has fields that say nothing of the content, and the name.
        assert [list(s.values) for s in found.values()] == [list(given["m/t/8"].values)]


def test_names_may_hold_any_character(tmp_path):
    given = {"a\tb/c\nd/8": mean_sample(5), "\u202e|é/t/8": mean_sample(6)}
    bootstrap.save(tmp_path / "s.npz", given)
    assert set(bootstrap.load(tmp_path / "s.npz")) == set(given)
