"""The vocabulary of the project: what a batch holds, what a model returns, and the contracts between the rooms.

Dimension letters, used in einsums, annotations and docstrings everywhere:
B global batch, N negatives per query, L tokens, P patches, D width, E embedding, H heads, K head size, V vocabulary.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

Params = Any  # nested dict of arrays; the paths are the checkpoint format
Batch = Mapping[str, Any]  # name -> array; the names are listed in embed.data.loader
Metrics = dict[str, Any]  # name -> scalar array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
    """Embeddings of one batch, unit vectors in float32.

    `negatives` are each query's own hard negatives, in the order of the data; `negatives_mask` is False where a query has
    fewer than N of them. `query_id`, `target_id` and `negatives_id` are 64-bit content hashes as two uint32, equal exactly
    when the texts are; the loss masks false negatives by them.
    """

    query: Float[Array, "B E"]
    target: Float[Array, "B E"]
    negatives: Float[Array, "B N E"] | None = None
    negatives_mask: Bool[Array, "B N"] | None = None
    query_id: Any | None = None  # uint32 [B, 2]
    target_id: Any | None = None  # uint32 [B, 2]
    negatives_id: Any | None = None  # uint32 [B, N, 2]

    @property
    def towers(self) -> dict[str, Any]:
        """The embeddings, by the name of their side: what a loss is differentiated by."""
        named = {"query": self.query, "target": self.target, "negatives": self.negatives}
        return {name: x for name, x in named.items() if x is not None}

    def with_towers(self, towers: Mapping[str, Any]) -> "Outputs":
        """Returns these outputs with other embeddings of the same items."""
        return dataclasses.replace(self, **towers)

    def prefix(self, transform: Callable[[Any], Any]) -> "Outputs":
        """Returns these outputs with `transform` applied to every tower's embeddings."""
        return self.with_towers({name: transform(x) for name, x in self.towers.items()})


@runtime_checkable
class Loss(Protocol):
    """A frozen dataclass: pure function of embeddings. Gives the scalar to minimise and what to report."""

    def __call__(self, outputs: Outputs) -> tuple[Float[Array, ""], Metrics]: ...


@dataclasses.dataclass(frozen=True)
class Model:
    """A model as the rest of the project sees it: three functions and a description. Made by `embed.models.api.build`."""

    init: Callable[[Any], Params]  # rng -> params
    # (params, tokens [B L], mask [B L], rng=None) -> float32 [B E]; with numbers of texts instead of the mask and
    # max_segments=S, rows hold up to S texts each: -> float32 [B S E]
    apply: Callable[..., Any]
    axes: Params  # same tree as params; leaves are tuples of logical axis names
    description: dict[str, Any]  # JSON; `embed.models.api.from_description` builds the same model again
    embedding_dim: int
    matryoshka_dims: tuple[int, ...]  # largest first; the first is embedding_dim
    forward_flops: Callable[[int], float]  # tokens in a text -> multiply-add FLOPs of one forward pass of it
    packs: bool = False  # whether rows may hold several texts
    frozen: str | None = None  # the part of params that never learns: read from where a run starts, not saved with it
    serving: Callable[[Params], Params] = lambda params: params  # training params -> those of the described model
    # params -> the same, each layer's apart, which `apply` takes as well and a CPU runs faster; None where there is no such
    apart: Callable[[Params], Params] | None = None


class EncodeFn(Protocol):
    """Texts in, float32 unit vectors [n, E] out, in order. How evaluation and curation see a model.

    `prompt` names one of the model's prompts ("query", "document", "code retrieval", ...); titles go with documents. An empty
    text is an error unless `allow_empty`: then it is embedded as its prompt alone.
    """

    def __call__(
        self, texts: Sequence[str], *, prompt: str, titles: Sequence[str] | None = None, allow_empty: bool = False
    ) -> np.ndarray: ...


class SearchFn(Protocol):
    """Exact nearest neighbours: (queries [Q, E], corpus [n, E], k) -> (scores [Q, k], indices [Q, k]), best first."""

    def __call__(self, queries: np.ndarray, corpus: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]: ...
