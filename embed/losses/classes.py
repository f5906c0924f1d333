"""Metric learning from classes: images of one class near to each other, those of others far away."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from embed import ranges
from embed.ranges import Count, Positive
from embed.types import Metrics, Params
from embed.vectors import normalize


@dataclasses.dataclass(frozen=True)
class ByClass:
    """`kind` 'proxies' is the cross-entropy of `scale` times the cosines to a learned unit vector of each class (NormFace); 'pairs'
    compares each item with the others of the batch, those of its class against all others, at the temperature 1 / `scale`.

        proxies:  L = mean_i -log softmax_c(scale * x_i . w_c)[class of i]
        pairs:    L = mean_i mean_{p in P(i)} -log  e^{scale x_i.x_p} / sum_{j != i} e^{scale x_i.x_j}

    P(i) are the others of i's class in the batch. An item alone with its class in a batch does not count in 'pairs'.

    Source: arXiv:1704.06369 (NormFace); arXiv:2004.11362 eq. 2 (pairs).
    """

    num_classes: Count
    embedding_dim: Count
    kind: Literal["proxies", "pairs"] = "proxies"
    scale: Positive = 16.0

    def __post_init__(self):
        ranges.check_fields(self)

    def init(self, key) -> Params:
        """Returns {"proxies": float32 [C, E]}, drawn; {} where there are none."""
        if self.kind == "pairs":
            return {}
        return {"proxies": jax.random.normal(key, (self.num_classes, self.embedding_dim)) / self.embedding_dim**0.5}

    def axes(self) -> Params:
        """Returns the logical axes of `init`."""
        return {} if self.kind == "pairs" else {"proxies": ("vocab", "embedding")}

    def __call__(
        self, params: Params, x: Float[Array, "B E"], classes: Int[Array, " B"]
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss of unit vectors and what to report."""
        return self._by_proxies(params, x, classes) if self.kind == "proxies" else self._by_pairs(x, classes)

    def _by_proxies(self, params: Params, x: Array, classes: Array) -> tuple[Array, Metrics]:
        logits = self.scale * jnp.einsum("be,ce->bc", x, normalize(params["proxies"]))
        of_class = jnp.take_along_axis(logits, classes[:, None], 1)[:, 0]
        value = jnp.mean(jax.nn.logsumexp(logits, -1) - of_class)
        return value, {"accuracy": jnp.mean(jnp.argmax(logits, -1) == classes)}

    def _by_pairs(self, x: Array, classes: Array) -> tuple[Array, Metrics]:
        others = ~jnp.eye(len(x), dtype=bool)
        logits = jnp.where(others, self.scale * jnp.einsum("ie,je->ij", x, x), -jnp.inf)
        log_shares = jax.nn.log_softmax(logits, -1)
        same = others & (classes[:, None] == classes[None])
        count = jnp.sum(same, -1)
        rows = -jnp.sum(jnp.where(same, log_shares, 0.0), -1) / jnp.maximum(count, 1)
        has_others = count > 0
        value = jnp.sum(jnp.where(has_others, rows, 0.0)) / jnp.maximum(jnp.sum(has_others), 1)
        right = jnp.take_along_axis(same, jnp.argmax(logits, -1)[:, None], 1)[:, 0]
        return value, {"accuracy": jnp.sum(right) / jnp.maximum(jnp.sum(has_others), 1)}
