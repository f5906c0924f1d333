"""`embed prepare`: the vocabulary and the token caches of a recipe."""

from embed.commands import runtime

SUMMARY = "Train the vocabulary (when it is missing) and write the token caches of a recipe's mixture, through its seqio tasks."


def add_arguments(parser) -> None:
    runtime.add_gin_arguments(parser)


def run(arguments) -> None:
    runtime.start()
    from embed import config
    from embed.commands import start
    from embed.commands.recipe import Recipe
    from embed.data import loader, prepare
    from embed.files import FolderLock

    recipe, _, _ = config.build(Recipe, arguments.gin_file, arguments.gin_bindings)
    recipe = start.complete(recipe)
    with FolderLock(recipe.cache_dir):
        caches = prepare.ensure_caches(recipe.mixture, recipe.tokenizer, recipe.lengths, recipe.cache_dir)
    loader.check_negatives(recipe.mixture, caches, recipe.num_negatives)
