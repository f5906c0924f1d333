"""The vocabulary and the token caches of a recipe, before a run needs them."""

from embed.data import prepare as data
from embed.data.cache import Cache
from embed.data.text_features import check_lists
from embed.files import FolderLock
from embed.workflows import init_from
from embed.workflows.recipe import Recipe


def run(recipe: Recipe) -> list[Cache]:
    """Returns the verified token caches of the recipe's tasks, after fetching files and preparing the caches that are missing."""
    recipe = init_from.complete(recipe)
    with FolderLock(recipe.cache_dir):
        arguments = (recipe.mixture, recipe.tokenizer, recipe.record_features, recipe.cache_dir)
        caches = data.ensure_caches(*arguments, fetches=True)
    if not recipe.mixture.only:  # a mixture narrowed to some tasks keeps the settings of all
        check_lists(recipe.record_features, [cache.columns for cache in caches], recipe.mixture.name)
    return caches
