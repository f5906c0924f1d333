"""A teacher's vectors of all texts, or of all images, that a recipe trains on, found again by their content ids."""

import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np

from embed import console, documents, files, hosts
from embed.data import cache, prepare, record_texts, vector_store
from embed.data.features import blocks
from embed.data.image_features import Image
from embed.data.interleaved import Interleaved
from embed.data.text_features import text_features
from embed.errors import DataError, UsageError
from embed.inference import bulk
from embed.sources.input_texts import Text
from embed.workflows import foreign, init_from
from embed.workflows.encode import Encoding, open_model
from embed.workflows.recipe import Recipe
from embed.workflows.teacher_prompts import TeacherPrompts

_WORK, PLAIN = ".work", "{content}"


def run(
    model,
    recipe: Recipe,
    output,
    *,
    query_prompt: str | None = None,
    target_prompt: str | None = None,
    dims: int | None = None,
    dtype: str | None = None,
    max_length: int | None = None,
    shard_size: int = 8192,
) -> None:
    """Encodes the different texts of the recipe's records into the folder `output`, which `Recipe.teacher_vectors` names.

    Where the features read images and no texts, the images are encoded into `output`/image, which `features.Vectors.path` names.

    `model` is a MODEL, a foreign one that is converted into the recipe's `cache_dir`, or an `encode_endpoint.Served` one. `query/`
    holds the vectors of the queries and `target/` those of the targets and hard negatives, each under the content ids of its texts
    (`data.vector_store`). A text is encoded in the prompt of its task as `model` has it (`teacher_prompts`), or all of a side in
    the given prompt, a name of `model` or a template. A text that stands in many records is encoded once. The records are read
    whole before anything is encoded. A job that was stopped goes on, and one that was finished writes nothing.
    """
    output, declared, recipe = pathlib.Path(output), recipe.mixture, init_from.complete(recipe)
    _check_output(output)
    source = {}
    if not isinstance(model, Encoding):
        model = foreign.bundle_of(str(model), recipe.cache_dir, "teacher")
        source = {"source": foreign.digest_of(model)}
    opened = open_model(model, dtype, max_length)
    mixed = [feature.name for feature in recipe.record_features if isinstance(feature, Interleaved)]
    if mixed:
        raise UsageError(f"--gin_file: the texts of {mixed[0]!r} have images in them, which are not encoded here yet")
    images = [feature for feature in recipe.record_features if isinstance(feature, Image)]
    if images and not text_features(recipe.record_features):
        _encode_images(opened, recipe, images[0], output, (query_prompt, target_prompt), dims, shard_size, source)
        return
    prompts = TeacherPrompts(opened, declared, recipe.prompts, {"query": query_prompt, "target": target_prompt})
    prompts.check(dims)
    console.say(f"reading the records of the mixture {recipe.mixture.name!r}")
    texts = record_texts.read(recipe.mixture, recipe.tokenizer, recipe.record_features, prompts.of)
    for note in prompts.notes:
        console.say(f"note       {note}")
    for side, groups in texts.items():
        for prompt_template, items in groups.items():
            console.say(f"{side:<6}  {len(items):,} different texts, prompt {prompt_template!r}")
            opened.announce(len(items), prompt_template, shard_size)
    if hosts.is_main():
        output.mkdir(parents=True, exist_ok=True)
    with opened.working_in(output / _WORK):
        for side, groups in texts.items():
            beside = {"side": side, "tasks": prompts.tasks(side), **source}
            _encode_side(opened, groups, output / side, output / _WORK / side, dims, shard_size, beside)
    if hosts.is_main():
        shutil.rmtree(output / _WORK, ignore_errors=True)


def _encode_images(
    opened: Encoding, recipe: Recipe, feature: Image, output: pathlib.Path, prompts, dims, shard_size: int, source
) -> None:
    """Encodes the different images of the recipe's records, from its caches, which are prepared where they are missing."""
    if any(prompt is not None for prompt in prompts):
        raise UsageError("--query_prompt and --target_prompt have no effect on images; leave them out")
    opened.check_images(None)
    opened.check(PLAIN, dims)
    arguments = (recipe.mixture, recipe.tokenizer, recipe.record_features, recipe.cache_dir)
    if hosts.is_main():
        prepare.ensure_caches(*arguments, say=lambda line: console.say(f"data       {line}"))
    hosts.share(recipe.cache_dir, "caches prepared")
    caches = [cache.find(task, *arguments[1:]) for task in recipe.mixture.tasks]
    items = _CachedImages(caches, feature.name)
    console.say(f"image      {len(items):,} different images")
    if hosts.is_main():
        output.mkdir(parents=True, exist_ok=True)
    with opened.working_in(output / _WORK):
        beside = {"side": "image", "tasks": {task.name: "" for task in recipe.mixture.tasks}, **source}
        _encode_side(opened, {PLAIN: items}, output / "image", output / _WORK / "image", dims, shard_size, beside)
    if hosts.is_main():
        shutil.rmtree(output / _WORK, ignore_errors=True)


class _CachedImages:
    """The different images of caches in their order, read again each time; those of a shard are held at once."""

    def __init__(self, caches, name: str):
        self._caches, self._name = caches, name
        self._chosen: list[tuple[int, int]] = []
        seen: set[int] = set()
        for number, one in enumerate(caches):
            for some in blocks(len(one)):
                for row, example in zip(some, one.read(some)):
                    identity = int(example[f"{name}_id"])
                    if identity not in seen:
                        seen.add(identity)
                        self._chosen.append((number, row))

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[Text]:
        for number, row in self._chosen:
            (example,) = self._caches[number].read([row])
            identity = str(int(example[f"{self._name}_id"]))
            location = f"{self._caches[number].name}, example {row}"
            content = example[f"{self._name}_file"].tobytes()
            yield Text(identity, None, "", location, (content,), (identity,))


def _check_output(output: pathlib.Path) -> None:
    """Raises DataError for a folder that holds anything but vectors of an earlier run of this job."""
    sides = ("query", "target", "image")
    ours = {*sides, _WORK, console.LOG}
    for path in sorted(output.iterdir()) if output.is_dir() else ():
        is_whole = path.name not in sides or (path / files.MANIFEST).is_file()
        if not (path.name.startswith((".", console.LOG)) or (path.name in ours and is_whole)):
            raise DataError(f"{path}: is no folder of a teacher's vectors; give another --output, or remove it")


def _encode_side(
    opened: Encoding,
    groups: dict[str, list[Text]],
    folder: pathlib.Path,
    work: pathlib.Path,
    dims: int | None,
    shard_size: int,
    beside: dict[str, Any],
) -> None:
    """Encodes the texts of a side, those of one template after the other, into one folder of vectors.

    `beside` is written into its identity too, and may be another when the command is run again.
    """
    hosts.refuse_copies(folder, "encoding")
    scanned = {template: bulk.scan(lambda items=items: items, shard_size) for template, items in groups.items()}
    identity = _identity(opened, {template: one.digest for template, one in scanned.items()}, dims)
    if (folder / files.MANIFEST).is_file():
        before = vector_store.read(folder).identity
        if {name: before.get(name) for name in identity} != identity:
            raise DataError(
                f"{folder}: holds vectors of another model, prompt or length, or of other texts; give another --output"
            )
        console.say(f"{folder}: was finished before, and every file in it is whole; nothing was written")
        return
    jobs = [work.with_name(f"{work.name}-{number}") for number in range(len(groups))]
    for job, (template, items) in zip(jobs, groups.items()):
        opened.encode(
            lambda items=items: items, scanned[template], job, template, "npy", "float32", dims, shard_size, {}
        )
    if hosts.is_main():
        encoded = [bulk.read(job) for job in jobs]
        if len({vectors.shape[1] for _, vectors in encoded}) > 1:
            raise DataError(f"{work.parent}: holds vectors of several sizes; remove it and run the command again")
        ids = [int(number) for numbers, _ in encoded for number in numbers]
        vectors = np.concatenate([vectors for _, vectors in encoded])
        vector_store.write(folder, np.array(ids, np.int64), vectors, identity={**identity, **beside})
    hosts.sync(f"the vectors in {folder.name} were written")


def _identity(opened: Encoding, digests: dict[str, str], dims: int | None) -> dict[str, Any]:
    """Returns what decides the vectors of a side: what decides those of a text, its prompts, and a digest of the texts."""
    decides = opened.identity(next(iter(digests)), dims)
    del decides["prompt"]
    return {**decides, "prompts": list(digests), "texts": documents.digest_json(list(digests.items()))}
