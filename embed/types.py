"""The vocabulary of the project: what a batch holds, what a model returns, and the contracts between the rooms.

Dimension letters, used in einsums, annotations and docstrings everywhere:
B global batch, N negatives per query, L tokens, P patches, D width, E embedding, H heads, K head size, V vocabulary,
C prototypes or classes. R rows of packed texts, S texts in a row. A small b is a part of the batch.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

Params = Any  # nested dict of arrays; the paths are the checkpoint format
Metrics = dict[str, Any]  # name -> scalar array
EMBEDDINGS = "embeddings"  # the method of a model that gives the intermediate embedding beside the final one
INTERMEDIATE = "_intermediate"  # behind the name of a text feature: the intermediate embeddings of those texts


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch(Mapping[str, Any]):
    """The named arrays of a batch; the names are those of the features (`data.features`).

    Outside a training step every array leads with [shards of the mesh, micro-batches]. An objective sees one dimension in their
    place. `max_segments` is the number of texts that a packed row has room for; None where every row holds one text.
    """

    arrays: dict[str, Any]
    max_segments: int | None = dataclasses.field(default=None, metadata={"static": True})

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Variables:
    """Everything that an objective computes with, beside the batch.

    `params` are learned by gradient: models, projection heads, temperatures. `moving` is updated by a rule after each step, and
    saved and restored: moving averages, centres. `frozen` is read when a run starts and never saved: the model below low-rank
    adapters, a live teacher. Its digest is part of the run's identity.
    """

    params: Params
    moving: dict[str, Any]
    frozen: dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a forward pass returns, in arrays of floats.

    `rows` [b, ...] belong to the examples of one micro-batch; those of all micro-batches are joined to [B, ...] before the
    loss, which compares them. `sums` are added over micro-batches before the loss.
    """

    rows: Any
    sums: Any


class Objective(Protocol):
    """What a run learns. A frozen dataclass with a field `model`, which the trainer sets to the described model.

    One that trains the model's decoder has the attribute `trains_decoder` = True; for others a start's decoder is left out.

    One whose `frozen` comes from files has `read_frozen(target)`, which returns it laid out as `target`, a tree of
    ShapeDtypeStruct, and `identity()`, what of it must be the same when a run is resumed; `init` gives zeros in its place.

    An objective knows nothing of micro-batches, meshes and hosts: `training.step` calls `forward` for each micro-batch, and
    `loss` once for the whole batch.
    """

    def init(self, key, start: Params | None = None) -> Variables:
        """Returns the first variables. `start` are parameters as `export` returns them; without it they are drawn from `key`."""
        ...

    def axes(self) -> Variables:
        """Returns the logical axis names of every array: the tree of `init` with tuples of names as leaves."""
        ...

    def forward(self, variables: Variables, batch: Batch, key, step) -> Outputs:
        """Returns the outputs of one micro-batch. Randomness comes from `key` alone; None draws none, as in validation."""
        ...

    def loss(self, params: Params, outputs: Outputs, batch: Batch, step) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss of the whole batch and what to report. It is differentiated by `params` and by `outputs`."""
        ...

    def update(self, variables: Variables, outputs: Outputs, step) -> dict[str, Any]:
        """Returns the next `moving`. `variables` hold the parameters after the optimiser's step, and `moving` from before it."""
        ...

    def export(self, variables: Variables) -> Params:
        """Returns the parameters of the described model: what is saved as `params`, evaluated and averaged."""
        ...

    def served(self, variables: Variables) -> Variables:
        """Returns the variables of which `export` takes the model: those whose loss on held-out examples is reported."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PairEmbeddings:
    """Embeddings of a batch of pairs, unit vectors in float32: what a loss compares. A loss may cut them into chunks.

    `negatives` are each query's own hard negatives, in the order of the data; `negatives_mask` is False where a query has
    fewer than N of them. `query_id`, `target_id` and `negatives_id` are 64-bit content hashes as two uint32, equal exactly
    when the texts are; the loss masks false negatives by them. `score` is how near a pair is to be, and `scores` are a teacher's of
    the target and of each negative. `teacher_query`, `teacher_target` and `teacher_negatives` are a teacher's vectors of the items,
    and `query_intermediate`, `target_intermediate` and `negatives_intermediate` the model's intermediate embeddings.
    """

    query: Float[Array, "*chunks B E"]
    target: Float[Array, "*chunks B E"]
    negatives: Float[Array, "*chunks B N E"] | None = None
    negatives_mask: Bool[Array, "*chunks B N"] | None = None
    query_id: Any | None = None  # uint32 [B, 2]
    target_id: Any | None = None  # uint32 [B, 2]
    negatives_id: Any | None = None  # uint32 [B, N, 2]
    score: Float[Array, "*chunks B"] | None = None
    scores: Float[Array, "*chunks B _"] | None = None
    teacher_query: Float[Array, "*chunks B T"] | None = None
    teacher_target: Float[Array, "*chunks B T"] | None = None
    teacher_negatives: Float[Array, "*chunks B N T"] | None = None
    query_intermediate: Float[Array, "*chunks B U"] | None = None
    target_intermediate: Float[Array, "*chunks B U"] | None = None
    negatives_intermediate: Float[Array, "*chunks B N U"] | None = None

    def map(self, function: Callable[[Any], Any]) -> "PairEmbeddings":
        """Returns the same pairs with `function` applied to the embeddings of every side."""
        sides = {"query": self.query, "target": self.target, "negatives": self.negatives}
        return dataclasses.replace(self, **{side: function(x) for side, x in sides.items() if x is not None})


@runtime_checkable
class Loss(Protocol):
    """A frozen dataclass: a pure function of embeddings that knows no model.

    A loss of more than embeddings says so in `needs`: names of further fields of `PairEmbeddings`, which the batch then has,
    or, where they end in `_intermediate`, the model gives.
    """

    def init(self) -> Params:
        """Returns the loss's own learned parameters, such as a temperature; {} when it has none."""
        ...

    def __call__(
        self, pairs: PairEmbeddings, params: Params | None = None, step: Any = 0
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the scalar to minimise and what to report.

        `params` are those of `init`, or what training made of them; None where the loss has none. `step` counts from 0, for
        weights that follow a schedule.
        """
        ...


def children_of(value: Any) -> Iterator[Any]:
    """Yields the dataclasses that are fields of a dataclass, such as an objective or a loss, or values of a field."""
    for field in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
        inner = getattr(value, field.name)
        yield from filter(dataclasses.is_dataclass, inner.values() if isinstance(inner, Mapping) else [inner])


def parts_of(value: Any) -> Iterator[Any]:
    """Yields a dataclass, such as an objective or a loss, and all that it is made of."""
    yield value
    for child in children_of(value):
        yield from parts_of(child)


def needs_of(value: Any) -> list[str]:
    """Returns what an objective or a loss, and the losses that it is made of, need beside embeddings, each name once."""
    return list(dict.fromkeys(name for part in parts_of(value) for name in getattr(part, "needs", ())))


@dataclasses.dataclass(frozen=True)
class Method:
    """One way of calling a model. `inputs` names the arrays it takes; `packs` says whether a row may hold several items."""

    inputs: tuple[str, ...]
    # the tokens of each of an item's sequences, or the height and width of an image -> multiply-add FLOPs of one forward pass
    flops: Callable[..., float]
    packs: bool = False


@dataclasses.dataclass(frozen=True)
class Model:
    """A model as the rest of the project sees it: functions and a description. Made by `embed.models.api.build`.

    `apply(params, inputs, *, method="text", key=None, max_segments=None)` returns float32 unit vectors [b, E]. `inputs` maps
    the names of `methods[method].inputs` to arrays. For "text" these are `tokens` int32 [b, L] and `segment_ids`, the mask of
    the real tokens, bool [b, L]. With `max_segments` = S rows hold up to S texts, `segment_ids` int32 [R, L] numbers each
    token's text from 1 (0 is padding), and the result is [R, S, E]. In training there is a `key`, from which dropout is drawn;
    without one nothing is drawn. The method "embeddings", which models of several linear maps have, returns (final,
    intermediate), both unit vectors; the intermediate one has U values.
    """

    init: Callable[[Any], Params]  # key -> params
    apply: Callable[..., Any]
    axes: Params  # same tree as params; leaves are tuples of logical axis names
    description: dict[str, Any]  # JSON; `embed.models.api.from_description` builds the same model again
    embedding_dim: int
    matryoshka_dims: tuple[int, ...]  # largest first; the first is embedding_dim
    methods: Mapping[str, Method]
    # params -> the same, each layer's apart, which `apply` takes as well and a CPU runs faster; None where there is no such
    apart: Callable[[Params], Params] | None = None


@dataclasses.dataclass(frozen=True)
class Item:
    """What is embedded: a text and its title, images, or both. `images` are paths, URLs, PIL images or arrays [h, w, 3]."""

    text: str | None = None
    title: str | None = None
    images: tuple[Any, ...] = ()


class EncodeFn(Protocol):
    """Items in, float32 unit vectors [n, E] out, in order. How evaluation and curation see a model.

    `prompt` names one of the model's prompts ("query", "document", "code retrieval", ...). An empty text is an error unless
    `allow_empty`: then it is embedded as its prompt and title alone.
    """

    def __call__(self, items: Sequence[str | Item], *, prompt: str, allow_empty: bool = False) -> np.ndarray: ...


class PatchFn(Protocol):
    """Images in, (float32 vectors of their patches [n, P, D], rows, columns) out. How evaluation sees an image tower.

    With `values` the tokens of the last block attend to themselves alone, which brings patches near to texts.
    """

    def __call__(self, items: Sequence[Item], *, values: bool = False) -> tuple[np.ndarray, int, int]: ...


class SearchFn(Protocol):
    """Exact nearest neighbours: (queries [Q, E], corpus [n, E], k) -> (scores [Q, k], indices [Q, k]), best first."""

    def __call__(self, queries: np.ndarray, corpus: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]: ...
