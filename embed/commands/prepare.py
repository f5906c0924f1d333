"""`embed prepare`: the vocabulary and the token caches of a recipe."""

from embed import environment
from embed.commands import options

SUMMARY = "Train the vocabulary (when it is missing) and write the token caches of a recipe's mixture, through its seqio tasks."


def add_arguments(parser) -> None:
    options.add_gin_arguments(parser)


def run(arguments) -> None:
    environment.start()
    from embed import config
    from embed.workflows import prepare
    from embed.workflows.recipe import Recipe

    prepare.run(config.build(Recipe, arguments.gin_file, arguments.gin_bindings)[0])
