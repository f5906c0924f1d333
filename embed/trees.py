"""Nested dicts of arrays by the paths of their leaves, such as 'encoder/layers/mlp/gate/kernel'.

The paths of parameters are the checkpoint format. JAX is imported by the functions that take its trees: `embed average` works
on paths alone and starts without it.
"""

from collections.abc import Callable, Mapping
from typing import Any


def flatten(tree, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """Returns {path: leaf} of any tree that JAX knows, in the tree's order."""
    import jax

    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def unflatten(leaves: Mapping[str, Any]) -> dict:
    """Returns the nested dict of {path: leaf}."""
    tree: dict = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree


def below(leaves: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Returns the leaves whose path begins with `prefix` and a slash, by the rest of their paths."""
    return {path.removeprefix(f"{prefix}/"): leaf for path, leaf in leaves.items() if path.startswith(f"{prefix}/")}


def flatten_axes(axes) -> dict[str, tuple[str | None, ...]]:
    """Returns {path: logical axes} of a tree whose leaves are tuples of axis names."""
    return flatten(axes, is_leaf=lambda x: isinstance(x, tuple))


def spec(tree) -> dict[str, dict]:
    """Returns {path: {"shape", "dtype"}} as JSON values."""
    import jax.numpy as jnp

    return {path: {"shape": list(x.shape), "dtype": str(jnp.dtype(x.dtype))} for path, x in flatten(tree).items()}


def spec_differences(stored: Mapping[str, dict], expected: Mapping[str, dict]) -> list[str]:
    """Returns one phrase for each path that is missing, left over, or of another shape or dtype."""
    differences = [f"{path} is missing" for path in expected if path not in stored]
    differences += [f"{path} is not in the model" for path in stored if path not in expected]
    for path in expected:
        if path in stored and stored[path] != expected[path]:
            actual, expected_spec = (f"{s['dtype']}{s['shape']}" for s in (stored[path], expected[path]))
            differences.append(f"{path} is {actual}, the model has {expected_spec}")
    return differences
