"""Soups: the right average to the last bit, no input that differs or is broken, memory that does not grow."""

import itertools
import random
import subprocess
import sys
import tracemalloc
from fractions import Fraction

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from embed import arrays, bundles, checkpoints, documents, files, trees
from embed.averaging import soup
from embed.errors import DataError, NumericError, UsageError

SHAPES = {
    "encoder": {"layers": {"kernel": (3, 8, 16)}, "table": (40, 8)},
    "projection_0": {"kernel": (8, 5)},
    "scale": (),
}


def make_params(seed: int = 0, dtype=np.float32) -> dict:
    draw = np.random.default_rng(seed)
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    return jax.tree.map(
        lambda s: np.asarray(draw.standard_normal(s), np.float32).astype(dtype), SHAPES, is_leaf=is_shape
    )


def write(path, params, architecture="Embedder", vocabulary="v", **trees):
    """Returns a new bundle at `path`."""
    description = bundles.model_json(
        {"type": architecture, "encoder": {"type": "Gemma"}},
        tokenizer_options={"kind": "sentencepiece"},
        tokenizer_digest=vocabulary,
        prompts={},
        matryoshka_dims=(5,),
        lengths={"query": 8},
        lineage={"seed": str(path.name)},
    )
    return checkpoints.write_bundle(path, params, bundles.contents(description, "tokenizer.model", b"x"))


@pytest.fixture
def inputs(tmp_path):
    """Eight bundles of different parameters."""
    return [write(tmp_path / f"in{i}", make_params(i)) for i in range(8)]


def reference(seeds, weights) -> dict[str, np.ndarray]:
    """Returns the average in float64, rounded once, by a loop over the leaves."""
    all_leaves = [trees.flatten(make_params(s)) for s in seeds]
    return {
        path: sum(w * leaves[path].astype(np.float64) for w, leaves in zip(weights, all_leaves)).astype(np.float32)
        for path in all_leaves[0]
    }


def assert_same_bits(found, wanted):
    found, wanted = trees.flatten(found), trees.flatten(wanted)
    assert list(found) == list(wanted)
    for path, value in wanted.items():
        assert found[path].dtype == value.dtype and found[path].shape == value.shape, path
        assert found[path].tobytes() == np.asarray(value).tobytes(), path


# values


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_uniform_is_the_mean(inputs, count):
    weights = soup.weights_for("uniform", count, None, None)
    assert len(weights) == count and sum(weights) == pytest.approx(1, abs=1e-15)
    found = soup.average(inputs[:count], weights)
    for path, value in trees.flatten(found).items():
        mean = np.mean([trees.flatten(make_params(s))[path].astype(np.float64) for s in range(count)], axis=0)
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, mean, rtol=6e-8, atol=1e-12)


def test_weighted_is_the_weighted_sum(inputs):
    weights = [0.5, 0.125, 0.375]
    found = trees.flatten(soup.average(inputs[:3], soup.weights_for("weighted", 3, weights, None)))
    for path, value in reference(range(3), weights).items():
        np.testing.assert_allclose(found[path], value, rtol=1.2e-7, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0, None])
def test_interpolation_goes_from_the_base_to_the_other(inputs, alpha):
    weights = soup.weights_for("interpolate", 2, None, alpha)
    found = trees.flatten(soup.average(inputs[:2], weights))
    share = 0.5 if alpha is None else alpha
    for path, value in reference(range(2), [1 - share, share]).items():
        np.testing.assert_allclose(found[path], value, rtol=1.2e-7, atol=1e-12)
    if alpha in (0.0, 1.0):
        assert_same_bits(trees.unflatten(found), make_params(int(alpha)))


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 10])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
def test_a_model_averaged_with_itself_is_that_model_to_the_bit(tmp_path, count, dtype):
    params = make_params(3, dtype)
    params["encoder"]["table"].flat[:4] = np.array([0.0, 1e-6, -3.0, 1e4]).astype(dtype)
    folder = write(tmp_path / "x", params)
    assert_same_bits(soup.average([folder] * count, soup.weights_for("uniform", count, None, None)), params)


@pytest.mark.parametrize("count", [3, 10])
def test_integers_averaged_with_themselves_stay(tmp_path, count):
    params = {"ids": np.arange(1, 200, dtype=np.int32), "x": np.ones(2, np.float32)}
    folder = write(tmp_path / "x", params)
    assert_same_bits(soup.average([folder] * count, soup.weights_for("uniform", count, None, None)), params)


def rough(seed: int, size: int = 20_000) -> np.ndarray:
    """Returns values with few digits, many of whose means lie half-way between two neighbouring float32 or bfloat16."""
    draw = np.random.default_rng(seed)
    return np.ldexp(draw.integers(128, 256, size), draw.integers(-9, -5, size)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("kind", ["normal", "few digits"])
def test_the_order_of_inputs_does_not_matter(tmp_path, kind, dtype):
    make = (
        rough
        if kind == "few digits"
        else lambda seed: np.random.default_rng(seed).standard_normal(20_000).astype(np.float32)
    )
    folders = [write(tmp_path / f"{i}", {"x": make(i).astype(dtype)}) for i in range(3)]
    weights = soup.weights_for("uniform", 3, None, None)
    found = {soup.average(list(order), weights)["x"].tobytes() for order in itertools.permutations(folders)}
    assert len(found) == 1


def test_the_order_of_weighted_inputs_does_not_matter(inputs):
    pairs = list(zip(inputs[:4], [0.1, 0.2, 0.3, 0.4]))
    wanted = soup.average(*map(list, zip(*pairs)))
    random.Random(0).shuffle(pairs)
    found = soup.average(*map(list, zip(*pairs)))
    assert_same_bits(found, wanted)


def nearest_bfloat16(value: Fraction) -> float:
    """Returns the bfloat16 nearest to an exact value in [1, 2); half-way goes to the even one."""
    steps = value * 128
    low = int(steps)
    rest = steps - low
    return float(Fraction(low + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2)), 128))


def test_bfloat16_is_summed_in_float64_and_rounded_once(tmp_path):
    values = [(np.random.default_rng(i).integers(128, 256, 500) / 128).astype(ml_dtypes.bfloat16) for i in range(4)]
    folders = [write(tmp_path / f"{i}", {"x": x}) for i, x in enumerate(values)]
    weights = [0.25, 0.125, 0.5, 0.125]
    found = soup.average(folders, weights)["x"]
    assert found.dtype == ml_dtypes.bfloat16
    exact = [sum(Fraction(w) * Fraction(float(v)) for w, v in zip(weights, column)) for column in zip(*values)]
    np.testing.assert_array_equal(found.astype(np.float64), [nearest_bfloat16(e) for e in exact])


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("piece", "run"), [(4, 1 << 17), (100, 7), (200, 1 << 17), (1 << 24, 7)])
def test_leaves_of_many_blocks_are_whole(tmp_path, monkeypatch, piece, run):
    monkeypatch.setattr(arrays, "PIECE", piece)  # bytes that are stored, and read, in one piece
    monkeypatch.setattr(soup, "_RUN", run)
    folders = [write(tmp_path / f"{i}", make_params(i)) for i in range(3)]
    mixed = soup.Average(folders, [0.5, 0.25, 0.25])
    assert (len(mixed.blocks["encoder/table"]) > 1) == (piece < 40 * 8 * 4)
    for path, (shape, _) in mixed.specs.items():
        seen = np.zeros(shape, int)
        for block in mixed.blocks[path]:
            seen[block] += 1
        assert np.all(seen == 1), path
    found = trees.flatten(soup.average(folders, [0.5, 0.25, 0.25]))
    for path, value in reference(range(3), [0.5, 0.25, 0.25]).items():
        np.testing.assert_array_equal(found[path], value)


def test_pieces_that_do_not_divide_an_array_are_averaged_again(tmp_path):
    """What was written block by block ends with smaller blocks."""
    x = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    blocks = [(slice(i, min(i + 7, 40)), slice(0, 8)) for i in range(0, 40, 7)]
    folder = write(tmp_path / "m", {"x": x})
    contents = {n: (folder / n).read_bytes() for n in ("model.json", "tokenizer.model")}
    pieces = arrays.write_bundle_by_blocks(
        tmp_path / "n", {"x": (x.shape, x.dtype)}, {"x": blocks}, lambda path, block: x[block], contents
    )
    np.testing.assert_array_equal(soup.average([pieces, folder], [0.5, 0.5])["x"], x)


def test_an_average_is_a_model_again(inputs, tmp_path):
    params = soup.average(inputs[:2], [0.5, 0.5])
    description = bundles.read_model_json(inputs[0])
    description["lineage"] = soup.lineage(inputs[:2], [0.5, 0.5], "uniform")
    path = checkpoints.write_bundle(tmp_path / "soup", params, bundles.contents(description, "tokenizer.model", b"x"))
    assert_same_bits(arrays.load_numpy(path), params)
    found = bundles.read_model_json(path)["lineage"]
    assert found["method"] == "uniform"
    assert [i["digest"] for i in found["inputs"]] == [files.folder_digest(f) for f in inputs[:2]]
    assert [i["weight"] for i in found["inputs"]] == [0.5, 0.5]
    assert [i["lineage"] for i in found["inputs"]] == [{"seed": "in0"}, {"seed": "in1"}]
    assert_same_bits(soup.average([path, path], [0.5, 0.5]), params)


# refusals


def test_inputs_that_are_alike_are_not_refused(inputs):
    assert soup.differences(inputs) == []


def test_every_difference_is_listed(tmp_path):
    base = write(tmp_path / "base", make_params())
    missing, extra, shape, dtype = (make_params() for _ in range(4))
    del missing["projection_0"]
    extra["encoder"]["bias"] = np.zeros(3, np.float32)
    shape["encoder"]["table"] = np.zeros((41, 8), np.float32)
    dtype["projection_0"]["kernel"] = dtype["projection_0"]["kernel"].astype(ml_dtypes.bfloat16)
    others = {
        "missing": (write(tmp_path / "missing", missing), ["projection_0/kernel is missing"]),
        "extra": (write(tmp_path / "extra", extra), ["encoder/bias is not in the model"]),
        "shape": (write(tmp_path / "shape", shape), ["encoder/table is float32[41, 8], the model has float32[40, 8]"]),
        "dtype": (
            write(tmp_path / "dtype", dtype),
            ["projection_0/kernel is bfloat16[8, 5], the model has float32[8, 5]"],
        ),
        "architecture": (write(tmp_path / "architecture", make_params(), architecture="Other"), ["architecture"]),
        "vocabulary": (write(tmp_path / "vocabulary", make_params(), vocabulary="w"), ["vocabulary"]),
        "both": (
            write(tmp_path / "both", extra, architecture="O", vocabulary="w"),
            ["bias", "architecture", "vocabulary"],
        ),
    }
    folders = [base, *(folder for folder, _ in others.values())]
    with pytest.raises(DataError) as caught:
        soup.average(folders, [1 / len(folders)] * len(folders))
    for folder, lines in others.values():
        own = [part for part in str(caught.value).split("; ") if f"{folder}: " in part]
        assert len(own) == len(lines), (folder, own)
        for line in lines:
            assert any(line in part for part in own), (line, own)


OTHER_TEXTS = {
    "prompts": ({"prompts": {"query": "q: {content}"}}, "other prompts than"),
    "text normalisation": ({"text_normalization": "none"}, "normalises texts by 'none'"),
    "default prompt": ({"default_prompt_name": "query"}, "its default prompt is 'query'"),
    "vocabulary": ({"tokenizer": {"kind": "sentencepiece", "digest": "w"}}, "another vocabulary than"),
    "truncation side": (
        {"tokenizer": {"kind": "sentencepiece", "digest": "v", "truncation_side": "left"}},
        "other settings of the tokenizer than",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHER_TEXTS)
def test_models_that_read_a_text_differently_are_not_averaged(inputs, kind):
    changes, message = OTHER_TEXTS[kind]
    description = documents.read_json(inputs[1] / "model.json") | changes
    files.write_json(inputs[1] / "model.json", description)
    with pytest.raises(DataError, match=message):
        soup.average(inputs[:2], [0.5, 0.5])
    is_of_the_text = kind in ("prompts", "text normalisation", "default prompt")
    assert bool(soup.differences(inputs[:2], same_texts=False)) != is_of_the_text


def test_a_tokenizer_file_that_is_no_part_of_the_model_changes_nothing(inputs):
    (inputs[1] / "tokenizer.json").write_text("{}")
    assert soup.differences(inputs[:2]) == []


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_a_random_change_is_refused_wherever_it_stands(tmp_path, seed, position):
    draw = random.Random(seed)
    leaves = trees.flatten(make_params())
    path = draw.choice(sorted(leaves))
    if seed == 0:
        del leaves[path]
    elif seed == 1:
        leaves[path + "_x"] = leaves.pop(path)
    elif seed == 2:
        leaves[path] = leaves[path][..., None]
    else:
        leaves[path] = leaves[path].astype(np.float16)
    folders = [write(tmp_path / f"{i}", make_params(i)) for i in range(2)]
    folders.insert(position, write(tmp_path / "changed", trees.unflatten(leaves)))
    with pytest.raises(DataError, match="cannot be averaged") as caught:
        soup.average(folders, [1 / 3] * 3)
    assert path in str(caught.value)


def test_a_damaged_input_is_refused(inputs):
    path = next((inputs[1] / "params").rglob("d/*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="damaged"):
        soup.average(inputs[:3], [1 / 3] * 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("weights", [[0.5, 0.5], [1.0, 0.0]])
def test_values_that_are_not_finite_are_refused(tmp_path, monkeypatch, value, weights):
    bad = make_params()
    bad["encoder"]["table"][7, 3] = value
    monkeypatch.setattr(checkpoints, "check_finite", lambda tree, what: None)
    folders = [write(tmp_path / "good", make_params()), write(tmp_path / "bad", bad)]
    with pytest.raises(NumericError, match="encoder/table") as caught:
        soup.average(folders, weights)
    assert str(folders[1]) in str(caught.value) and caught.value.exit_code == 70


# weights


@pytest.mark.parametrize(
    "method, count, weights, alpha, words",
    [
        ("best", 2, None, None, "known: uniform, weighted, greedy, learned, interpolate"),
        ("interpolate", 3, None, 0.5, "3 were given"),
        ("interpolate", 1, None, None, "1 were given"),
        ("weighted", 3, None, None, "3 values"),
        ("weighted", 3, [0.5, 0.5], None, "3 values"),
        ("weighted", 2, [0.5, 0.6], None, "sum to 1.1"),
        ("weighted", 2, [0.5, 0.49999], None, "sum to"),
        ("weighted", 2, [float("nan"), 1.0], None, "finite"),
        ("weighted", 2, [float("inf"), float("-inf")], None, "finite"),
        ("weighted", 0, [], None, "sum to"),
    ],
)
def test_wrong_weights_are_usage_errors(method, count, weights, alpha, words):
    with pytest.raises(UsageError) as caught:
        soup.weights_for(method, count, weights, alpha)
    assert words in str(caught.value) and caught.value.exit_code == 64


def test_an_alpha_that_is_not_a_number_is_refused():
    with pytest.raises(UsageError, match="alpha"):
        soup.weights_for("interpolate", 2, None, float("nan"))


def test_weights_within_rounding_of_one_pass():
    assert soup.weights_for("weighted", 3, [1 / 3, 1 / 3, 0.3333333], None) == [1 / 3, 1 / 3, 0.3333333]


# --last


@pytest.fixture
def run_dir(tmp_path):
    for step in (8, 9, 10, 11):
        write(tmp_path / "run" / "checkpoints" / str(step), {"x": np.full(3, step, np.float32)})
    (tmp_path / "run" / "checkpoints" / "12").mkdir()
    return tmp_path / "run"


def test_last_takes_the_newest_checkpoints_of_a_run(run_dir, inputs):
    steps = run_dir / "checkpoints"
    assert soup.expand([str(run_dir)], 3) == [steps / "9", steps / "10", steps / "11"]
    assert soup.expand([str(run_dir)], 1) == [steps / "11"]
    assert soup.expand([str(inputs[0]), str(run_dir)], 2) == [inputs[0], steps / "10", steps / "11"]
    assert soup.expand([str(run_dir), str(steps / "8")], None) == [steps / "11", steps / "8"]
    folders = soup.expand([str(run_dir)], 4)
    assert soup.average(folders, [0.25] * 4)["x"].tolist() == [9.5] * 3


def test_more_checkpoints_than_there_are_is_a_usage_error(run_dir):
    with pytest.raises(UsageError, match="keeps 4 checkpoints") as caught:
        soup.expand([str(run_dir)], 5)
    assert "--last=5" in str(caught.value)


@pytest.mark.parametrize("last", [0, -1])
def test_last_must_be_positive(run_dir, last):
    with pytest.raises(UsageError, match="--last"):
        soup.expand([str(run_dir)], last)


def test_an_input_that_is_no_model_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="not a run folder"):
        soup.expand([str(tmp_path)], None)


# memory


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Eight bundles of one leaf of 20 MB."""
    folder = tmp_path_factory.mktemp("large")
    x = np.random.default_rng(0).standard_normal((1250, 4000)).astype(np.float32)
    return [write(folder / f"{i}", {"x": jnp.asarray(x + i)}) for i in range(8)]


def peak_of_average(folders) -> int:
    tracemalloc.start()
    try:
        soup.average(folders, [1 / len(folders)] * len(folders))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_inputs(large):
    soup.average(large[:2], [0.5, 0.5])
    two, eight = peak_of_average(large[:2]), peak_of_average(large)
    assert two > 20e6  # the result itself is seen
    assert eight < two + 4e6
    assert eight < 8 * 20e6 / 2


def test_how_a_model_is_run_may_differ(tmp_path):
    encoders = ({"attention": "splash", "remat": "full"}, {"attention": "auto"}, {})  # the last as older versions wrote
    folders = []
    for i, encoder in enumerate(encoders):
        folders.append(write(tmp_path / f"m{i}", make_params(i)))
        described = documents.read_json(folders[-1] / "model.json")
        described["architecture"] = {"type": "Embedder", "encoder": {"type": "Gemma", **encoder}}
        files.write_json(folders[-1] / "model.json", described)
    assert soup.differences(folders) == []


def test_an_average_by_blocks_is_the_average(inputs, tmp_path):
    soup.write(tmp_path / "out", soup.Average(inputs[:3], [0.5, 0.25, 0.25]), {}, lambda share: None)
    assert_same_bits(arrays.load_numpy(tmp_path / "out"), soup.average(inputs[:3], [0.5, 0.25, 0.25]))


def test_an_average_that_overflows_is_refused(tmp_path):
    folder = write(tmp_path / "m", {"x": np.full((4,), 3e38, np.float32)})
    other = write(tmp_path / "n", {"x": np.full((4,), -3e38, np.float32)})
    with pytest.raises(NumericError, match="x: the average is too large for float32"):
        soup.average([folder, other], [2.0, -1.0])


PEAK = """
import resource, subprocess, sys
code = subprocess.call([sys.executable, "-m", "embed", "average", *sys.argv[1:]], stdout=subprocess.DEVNULL)
print(1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@pytest.mark.long
@pytest.mark.slow
def test_the_command_holds_some_blocks_whatever_the_size_of_the_model(tmp_path):
    """Neither a whole array nor JAX: the whole process stays below 0.2 GB."""
    random = np.random.default_rng(0)
    inputs = []
    for i in range(3):
        x = random.standard_normal((65_536, 1024), np.float32)  # 268 MB
        inputs.append(str(write(tmp_path / f"m{i}", {"x": x})))
    command = [sys.executable, "-c", PEAK, *inputs, "--unrelated", f"--output={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200e6


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["a bit", "half", "gone"])
def test_what_was_averaged_from_a_damaged_file_is_not_kept(inputs, tmp_path, damage):
    """The inputs are verified while they are averaged; whatever damage does to the averaging, it is named."""
    victim = max((inputs[1] / "params").rglob("d/*"), key=lambda p: p.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 4
    if damage == "gone":
        victim.unlink()
    else:
        victim.write_bytes(bytes(content[: len(content) // 2] if damage == "half" else content))
    with pytest.raises(DataError, match=victim.name):
        mixed = soup.Average(inputs[:3], [0.5, 0.25, 0.25])
        soup.write(tmp_path / "out", mixed, {}, lambda share: None)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_values_that_damage_made_infinite_are_blamed_on_the_damage(tmp_path):
    folders = [write(tmp_path / f"{i}", {"x": np.ones((64, 64), np.float32)}) for i in range(2)]
    victim = next(p for p in (folders[1] / "params").rglob("d/*") if np.float32(1).tobytes() * 9 in p.read_bytes())
    content = victim.read_bytes()
    at = content.index(np.float32(1).tobytes() * 9)
    victim.write_bytes(content[:at] + np.float32(np.inf).tobytes() + content[at + 4 :])
    with pytest.raises(DataError, match="damaged"):
        soup.average(folders, [0.5, 0.5])


def test_progress_is_told_to_the_end(inputs, tmp_path):
    told = []
    soup.write(tmp_path / "out", soup.Average(inputs[:2], [0.5, 0.5]), {}, told.append)
    assert told == sorted(told) and told[-1] == 1


def test_of_a_checkpoint_only_the_trees_that_are_averaged_are_verified(tmp_path):
    """An optimiser state is two thirds of a checkpoint, and no part of a soup."""
    saver = checkpoints.Saver(tmp_path / "run")
    model = write(tmp_path / "m", make_params())
    contents = {n: (model / n).read_bytes() for n in ("model.json", "tokenizer.model")}
    saver.save(1, {"params": make_params(), "opt_state": {"m": np.ones(1000, np.float32)}}, contents)
    saver.close()
    step = tmp_path / "run" / "1"
    for path in (step / "opt_state").rglob("d/*"):
        path.write_bytes(b"")
    assert_same_bits(soup.average([step], [1.0]), make_params())
    with pytest.raises(DataError, match="opt_state"):
        files.verify_manifest(step)


def test_an_input_that_is_removed_meanwhile_is_missed(inputs, tmp_path):
    """A run removes old checkpoints while it goes on; what is read of one that is gone are zeros."""
    mixed = soup.Average(inputs[:2], [0.5, 0.5])
    mixed.check()
    inputs[0].rename(tmp_path / ".deleting-1")
    with pytest.raises(DataError, match="in0: was removed or changed"):
        soup.write(tmp_path / "out", mixed, {}, lambda share: None)
    assert not (tmp_path / "out").exists()


def test_an_input_that_becomes_another_meanwhile_is_missed(inputs, tmp_path):
    mixed = soup.Average(inputs[:2], [0.5, 0.5])
    mixed.check()
    inputs[0].rename(tmp_path / "aside")
    inputs[2].rename(inputs[0])
    with pytest.raises(DataError, match="in0: was removed or changed"):
        mixed.check()


def test_an_input_that_cannot_be_read_is_named(inputs, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files, "sha256_file", refuse)
    with pytest.raises(DataError, match="in[01]/.*cannot be read .Permission denied"):
        soup.write(tmp_path / "out", soup.Average(inputs[:2], [0.5, 0.5]), {}, lambda share: None)


def test_a_failing_read_is_no_failing_write(inputs, tmp_path, monkeypatch):
    def fail(path, block):
        raise ValueError("NOT_FOUND: too many open files\nmore")

    mixed = soup.Average(inputs[:2], [0.5, 0.5])
    monkeypatch.setattr(mixed, "_mean", fail)
    with pytest.raises(DataError, match="the inputs could not be read: NOT_FOUND: too many open files$"):
        soup.write(tmp_path / "out", mixed, {}, lambda share: None)


@pytest.mark.slow
def test_stored_crumbs_are_averaged_in_larger_blocks(tmp_path):
    x = np.arange(4000.0, dtype=np.float32).reshape(1000, 4)
    crumbs = write(tmp_path / "m", {"x": x})
    contents = {n: (crumbs / n).read_bytes() for n in ("model.json", "tokenizer.model")}
    blocks = {"x": arrays.blocks((1000, 4), (3, 4))}
    folder = arrays.write_bundle_by_blocks(
        tmp_path / "n", {"x": (x.shape, x.dtype)}, blocks, lambda path, block: x[block], contents
    )
    mixed = soup.Average([folder], [1.0])
    assert len(mixed.blocks["x"]) == 1
    np.testing.assert_array_equal(soup.average([folder], [1.0])["x"], x)
