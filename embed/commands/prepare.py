"""`embed prepare`: the vocabulary and the token caches of a recipe."""

from embed import environment
from embed.commands import options

SUMMARY = "Train the vocabulary (when it is missing) and write the token caches of a recipe's mixture, through its seqio tasks."


def add_arguments(parser) -> None:
    options.add_gin_arguments(parser)


def run(arguments) -> None:
    environment.start()
    from embed import config
    from embed.data import loader, prepare
    from embed.files import FolderLock
    from embed.workflows import init_from
    from embed.workflows.recipe import Recipe

    recipe, _, _ = config.build(Recipe, arguments.gin_file, arguments.gin_bindings)
    recipe = init_from.complete(recipe)
    with FolderLock(recipe.cache_dir):
        caches = prepare.ensure_caches(recipe.mixture, recipe.tokenizer, recipe.lengths, recipe.cache_dir)
    loader.check_negatives(recipe.mixture, caches, recipe.num_negatives)
