"""Whether a teacher's vectors and scores are of use to a run, before it begins: their sizes, sides, prompts and whose they are."""

from collections.abc import Iterator, Sequence
from typing import Any

from embed import bundles
from embed.data.cache import Cache
from embed.data.features import Vectors
from embed.data.image_features import Image
from embed.data.text_features import text_features
from embed.errors import ConfigError, DataError, did_you_mean
from embed.losses.distillation import EmbeddingDistillation
from embed.losses.matryoshka import Matryoshka
from embed.types import Model, children_of, parts_of
from embed.workflows import foreign
from embed.workflows.recipe import Recipe


def check(recipe: Recipe, model: Model) -> list[str]:
    """Returns what a person should know of the teacher's vectors that a recipe, which is complete, learns from.

    Vectors of a size that a loss cannot use, those of queries in the place of targets', and a run that learns nothing but what it
    starts from, are errors.
    """
    vectors = [feature for feature in recipe.record_features if isinstance(feature, Vectors)]
    for feature in vectors:
        _check_side(recipe, feature)
    _check_sizes(recipe, model, vectors)
    return [*_notes_of_prompts(recipe, vectors), *_notes_of_itself(recipe, model, vectors)]


def notes_of_tasks(recipe: Recipe, caches: Sequence[Cache]) -> list[str]:
    """Returns which tasks a loss of candidates learns nothing from, as they have no hard negatives."""
    names = [type(part).__name__ for part in parts_of(recipe.objective) if "scores" in getattr(part, "needs", ())]
    lists = [feature.name for feature in text_features(recipe.record_features) if feature.each not in ((), (0,))]
    bare = [cache.name for cache in caches if not any(cache.columns[name] for name in lists)]
    if not names or not bare:
        return []
    losses = " and ".join(dict.fromkeys(names))
    return [f"{losses}: nothing is learned from batches of tasks without hard negatives, which are {', '.join(bare)}"]


def _side_of(recipe: Recipe, feature: Vectors) -> str:
    sides = {text.name: text.side for text in text_features(recipe.record_features)}
    sides |= {f.name: "image" for f in recipe.record_features if isinstance(f, Image)}
    if feature.of not in sides:
        raise ConfigError(
            f"Vectors.of = {feature.of!r}: no feature of texts or images has this name{did_you_mean(feature.of, sides)}"
        )
    return sides[feature.of]


def _check_side(recipe: Recipe, feature: Vectors) -> None:
    side = _side_of(recipe, feature)
    stored = next((x for x in (i.get("side") for i in feature.store.identities) if x not in (None, side)), None)
    if stored is not None:
        raise DataError(
            f"{feature.path}: holds the vectors of the {stored} side, and {feature.of!r} is on the {side} side; give the folder "
            f"{side!r} beside it"
        )


def _distillations(part: Any, sizes: tuple[int, ...]) -> Iterator[tuple[EmbeddingDistillation, tuple[int, ...]]]:
    """Yields the distillation losses of an objective, with the sizes of the final embeddings that each is given."""
    if isinstance(part, EmbeddingDistillation):
        yield part, sizes
    for child in children_of(part):
        yield from _distillations(child, tuple(part.dims) if isinstance(part, Matryoshka) else sizes)


def _check_sizes(recipe: Recipe, model: Model, vectors: Sequence[Vectors]) -> None:
    by_name = {feature.name: feature for feature in vectors}
    for loss, final in _distillations(recipe.objective, (model.embedding_dim,)):
        sizes = final if loss.student == "final" else tuple(model.description["projection"][-2:-1])
        for size in sizes:
            for tower in loss.towers:
                if f"teacher_{tower}" in by_name:
                    loss.check_sizes(size, by_name[f"teacher_{tower}"].store.dim)


def _notes_of_prompts(recipe: Recipe, vectors: Sequence[Vectors]) -> list[str]:
    notes = []
    for feature in vectors:
        side, before = _side_of(recipe, feature), {}
        if side == "image":
            continue
        for identity in feature.store.identities:
            before |= identity.get("tasks", {})
        for task in recipe.mixture.tasks:
            now = getattr(task, f"{side}_prompt")
            if before.get(task.name, now) != now:
                notes.append(
                    f"{feature.path}: was encoded when the {side} prompt of task {task.name!r} was {before[task.name]!r}, and it "
                    f"is {now!r} now; the teacher's vectors stay those of the former prompt"
                )
    return list(dict.fromkeys(notes))


def _notes_of_itself(recipe: Recipe, model: Model, vectors: Sequence[Vectors]) -> list[str]:
    """Returns a note where the teacher is the model that the run starts from; ConfigError where nothing else is learned.

    With the same head and prompts the distance is 0 at the start and has no gradient there. Beside another loss it holds the model
    near its start, which is of use; alone it teaches nothing.
    """
    if recipe.init_from is None:
        return []
    folder = bundles.resolve(recipe.init_from)
    head = lambda description: {name: description.get(name) for name in ("pooling", "projection")}  # noqa: E731
    architecture = bundles.read_model_json(folder)["architecture"]
    same = {f.name for f in vectors if _is_of(f, recipe, foreign.digest_of(folder))}
    idle = [
        loss
        for loss, _ in _distillations(recipe.objective, ())
        if loss.projection is None and loss.student == "final" and same >= {f"teacher_{tower}" for tower in loss.towers}
    ]
    if not idle or _as_lists(head(architecture)) != _as_lists(head(model.description)):
        return []
    learning = [
        part for part in parts_of(recipe.objective) if part is not recipe.objective and not any(children_of(part))
    ]
    if all(part in idle for part in learning):
        raise ConfigError(
            f"the teacher of {vectors[0].path} is {recipe.init_from}, which the run starts from, and no other loss is learned, so "
            "that there is nothing to learn; give another teacher, or a loss beside EmbeddingDistillation"
        )
    return ["the teacher is the model that the run starts from: EmbeddingDistillation holds it near its start, no more"]


def _is_of(feature: Vectors, recipe: Recipe, digest: str) -> bool:
    """Returns whether vectors are those of the model with this digest, in the prompts of the recipe's tasks."""
    side = _side_of(recipe, feature)
    is_of_it = all(identity.get("source") == digest for identity in feature.store.identities)
    if side == "image":
        return is_of_it
    prompts = {getattr(task, f"{side}_prompt") for task in recipe.mixture.tasks}
    return is_of_it and all(set(identity.get("prompts", ())) == prompts for identity in feature.store.identities)


def _as_lists(value: Any) -> Any:
    """Returns a description as JSON has it."""
    if isinstance(value, dict):
        return {name: _as_lists(x) for name, x in value.items()}
    return list(value) if isinstance(value, tuple) else value
