"""What a training run is going to do, measured on its data, for a person to read before it does."""

import math

import jax
from jax.sharding import Mesh

from embed import architectures, trees
from embed.data.examples import Examples
from embed.data.features import Feature, Unit
from embed.data.image_features import Image
from embed.data.interleaved import Interleaved
from embed.data.text_features import TextFeature
from embed.text import PROMPTS
from embed.types import Model
from embed.workflows.recipe import Recipe

TASKS_SHOWN = 20
_PLAIN = PROMPTS["none"]


def lines(recipe: Recipe, model: Model, examples: Examples, mesh: Mesh) -> list[str]:
    """Returns what the run is going to do, for a person to read before it does."""
    shapes = trees.flatten(jax.eval_shape(model.init, jax.random.key(0)))
    count = sum(math.prod(s.shape) for s in shapes.values())
    table = sum(math.prod(s.shape) for p, s in shapes.items() if p.endswith("embedding/table"))
    pairs, steps = recipe.batch_size, recipe.schedule.steps
    records = sum(len(c) for c in examples.caches)
    kinds = " and ".join(tower["encoder"]["type"] for tower in architectures.towers(model.description).values())
    summary = [
        f"model      {kinds}: {count:,} parameters, {table:,} of them in the token table",
        f"           embedding {model.embedding_dim}, Matryoshka sizes {', '.join(map(str, model.matryoshka_dims))}",
        f"mesh       {' x '.join(f'{name} {size}' for name, size in mesh.shape.items())} on {jax.device_count()} "
        f"{jax.devices()[0].platform} device(s), {jax.process_count()} process(es)",
        f"batch      {pairs} examples, {'each batch from one task' if recipe.mixture.one_task_per_batch else 'tasks mixed'}",
        f"example    {'; '.join(filter(None, (_described(feature, examples) for feature in examples.features)))}",
        f"length     {steps} steps, {steps * pairs / records:.2f} epochs of {records:,} examples",
    ]
    if recipe.lora is not None:
        factors = trees.flatten(jax.eval_shape(recipe.built_objective(model).init, jax.random.key(0)).params["model"])
        learning = sum(math.prod(s.shape) for s in factors.values())
        summary.append(
            f"adapters   rank {recipe.lora.rank} on {len(factors) // 2} kernels: {learning:,} parameters learn "
            f"({learning / count:.1%}); checkpoints hold the merged model"
        )
    if recipe.quantization is not None:
        sizes = {path: s.shape for path, s in shapes.items()}
        first, *more = recipe.quantization.plan(trees.unflatten(shapes), model.axes).lines(sizes)
        summary.append(f"quantised  as {recipe.quantization.name}: {first}; what learns stays float32")
        summary += [f"note       {line}" for line in more]
    summary += _task_lines(examples, steps)
    return summary + _prompt_notes(recipe) + _image_notes(recipe, model) + _first_texts(recipe, examples)


def _prompt_notes(recipe: Recipe) -> list[str]:
    """Returns a note if no task trains the prompt 'query', the default of searches and most suites."""
    asks = any(isinstance(feature, TextFeature) and feature.side == "query" for feature in recipe.record_features)
    trained = {getattr(task, "query_prompt", None) for task in recipe.mixture.tasks}
    template = (recipe.prompts or {}).get("query")
    if not asks or template is None or not trained.isdisjoint({template, "query", None}):
        return []
    return [
        f"note       no task trains the prompt 'query', {_one_line(template)!r}, the default of searches and most suites; set a "
        "task's query_prompt to it, or set Recipe.prompts['query'] to a prompt that is trained, such as '{content}'"
    ]


def _image_notes(recipe: Recipe, model: Model) -> list[str]:
    """Returns notes of images that the finished model will embed in another size or prompt than this run trains."""
    served = (architectures.image_tower(model.description) or {}).get("image_size")
    notes = []
    for feature in recipe.record_features:
        size = getattr(feature, "size", None) if isinstance(feature, Image | Interleaved) else None
        if size not in (None, served):
            notes.append(
                f"note       {feature.name!r} has images of {size} pixels, and the finished model resizes images to {served}; "
                "image_size of the model sets that"
            )
        if not isinstance(feature, Interleaved) or "image" in model.methods:
            continue
        for task in recipe.mixture.tasks:
            prompt = getattr(task, f"{feature.side}_prompt", _PLAIN)
            if prompt != _PLAIN:
                notes.append(
                    f"note       task {task.name!r}: {feature.name!r} is trained in the prompt {prompt!r}, and the finished model "
                    "adds no prompt to images without a text; where the texts are '[MASK_0]' alone, set the prompt to 'none'"
                )
    return notes


def _described(feature: Feature, examples: Examples) -> str:
    """Returns what an example has of a feature, and how many texts its data have beside those."""
    if not isinstance(feature, TextFeature):
        return feature.title
    max_texts = max(cache.columns[feature.name] for cache in examples.caches)
    if feature.each == ():
        return feature.name + (f", 1 of up to {max_texts} in turn" if max_texts > 1 else "")
    count = sum(feature.each)
    unused = f" (up to {max_texts} in the data are not used)" if max_texts and not count else ""
    drawn = (
        f" ({'the first' if feature.draw == 'first' else 'drawn'} of up to {max_texts})"
        if max_texts > count > 0
        else ""
    )
    return f"{count} {feature.name}{drawn}{unused}" if max_texts or count else ""


def _first_texts(recipe: Recipe, examples: Examples) -> list[str]:
    """Returns the first examples of the run, as the model reads their texts."""
    draws = examples.drawn(0, 0, min(3, examples.batch_size))
    one_text = [c for c in examples.choose(draws, examples.features) if c.feature.each == ()]
    lines = []
    for i, example in enumerate(examples.read(draws)):
        texts = [
            c.feature.readable(recipe.tokenizer, x) for c in one_text for x in c.feature.texts(example, c.columns[i])
        ]
        lines.append("first      " + "  ->  ".join(map(_one_line, texts)))
    if one_text:
        return lines
    unit = Unit(examples.read(draws), draws, {}, {}, recipe.tokenizer)
    return [f"first      {_one_line(text)}" for feature in examples.features for text in feature.preview(unit)]


def _task_lines(examples, steps: int) -> list[str]:
    """Returns how often each task will be drawn in the whole run, counted; of many tasks the largest, and the rest together."""
    drawn = sorted(zip(examples.draws(steps), examples.caches), key=lambda pair: -pair[0])
    total = steps * examples.batch_size
    lines = [
        f"task       {cache.name}: {count:,} of {total:,} examples ({count / total:.1%}), {count / len(cache):.2f} epochs"
        for count, cache in drawn[:TASKS_SHOWN]
    ]
    rest = drawn[TASKS_SHOWN:]
    if rest:
        count = sum(count for count, _ in rest)
        lines.append(f"           {len(rest):,} smaller tasks: {count:,} examples ({count / total:.1%}) together")
    never = [cache.name for count, cache in drawn if not count]
    if never:
        lines.append(
            f"note       {len(never):,} tasks are never drawn in this run, such as {never[0]}; raise their rates"
        )
    return lines


def _one_line(text: str, width: int = 90) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 3] + "..."
