"""Packed arrays of a bundle: read as a whole and in blocks, and refused where they are not what the manifest says."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed import arrays, checkpoints, documents, files, packed_arrays
from embed.errors import DataError
from embed.quantized_arrays import Scheme, pack, rounded

SCHEMES = {"up/kernel": Scheme(4, 32, (1,)), "table": Scheme(8, 32, (1,)), "out/kernel": Scheme(4, None, (0, 1))}


def params() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"up/kernel": (5, 64, 6), "table": (40, 32), "out/kernel": (3, 4, 7), "norm/scale": (64,)}
    return {path: random.standard_normal(shape).astype(np.float32) for path, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path):
    """A bundle with three packed arrays and one that is not."""
    stored, tree = {}, {}
    for path, x in params().items():
        parts = pack(x, SCHEMES[path], path) if path in SCHEMES else {"": x}
        stored |= {f"{path}/{name}".rstrip("/"): part for name, part in parts.items()}
        tree[path] = {"shape": list(x.shape), "dtype": "float32"}
    return arrays.write_bundle_by_blocks(
        tmp_path / "bundle",
        {p: (x.shape, x.dtype) for p, x in stored.items()},
        {p: arrays.blocks(x.shape, x.shape) for p, x in stored.items()},
        lambda p, block: stored[p][block],
        {},
        tree=tree,
        packed={"params": {p: packed_arrays.describe(scheme) for p, scheme in SCHEMES.items()}},
    )


def expected(path: str) -> np.ndarray:
    x = params()[path]
    return rounded(x, SCHEMES[path]) if path in SCHEMES else x


def test_they_read_as_float32(folder):
    opened = arrays.open_arrays(folder)
    assert list(opened) == list(params())
    for path, x in opened.items():
        assert tuple(x.shape) == params()[path].shape
        np.testing.assert_array_equal(x.read().result(), expected(path))
    assert arrays.specs_of(opened) == {path: (x.shape, np.dtype(np.float32)) for path, x in params().items()}


def test_any_block_is_that_part_of_the_array(folder):
    opened, random = arrays.open_arrays(folder), np.random.default_rng(1)
    for path, x in opened.items():
        for _ in range(20):
            ends = [sorted(random.integers(0, size + 1, 2)) for size in x.shape]
            block = tuple(slice(int(a), int(b)) for a, b in ends)
            np.testing.assert_array_equal(x[block].read().result(), expected(path)[block])


def test_pieces_are_whole_along_the_inputs(folder, monkeypatch):
    monkeypatch.setattr("embed.quantized_arrays._PIECE", 800)
    pieces = {path: arrays.stored_piece(x) for path, x in arrays.open_arrays(folder).items()}
    assert pieces == {"up/kernel": (2, 64, 6), "table": (25, 32), "out/kernel": (3, 4, 7), "norm/scale": (64,)}


def test_they_are_restored_and_loaded_as_what_they_stand_for(folder):
    target = {
        "up": {"kernel": jnp.zeros((5, 64, 6))},
        "table": jnp.zeros((40, 32)),
        "out": {"kernel": jnp.zeros((3, 4, 7))},
        "norm": {"scale": jnp.zeros(64)},
    }
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), target)
    for tree in (checkpoints.restore(folder, "params", shapes), arrays.load_numpy(folder)):
        np.testing.assert_array_equal(tree["up"]["kernel"], expected("up/kernel"))
        np.testing.assert_array_equal(tree["norm"]["scale"], expected("norm/scale"))
    shapes["table"] = jax.ShapeDtypeStruct((41, 32), jnp.float32)
    with pytest.raises(DataError, match=r"table is float32\[40, 32\], the model has float32\[41, 32\]"):
        checkpoints.restore(folder, "params", shapes)


def edited(folder, change) -> None:
    """Changes the manifest, with a digest that fits."""
    manifest = json.loads((folder / files.MANIFEST).read_text())
    del manifest["digest"]
    change(manifest)
    (folder / files.MANIFEST).write_text(json.dumps({**manifest, "digest": documents.digest_json(manifest)}))


@pytest.mark.parametrize(
    "change",
    [
        {"bits": 3},
        {"bits": "4"},
        {"block_size": 0},
        {"block_size": 48},
        {"inputs": []},
        {"inputs": [2, 1]},
        {"inputs": [0, 2]},
        {"inputs": [3]},
        {"inputs": [-1]},
        {"inputs": [0, 1, 2]},
    ],
    ids=str,
)
def test_a_scheme_that_does_not_fit_is_refused(folder, change):
    edited(folder, lambda manifest: manifest["packed"]["params"]["up/kernel"].update(change))
    with pytest.raises(DataError, match="MANIFEST.json: packed.*; restore it from its source"):
        arrays.open_arrays(folder)


@pytest.mark.parametrize("change", [{"bits": 8}, {"block_size": 64}, {"inputs": [2]}], ids=str)
def test_stored_arrays_of_another_shape_or_type_are_refused(folder, change):
    def apply(manifest):
        scheme = {**manifest["packed"]["params"]["up/kernel"], **change}
        manifest["packed"]["params"]["up/kernel"] = scheme | ({"block_size": None} if change == {"inputs": [2]} else {})

    edited(folder, apply)
    with pytest.raises(DataError, match="bundle: the (codes|scales) of up/kernel are .*; restore the folder from its"):
        arrays.open_arrays(folder)
