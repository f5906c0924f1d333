"""Where a recipe starts from: the model, tokenizer and prompts of `init_from`, a bundle or a foreign folder."""

import dataclasses
from typing import Any

from embed import bundles, console, text
from embed.data import tokenizers
from embed.errors import ConfigError, did_you_mean
from embed.models import api
from embed.workflows import foreign
from embed.workflows.recipe import Recipe


def complete(recipe: Recipe) -> Recipe:
    """Returns the recipe with what it leaves to `init_from` filled in, and the prompts of its tasks as templates.

    A foreign folder is converted once, into the recipe's `cache_dir`.
    """
    given = {**text.PROMPTS, **(recipe.prompts or {})}
    if recipe.init_from is not None:
        folder = foreign.bundle_of(recipe.init_from, recipe.cache_dir, "start")
        description = bundles.read_model_json(folder)
        given = {**description.get("prompts", text.PROMPTS), **(recipe.prompts or {})}
        recipe = dataclasses.replace(
            recipe,
            init_from=str(folder),
            model=recipe.model or _model(_without_decoder(description, recipe, folder), recipe.model_changes),
            model_changes={},
            tokenizer=recipe.tokenizer or _tokenizer(folder, description),
            max_length=recipe.max_length or max(description.get("lengths", {"": recipe.longest_text}).values()),
            text_normalization=recipe.text_normalization or description.get("text_normalization"),
        )
    mixture = dataclasses.replace(recipe.mixture, tasks=[_with_prompts(t, given) for t in recipe.mixture.tasks])
    return dataclasses.replace(
        recipe,
        mixture=mixture,
        tokenizer=recipe.tokenizer or tokenizers.NoTexts(),
        prompts=given,
        max_length=recipe.max_length or recipe.longest_text,
        text_normalization=recipe.text_normalization or text.DEFAULT_NORMALIZATION,
    )


def _tokenizer(folder, description: dict[str, Any]) -> tokenizers.Tokenizer:
    """Returns the tokenizer of a model; of a model of images alone the one that stands for none."""
    given = description.get("tokenizer")
    return tokenizers.NoTexts() if given is None else tokenizers.from_folder(folder, given)


def _without_decoder(description: dict[str, Any], recipe: Recipe, folder) -> dict[str, Any]:
    """Returns the description without a decoder that the objective does not train; says where there is one."""
    architecture = description["architecture"]
    if architecture.get("decoder") is None or getattr(recipe.objective, "trains_decoder", False):
        return description
    console.say(f"start      the decoder of {folder} is left out: the objective does not train it")
    return {**description, "architecture": {**architecture, "decoder": None}}


def _with_prompts(task, prompts):
    sides = {f: text.template(getattr(task, f), prompts) for f in ("query_prompt", "target_prompt")}
    return dataclasses.replace(task, **sides)


def _model(description: dict[str, Any], changes) -> Any:
    """Returns the described model with dotted fields replaced."""
    architecture = description["architecture"]
    for name, value in changes.items():
        node, (*parents, last) = architecture, name.split(".")
        for part in parents:
            if not isinstance(node.get(part), dict):
                parts = [k for k, v in node.items() if isinstance(v, dict)]
                raise ConfigError(f"Recipe.model_changes: {name!r}: no part {part!r}{did_you_mean(part, parts)}")
            node = node[part]
        if last not in node or last == "type":
            fields = [k for k in node if k != "type"]
            raise ConfigError(f"Recipe.model_changes: {name!r}: no field {last!r}{did_you_mean(last, fields)}")
        node[last] = value
    return api.from_description(architecture)
