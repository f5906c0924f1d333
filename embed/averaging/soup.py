"""Averages of checkpoints, block by block: memory grows neither with the number of inputs nor with their size.

Sums are kept in float64 and rounded once, so that the average of a model with itself is that model to the bit.
Source: arXiv:2203.05482 (soups), arXiv:2109.01903 (interpolation with a base), arXiv:2503.07891 s3.3.
"""

import contextlib
import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures

import ml_dtypes
import numpy as np

from embed import architectures, arrays, bundles, documents, files, trees
from embed.errors import DataError, EmbedError, NumericError, UsageError

_RUN = 1 << 17  # values that are added at once: more would leave the processor's cache
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
            committed = files.committed_steps(steps)
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
_HOW_IT_RUNS = ("dropout", "stochastic_depth", "remat", "unroll", "dtype", "attention", "branch_gain")


def _meaning(architecture: dict) -> dict:
    """Returns the parts of an architecture that must be the same in an average."""
    meaning = architectures.map_towers(architecture, _meaning_of_tower)
    return {name: value for name, value in meaning.items() if name != "matryoshka_dims"}


def _meaning_of_tower(tower: dict) -> dict:
    encoder = {k: v for k, v in tower.get("encoder", {}).items() if k not in _HOW_IT_RUNS}
    return {**{k: v for k, v in tower.items() if k != "matryoshka_dims"}, "encoder": encoder}


def differences(folders: Sequence[pathlib.Path], same_texts: bool = True) -> list[str]:
    """Returns every way in which the inputs differ in what an average needs to be the same: trees, shapes, dtypes,
    architecture, vocabulary and, with `same_texts`, prompts and text normalisation."""
    specs = [files.read_manifest(folder).get("trees", {}).get("params") for folder in folders]
    lines = [f"{folder}: has no 'params'" for folder, tree in zip(folders, specs) if tree is None]
    if lines:
        return lines
    first_tree, first = specs[0], bundles.read_model_json(folders[0])
    for folder, tree in zip(folders[1:], specs[1:]):
        description = bundles.read_model_json(folder)
        lines += [f"{folder}: {line}" for line in trees.spec_differences(tree, first_tree)]
        if _meaning(description["architecture"]) != _meaning(first["architecture"]):
            lines.append(f"{folder}: another architecture than {folders[0]}")
        tokenizer, other = description.get("tokenizer", {}), first.get("tokenizer", {})
        if tokenizer.get("digest") != other.get("digest"):
            lines.append(f"{folder}: another vocabulary than {folders[0]}")
        elif tokenizer != other:
            lines.append(f"{folder}: other settings of the tokenizer than {folders[0]}")
        if same_texts and tokenizer and other:
            lines += [f"{folder}: {line}" for line in _text_differences(description, first, folders[0])]
    return lines


def _text_differences(description: dict, first: dict, folder: pathlib.Path) -> list[str]:
    """Returns how two models read the same text differently."""
    lines = []
    if description["text_normalization"] != first["text_normalization"]:
        names = description["text_normalization"], first["text_normalization"]
        lines.append(f"normalises texts by {names[0]!r}, {folder} by {names[1]!r}")
    names = description.get("default_prompt_name"), first.get("default_prompt_name")
    if names[0] != names[1]:
        lines.append(f"its default prompt is {names[0]!r}, that of {folder} {names[1]!r}")
    prompts, others = description["prompts"], first["prompts"]
    different = [name for name in {**prompts, **others} if prompts.get(name) != others.get(name)]
    if different:
        name = different[0]
        lines.append(
            f"other prompts than {folder}: {name!r} is {prompts.get(name)!r} and {others.get(name)!r}"
            + (f", and {len(different) - 1} more" if len(different) > 1 else "")
        )
    return lines


class Average:
    """The weighted average of the parameters of checkpoints, made when it is asked for, while the inputs' files are verified.

    Inputs that differ are a DataError that lists every difference; values that are not finite a NumericError when they are
    met. Nothing made is to be kept before `check` has returned.
    """

    def __init__(self, folders: Sequence[pathlib.Path], weights: Sequence[float], same_texts: bool = True):
        problems = differences(folders, same_texts)
        if problems:
            raise DataError(f"the inputs cannot be averaged: {'; '.join(problems)}")
        # Beside the averaging, which would wait for it as long again where there are cores enough.
        pool = futures.ThreadPoolExecutor(2)
        self._verified = [pool.submit(files.verify_manifest, folder, "params") for folder in folders]
        pool.shutdown(wait=False)
        # Summed in the order of the digests, so that the order on the command line changes no bit.
        self._digests = {folder: files.folder_digest(folder) for folder in folders}
        by_digest = sorted(zip(folders, weights), key=lambda pair: (self._digests[pair[0]], pair[1]))
        self._folders, self._weights = [f for f, _ in by_digest], [w for _, w in by_digest]
        with self._blamed():
            self._opened = [arrays.open_arrays(folder, "params") for folder in self._folders]

    @functools.cached_property
    def specs(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """The shape and the dtype of every array by its path."""
        return arrays.specs_of(self._opened[0])

    @functools.cached_property
    def blocks(self) -> dict[str, list[arrays.Block]]:
        """The blocks that cover every array: whole pieces that it is stored in, so that each is read once."""
        results = {}
        for path, (shape, dtype) in self.specs.items():
            stored = arrays.stored_piece(self._opened[0][path])
            results[path] = arrays.blocks(shape, arrays.several(stored, shape, dtype))
        return results

    def check(self) -> None:
        """Waits until every file that is read was compared with its digest. DataError names the first that is damaged, and an
        input that is gone: a run removes old checkpoints, and what is read of a folder that is gone are zeros."""
        for verified in self._verified:
            verified.result()
        for folder, digest in self._digests.items():
            if not (folder / files.MANIFEST).is_file() or files.folder_digest(folder) != digest:
                raise DataError(
                    f"{folder}: was removed or changed while it was averaged; average what no run removes, or raise keep_last"
                )

    def values(self, path: str, block: arrays.Block) -> np.ndarray:
        """Returns one block of the average."""
        with self._blamed():
            return self._mean(path, block)

    @contextlib.contextmanager
    def _blamed(self):
        """Blames a damaged file for what came of it, and the inputs for the rest."""
        try:
            yield
        except EmbedError:
            self.check()
            raise
        except Exception as e:  # tensorstore wraps faults of reading in many types
            self.check()
            raise DataError(f"the inputs could not be read: {documents.first_line(e)}") from e

    def _mean(self, path: str, block: arrays.Block) -> np.ndarray:
        dtype = self.specs[path][1]
        shape = tuple(s.stop - s.start for s in block)
        total = np.zeros(math.prod(shape), np.float64)
        ahead = self._opened[0][path][block].read()
        for number, (weight, folder) in enumerate(zip(self._weights, self._folders)):
            values = np.asarray(ahead.result()).reshape(-1)
            if number + 1 < len(self._opened):
                ahead = self._opened[number + 1][path][block].read()
            for i in range(0, len(total), _RUN):
                run = values[i : i + _RUN].astype(np.float64)
                if not np.all(np.isfinite(run)):
                    raise NumericError(f"{folder}: {path} holds values that are not finite; leave this input out")
                total[i : i + _RUN] += weight * run
        real = dtype.kind not in "iu"
        largest = float((ml_dtypes.finfo if real else ml_dtypes.iinfo)(dtype).max)
        if not max(-total.min(initial=0), total.max(initial=0)) <= largest:
            raise NumericError(f"{path}: the average is too large for {dtype}; look at the weights {self._weights}")
        return (total if real else np.rint(total)).astype(dtype).reshape(shape)


def average(folders: Sequence[pathlib.Path], weights: Sequence[float]) -> dict:
    """Returns the weighted average of the parameters as a nested dict of numpy arrays."""
    result = Average(folders, weights)
    leaves = {}
    for path, (shape, dtype) in result.specs.items():
        leaves[path] = np.empty(shape, dtype)
        for block in result.blocks[path]:
            leaves[path][block] = result.values(path, block)
    result.check()
    return trees.unflatten(leaves)


def write(path, mixed: Average, contents: Mapping[str, bytes], progress: Callable[[float], None]) -> None:
    """Writes an average and the small files `contents` as the bundle `path`, if its inputs turn out to be whole."""
    arrays.write_bundle_by_blocks(
        path, mixed.specs, mixed.blocks, mixed.values, contents, check=mixed.check, progress=progress
    )


def lineage(folders: Sequence[pathlib.Path], weights: Sequence[float], method: str) -> dict:
    """Returns where the average comes from: each input's digest, weight and own lineage."""
    return {
        "method": method,
        "inputs": [
            {"digest": files.folder_digest(f), "weight": w, "lineage": bundles.read_model_json(f)["lineage"]}
            for f, w in zip(folders, weights)
        ],
    }
