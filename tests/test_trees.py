"""Trees by the paths of their leaves: there and back, specs, and what differs between two of them."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed import trees


def random_tree(draw: random.Random, depth: int = 0):
    keys = draw.sample(["a", "b", "kernel", "layers", "scale", "x_1", "Ä"], draw.randint(1, 4))
    return {
        k: np.float32(draw.random()) if depth == 3 or draw.random() < 0.4 else random_tree(draw, depth + 1)
        for k in keys
    }


@pytest.mark.parametrize("seed", range(10))
def test_unflatten_inverts_flatten(seed):
    tree = random_tree(random.Random(seed))
    flat = trees.flatten(tree)
    assert trees.unflatten(flat) == tree
    assert trees.flatten(trees.unflatten(flat)) == flat
    assert list(flat.values()) == jax.tree.leaves(tree)


def test_paths_are_names_joined_by_slashes():
    leaves = {"encoder": {"mlp": {"kernel": 1, "bias": 2}, "embedding": {"table": 3}}, "scale": 4}
    assert trees.flatten(leaves) == {
        "encoder/embedding/table": 3,
        "encoder/mlp/bias": 2,
        "encoder/mlp/kernel": 1,
        "scale": 4,
    }
    assert trees.flatten({"a": [5, (6, None)]}) == {"a/0": 5, "a/1/0": 6}
    assert trees.flatten({}) == {} == trees.unflatten({})


def test_leaves_below_a_path_are_named_from_there():
    leaves = {"model/a/b": 1, "model/c": 2, "models/a": 3, "model": 4, "x/model/a": 5}
    assert trees.below(leaves, "model") == {"a/b": 1, "c": 2}
    assert trees.below(leaves, "model/a") == {"b": 1}
    assert trees.below(leaves, "mod") == {}


def test_axes_are_leaves_whatever_their_number():
    axes = {"a": {"kernel": ("width", None), "bias": ("mlp",)}, "scale": ()}
    assert trees.flatten_axes(axes) == {"a/bias": ("mlp",), "a/kernel": ("width", None), "scale": ()}


def test_tree_spec_is_shape_and_dtype():
    tree = {"a": jnp.zeros((2, 3), jnp.bfloat16), "b": np.zeros((), np.int32)}
    assert trees.spec(tree) == {
        "a": {"shape": [2, 3], "dtype": "bfloat16"},
        "b": {"shape": [], "dtype": "int32"},
    }


def test_every_difference_of_two_specs_is_one_phrase():
    spec = lambda dtype, *shape: {"shape": list(shape), "dtype": dtype}  # noqa: E731
    stored = {"a": spec("float32", 2), "b": spec("float32", 3), "c": spec("float32", 4), "left": spec("int32")}
    expected = {"b": spec("bfloat16", 3), "new": spec("int32"), "a": spec("float32", 2), "c": spec("float32", 4, 1)}
    assert trees.spec_differences(stored, expected) == [
        "new is missing",
        "left is not in the model",
        "b is float32[3], the model has bfloat16[3]",
        "c is float32[4], the model has float32[4, 1]",
    ]
    assert trees.spec_differences(stored, dict(reversed(stored.items()))) == []
