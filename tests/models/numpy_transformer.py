"""A transformer of any family in numpy and float64, one text, head and query at a time; and rows of texts to hold against it."""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from embed.models import layout


def rms_norm(offset: float, eps: float = 1e-6) -> Callable:
    return lambda x, p: x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * (offset + p["scale"])


def layer_norm(eps: float) -> Callable:
    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * p["scale"] + p.get("bias", 0.0)

    return norm


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + np.exp(-x))


@dataclasses.dataclass
class Layer:
    """What one layer does: how far it sees to each side (None: to the end), and the base of its rotary positions."""

    left: int | None = None
    right: int | None = None
    base: float | None = None
    has_norm: bool = True


@dataclasses.dataclass
class Numpy:
    """A family. `placement` is where its norms stand: before or after a branch, or both."""

    norm: Callable
    placement: str
    act: Callable
    scale: float
    layers: list[Layer]
    gated: bool = True
    softcap: float | None = None
    normed_values: bool = False  # to a root mean square of 1 in every head

    def stack(self, x, params):
        """Returns the vectors [L, D] of one text behind the last layer."""
        for number, layer in enumerate(self.layers):
            x = self.block(x, jax.tree.map(lambda a, n=number: np.float64(a[n]), params), layer)
        return x

    def block(self, x, p, layer: Layer):
        """Returns the vectors behind one layer, whose parameters are `p`."""
        x = self.branch(x, p, "attention", lambda y: self.attention(y, p["attention"], layer), layer.has_norm)
        return self.branch(x, p, "mlp", lambda y: self.mlp(y, p["mlp"]))

    def branch(self, x, p, name, function, has_norm=True):
        norm = p[f"{name}_norm"]
        if self.placement == "after":
            return self.norm(x + function(x), norm)
        y = function(self.norm(x, norm) if has_norm else x)
        return x + (self.norm(y, p[f"{name}_post_norm"]) if self.placement == "both" else y)

    def mlp(self, x, p):
        up = x @ p["up"]["kernel"] + p["up"].get("bias", 0.0)
        gate = x @ p["gate"]["kernel"] + p["gate"].get("bias", 0.0) if self.gated else up
        hidden = self.act(gate) * up if self.gated else self.act(gate)
        return hidden @ p["down"]["kernel"] + p["down"].get("bias", 0.0)

    def attention(self, x, p, layer: Layer):
        heads, groups = (p[name]["kernel"].shape[1] for name in ("query", "key"))
        out = np.zeros_like(x) + p["output"].get("bias", 0.0)
        for h in range(heads):
            g = h // (heads // groups)
            q, k, v = (
                x @ p[name]["kernel"][:, n] + (p[name]["bias"][n] if "bias" in p[name] else 0.0)
                for name, n in (("query", h), ("key", g), ("value", g))
            )
            if "query_norm" in p:
                q, k = self.norm(q, p["query_norm"]), self.norm(k, p["key_norm"])
            if self.normed_values:
                v = v / np.sqrt(np.mean(v * v, -1, keepdims=True) + 1e-6)
            if layer.base is not None:
                q, k = (np.stack([rotated(row, t, layer.base) for t, row in enumerate(y)]) for y in (q, k))
            for t in range(len(x)):
                seen = [
                    s
                    for s in range(len(x))
                    if (layer.left is None or t - s <= layer.left) and (layer.right is None or s - t <= layer.right)
                ]
                logits = k[seen] @ q[t] * self.scale
                logits = logits if self.softcap is None else self.softcap * np.tanh(logits / self.softcap)
                weights = np.exp(logits - logits.max())
                out[t] += weights / weights.sum() @ v[seen] @ p["output"]["kernel"][h]
        return out


def rotated(x, position, base):
    """Returns one head's vector at `position`: value i of the first half turns with value i of the second."""
    half = len(x) // 2
    out = np.empty_like(x)
    for i in range(half):
        angle = position * base ** (-2 * i / len(x))
        out[i] = x[i] * np.cos(angle) - x[half + i] * np.sin(angle)
        out[half + i] = x[half + i] * np.cos(angle) + x[i] * np.sin(angle)
    return out


# Three rows: the texts' lengths in each. 30 positions are more than the tests' BERT has: a text has its own, padding none.
ROWS = [(9, 5, 1), (13, 8), (6,)]
LENGTH = 30


def rows(vocab_size: int):
    """Returns token ids [B, L], the numbers of their texts, and (row, slice) of every text. Padding holds junk."""
    tokens = np.random.default_rng(2).integers(0, vocab_size, (len(ROWS), LENGTH)).astype(np.int32)
    segment_ids, places = np.zeros_like(tokens), []
    for r, sizes in enumerate(ROWS):
        ends = np.cumsum(sizes)
        for s, (size, end) in enumerate(zip(sizes, ends)):
            places.append((r, slice(end - size, end)))
            segment_ids[places[-1]] = s + 1
    return tokens, segment_ids, places


def draw(encoder, centre: float):
    """Returns parameters drawn at random, none of them what they start as; scales around `centre`."""
    tokens, segment_ids, _ = rows(encoder.vocab_size)
    random = np.random.default_rng(5)
    sizes = {"table": 1.0, "kernel": 0.35, "scale": 0.2, "bias": 0.1}
    shapes = nn.unbox(jax.eval_shape(encoder.init, jax.random.key(0), tokens, segment_ids)["params"])

    def drawn(path, shape):
        kind = path[-1].key.removeprefix("output_")
        return np.float32(random.normal(size=shape.shape) * sizes[kind] + centre * (kind == "scale"))

    return jax.tree_util.tree_map_with_path(drawn, shapes)


def run(encoder, params, apart: bool = False):
    """Returns the vectors of `rows`, from parameters that lie stacked or each layer's apart."""
    tokens, segment_ids, _ = rows(encoder.vocab_size)
    params = layout.apart({"encoder": params})["encoder"] if apart else params
    return np.asarray(jax.jit(encoder.apply)({"params": params}, jnp.asarray(tokens), jnp.asarray(segment_ids)))


def assert_matches(encoder, of_text: Callable, centre: float, apart: bool = False, atol: float = 2e-5) -> None:
    """Asserts that every token of rows of several texts has the vector that `of_text(params, tokens)` gives its text alone."""
    tokens, _, places = rows(encoder.vocab_size)
    params = draw(encoder, centre)
    found, exact = run(encoder, params, apart), jax.tree.map(np.float64, params)
    for row, place in places:
        np.testing.assert_allclose(found[row, place], of_text(exact, tokens[row, place]), rtol=0, atol=atol)
    assert np.isfinite(found).all() and found.std(0).mean() > 0.1
