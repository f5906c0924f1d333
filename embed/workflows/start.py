"""The parameters that a run starts from: read from `init_from`, with what that does not have drawn or derived."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from embed import bundles, checkpoints, console, files, trees
from embed.data import tokenizers
from embed.errors import ConfigError, DataError
from embed.models.language_model import decoder_start
from embed.types import Model, Params
from embed.workflows.recipe import Recipe


class Start:
    """The start of a recipe with `init_from`, checked when it is made; `read` gives the parameters.

    A projection or pooling that `init_from` does not have starts at random, a decoder as the encoder
    (`language_model.decoder_start`). Tokens that the recipe's tokenizer has more than that of `init_from` start as the mean of
    their pieces. What else a run has learned, such as temperatures and heads, starts anew. The run says all of it.
    """

    def __init__(self, recipe: Recipe, model: Model):
        self._recipe, self._model = recipe, model
        self._folder = bundles.resolve(recipe.init_from)
        self._stored = checkpoints.tree_paths(self._folder, "params")
        self._added = self._added_tokens()
        # Before a large model is drawn at random: a start of another architecture.
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        kept = self._kept(shapes)
        checkpoints.check_fits(self._folder, "params", kept, without=bundles.UNSERVED)
        drawn = self._drawn(trees.flatten(shapes))
        if recipe.lora is not None and drawn:
            raise ConfigError(
                f"{', '.join(drawn)} would start at random and stay so: {self._folder} has none, and Recipe.lora trains adapters "
                "alone; train without Recipe.lora first"
            )

    def read(self, target: Params) -> Params:
        """Returns the parameters, laid out as `target` (a tree of ShapeDtypeStruct with shardings)."""
        expected, restored = (
            trees.flatten(target),
            trees.flatten(checkpoints.restore(self._folder, "params", self._kept(target), without=bundles.UNSERVED)),
        )
        left = self._left()
        if left:
            console.say(
                f"start      of {self._folder} the model is taken; what else its run has learned starts anew: {', '.join(left)}"
            )
        if self._added:
            console.say(
                f"start      {len(self._added):,} tokens that {self._folder} does not know start as the mean of their pieces"
            )
        leaves = {path: self._extended(path, x, expected[path]) for path, x in restored.items()}
        quantization = bundles.read_model_json(self._folder).get("quantization")
        if quantization is not None:
            console.say(
                f"start      {self._folder} is quantised as {quantization['name']}; its values are what learns on"
            )
        copied = decoder_start(expected, self._stored)
        if copied:
            crossed = any("/cross_attention/" in path for path in copied)
            console.say(
                f"start      the decoder starts as the encoder of {self._folder}"
                + (", its cross-attention as self-attention" if crossed else "")
            )
        leaves |= {path: jnp.copy(leaves[source]) for path, source in copied.items()}
        new = self._drawn(expected)
        if new:
            console.say(f"start      {', '.join(new)} start at random: {self._folder} has none")
            drawn = jax.jit(self._model.init, out_shardings=jax.tree.map(lambda x: x.sharding, target))
            leaves |= {p: x for p, x in trees.flatten(drawn(jax.random.key(self._recipe.seed))).items() if p in new}
        return trees.unflatten({path: leaves[path] for path in expected})

    def _left(self) -> list[str]:
        """Returns what a checkpoint holds beside the model, such as temperatures, heads, a teacher and centres."""
        trees_there = files.read_manifest(self._folder).get("trees", {})
        paths = [path for name in ("learned", "moving") for path in trees_there.get(name, {})]
        return list(dict.fromkeys(path.partition("/")[0] for path in paths))

    def _added_tokens(self) -> dict[int, list[int]]:
        """Returns the pieces of the tokens that the recipe's tokenizer has more. Another vocabulary is a DataError."""
        recipe, options = self._recipe, bundles.read_model_json(self._folder).get("tokenizer")
        if options is None:
            return {}
        if options["digest"] == recipe.tokenizer.digest:
            return {}
        added = tokenizers.added_tokens(tokenizers.from_folder(self._folder, options), recipe.tokenizer)
        if added is None:
            raise DataError(
                f"{self._folder}: trained with another vocabulary than {recipe.tokenizer.path}; use "
                f"{bundles.tokenizer_file(self._folder)}, or that with tokens added at its end"
            )
        return added

    @functools.cached_property
    def _tables(self) -> set[str]:
        """The paths of the parameters with a row for each token."""
        axes = trees.flatten_axes(self._model.axes)
        return {path for path, names in axes.items() if names and names[0] == "vocab"}

    def _new(self, expected: Mapping[str, Any]) -> list[str]:
        return [path for path in expected if path not in self._stored and path.partition("/")[0] != "encoder"]

    def _drawn(self, expected: Mapping[str, Any]) -> list[str]:
        """Returns the paths of the parameters that start at random."""
        copied = decoder_start(expected, self._stored)
        return [path for path in self._new(expected) if path not in copied]

    def _kept(self, target: Params) -> Params:
        """Returns what is read of `target`; of a table of tokens the rows that are stored."""
        expected = trees.flatten(target)
        new = self._new(expected)
        return trees.unflatten({path: self._as_stored(path, x) for path, x in expected.items() if path not in new})

    def _as_stored(self, path: str, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        if not self._added or path not in self._tables or path not in self._stored:
            return x
        shape = checkpoints.stored_shape(self._folder, "params", path)
        if shape[1:] != x.shape[1:] or shape[0] > x.shape[0]:
            return x  # the check names the difference
        sharding = getattr(x, "sharding", None)
        whole = None if sharding is None else jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
        return jax.ShapeDtypeStruct(shape, x.dtype, sharding=whole)

    def _extended(self, path: str, x: jax.Array, target: jax.ShapeDtypeStruct) -> jax.Array:
        """Returns a table with the rows of the added tokens; any other parameter as it is."""
        if not self._added or path not in self._tables:
            return x

        def extend(table):
            mean = jnp.mean(table, 0)  # for rows that belong to no token
            rows = jnp.concatenate([table, jnp.broadcast_to(mean, (target.shape[0] - len(table), *table.shape[1:]))])
            means = jnp.stack([jnp.mean(table[jnp.array(pieces)], 0) for pieces in self._added.values()])
            return rows.at[jnp.array(list(self._added))].set(means)

        return jax.jit(extend, out_shardings=target.sharding)(x)
