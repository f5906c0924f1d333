"""Averages of checkpoints, block by block: memory does not grow with the number of inputs.

Sums are kept in float64 and rounded once, so that the average of a model with itself is that model to the bit.
Source: arXiv:2203.05482 (soups), arXiv:2109.01903 (interpolation with a base), arXiv:2503.07891 s3.3.
"""

import pathlib
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from embed import bundles, checkpoints, files
from embed.errors import DataError, NumericError, UsageError

METHODS = ("uniform", "weighted", "greedy", "learned", "interpolate")
SEARCHED = ("greedy", "learned")  # by scores of a suite


def expand(inputs: Sequence[str], last: int | None) -> list[pathlib.Path]:
    """Returns the step folders and bundles that the inputs name; with `last`, a run gives its newest `last` checkpoints."""
    if last is not None and last < 1:
        raise UsageError(f"--last={last}: at least 1")
    folders = []
    for name in inputs:
        steps = pathlib.Path(name) / "checkpoints"
        if last is not None and steps.is_dir():
            committed = checkpoints.committed_steps(steps)
            if len(committed) < last:
                raise UsageError(
                    f"{name}: --last={last}, but the run keeps {len(committed)} checkpoints; lower it or raise keep_last"
                )
            folders += [steps / str(step) for step in committed[-last:]]
        else:
            folders.append(bundles.resolve(name))
    return folders


def weights_for(method: str, count: int, weights: Sequence[float] | None, alpha: float | None) -> list[float]:
    """Returns one weight per input, summing to 1. `interpolate` takes (base, other) as (1 - alpha, alpha)."""
    if method not in METHODS:
        raise UsageError(f"--method={method}; known: {', '.join(METHODS)}")
    if alpha is not None and not np.isfinite(alpha):
        raise UsageError(f"--alpha={alpha}: must be a finite number")
    if method == "interpolate":
        if count != 2:
            raise UsageError(f"--method=interpolate takes a base and one other model, {count} were given")
        alpha = 0.5 if alpha is None else alpha
        return [1 - alpha, alpha]
    if method == "weighted":
        if weights is None or len(weights) != count:
            raise UsageError(f"--method=weighted needs --weights with {count} values, one per input")
        if not np.all(np.isfinite(weights)) or abs(sum(weights) - 1) > 1e-6:
            raise UsageError(f"--weights sum to {sum(weights):.6g}; they must be finite and sum to 1")
        return list(weights)
    return [1 / count] * count


# Fields that change neither the parameters nor what they mean.
_HOW_IT_RUNS = ("dropout", "remat", "unroll", "dtype", "branch_gain")


def _meaning(architecture: dict) -> dict:
    """Returns the parts of an architecture that must be the same in an average."""
    encoder = {k: v for k, v in architecture.get("encoder", {}).items() if k not in _HOW_IT_RUNS}
    return {**{k: v for k, v in architecture.items() if k != "matryoshka_dims"}, "encoder": encoder}


def differences(folders: Sequence[pathlib.Path], item: str = "params") -> list[str]:
    """Returns every way in which the inputs differ in what an average needs to be the same: trees, shapes, dtypes,
    architecture, vocabulary."""
    trees = [files.read_manifest(folder).get("trees", {}).get(item) for folder in folders]
    found = [f"{folder}: has no {item!r}" for folder, tree in zip(folders, trees) if tree is None]
    if found:
        return found
    first_tree, first = trees[0], bundles.read_model_json(folders[0])
    for folder, tree in zip(folders[1:], trees[1:]):
        description = bundles.read_model_json(folder)
        found += [f"{folder}: {line}" for line in checkpoints.spec_differences(tree, first_tree)]
        if _meaning(description["architecture"]) != _meaning(first["architecture"]):
            found.append(f"{folder}: another architecture than {folders[0]}")
        if description["tokenizer"]["digest"] != first["tokenizer"]["digest"]:
            found.append(f"{folder}: another vocabulary than {folders[0]}")
    return found


def average(
    folders: Sequence[pathlib.Path],
    weights: Sequence[float],
    item: str = "params",
    progress: Callable[[float], None] = lambda share: None,
) -> dict:
    """Returns the weighted average of `item` as a nested dict of numpy arrays.

    Refuses inputs that differ (DataError, every difference listed) or hold values that are not finite (NumericError).
    """
    for folder in folders:
        files.verify_manifest(folder)
    found = differences(folders, item)
    if found:
        raise DataError(f"the inputs cannot be averaged: {'; '.join(found)}")
    # Summed in the order of the digests, so that the order on the command line changes no bit.
    by_digest = sorted(zip(folders, weights), key=lambda pair: (files.folder_digest(pair[0]), pair[1]))
    folders, weights = [f for f, _ in by_digest], [w for _, w in by_digest]
    opened = [checkpoints.open_arrays(folder, item) for folder in folders]
    leaves = {}
    for number, path in enumerate(sorted(opened[0])):
        leaves[path] = _average_leaf(path, [arrays[path] for arrays in opened], weights, folders)
        progress((number + 1) / len(opened[0]))
    return checkpoints.unflatten({path: leaves[path] for path in opened[0]})


def _average_leaf(path: str, arrays, weights, folders) -> np.ndarray:
    dtype = arrays[0].dtype.numpy_dtype
    out = np.empty(arrays[0].shape, dtype)
    for block in checkpoints.blocks(arrays[0].shape, 8):
        total = 0.0
        for array, weight, folder in zip(arrays, weights, folders):
            values = np.asarray(array[block].read().result())
            if not np.all(np.isfinite(values.astype(np.float64))):
                raise NumericError(f"{folder}: {path} holds values that are not finite; leave this input out")
            total = total + weight * values.astype(np.float64)
        out[block] = (total if jnp.issubdtype(dtype, jnp.inexact) else np.rint(total)).astype(dtype)
    return out


def lineage(folders: Sequence[pathlib.Path], weights: Sequence[float], method: str) -> dict:
    """Returns where the average comes from: each input's digest, weight and own lineage."""
    return {
        "method": method,
        "inputs": [
            {"digest": files.folder_digest(f), "weight": w, "lineage": bundles.read_model_json(f)["lineage"]}
            for f, w in zip(folders, weights)
        ],
    }
