"""A teacher's vectors of all texts that a recipe trains on, found again by their content ids."""

import pathlib
import shutil

import numpy as np

from embed import console, files, hosts
from embed.data import record_texts, vector_store
from embed.errors import DataError
from embed.inference import bulk
from embed.sources.input_texts import Text
from embed.workflows import init_from
from embed.workflows.encode import Opened
from embed.workflows.recipe import Recipe

_WORK = ".work"


def run(
    model,
    recipe: Recipe,
    output,
    *,
    query_prompt: str = "query",
    target_prompt: str = "document",
    dims: int | None = None,
    dtype: str | None = None,
    max_length: int | None = None,
    shard_size: int = 8192,
) -> None:
    """Encodes the different texts of the recipe's records into the folder `output`, which `Recipe.teacher_vectors` names.

    `query/` holds the vectors of the queries and `target/` those of the targets and hard negatives, each under the content ids of
    its texts (`data.vector_store`). The prompts are those of `model`, by name, or templates. A text that stands in many records
    is encoded once. The records are read whole before anything is encoded. A job that was stopped goes on, and one that
    was finished writes nothing.
    """
    output, recipe = pathlib.Path(output), init_from.complete(recipe)
    _check_output(output)
    opened = Opened(model, dtype, max_length)
    prompts = {"query": query_prompt, "target": target_prompt}
    for prompt in prompts.values():
        opened.check(prompt, dims)
    console.say(f"reading the records of the mixture {recipe.mixture.name!r}")
    texts = record_texts.read(recipe.mixture, recipe.tokenizer, recipe.record_features)
    for side, items in texts.items():
        console.say(f"{side:<6}  {len(items):,} different texts, prompt {opened.template(prompts[side])!r}")
    if hosts.is_main():
        output.mkdir(parents=True, exist_ok=True)
    for side, items in texts.items():
        _encode_side(opened, side, items, output, prompts[side], dims, shard_size)
    if hosts.is_main():
        shutil.rmtree(output / _WORK, ignore_errors=True)


def _check_output(output: pathlib.Path) -> None:
    """Raises DataError for a folder that holds anything but vectors of an earlier run of this job."""
    ours = {"query", "target", _WORK, console.LOG}
    for path in sorted(output.iterdir()) if output.is_dir() else ():
        is_whole = path.name not in ("query", "target") or (path / files.MANIFEST).is_file()
        if not (path.name.startswith((".", console.LOG)) or (path.name in ours and is_whole)):
            raise DataError(f"{path}: is no folder of a teacher's vectors; give another --output, or remove it")


def _encode_side(
    opened, side: str, items: list[Text], output: pathlib.Path, prompt: str, dims, shard_size: int
) -> None:
    scanned = bulk.scan(lambda: items, shard_size)
    identity = opened.identity(prompt, dims) | {"texts": scanned.digest}
    if (output / side / files.MANIFEST).is_file():
        if vector_store.read(output / side).identity != identity:
            raise DataError(
                f"{output / side}: holds vectors of another model, prompt or length, or of other texts; give another --output"
            )
        console.say(f"{output / side}: was finished before, and every file in it is whole; nothing was written")
        return
    work = output / _WORK / side
    opened.encode(lambda: items, scanned, work, prompt, "npy", "float32", dims, shard_size, {})
    if hosts.is_main():
        ids, vectors = bulk.read(work)
        vector_store.write(output / side, np.array(ids, np.int64), vectors, identity=identity)
    hosts.sync(f"the vectors of {side} were written")
