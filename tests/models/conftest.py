"""A small Gemma whose every size differs, random parameters for it, and a batch of token ids."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_calls import by_text

from embed.models import api
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.pooling import MeanPooling

SIZES = {
    "vocab_size": 40,
    "width": 12,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 6,
    "mlp_dim": 20,
    "window": 4,
    "global_every": 2,
}


def make(pooling=None, projection=(14, 8), matryoshka_dims=(), **fields) -> Embedder:
    return Embedder(Gemma(**{**SIZES, **fields}), pooling or MeanPooling(), projection, matryoshka_dims)


def draw(init, seed: int = 5):
    """Returns parameters shaped as `init` makes them, none of them zero: there a wrong 1 + scale goes unseen."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(lambda s: jnp.asarray(random.normal(size=s.shape) * 0.3, s.dtype), shapes)


def fast(function):
    """Returns `function` compiled with little optimisation: most of these tests' time is compiling gradients."""
    return jax.jit(
        function, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    )


def texts(lengths=(11, 7, 1, 3), width: int = 11, vocab: int = 40):
    """Returns token ids [B, L] and the mask of the real ones; padding holds junk."""
    tokens = np.random.default_rng(1).integers(0, vocab, (len(lengths), width)).astype(np.int32)
    return jnp.asarray(tokens), jnp.arange(width) < jnp.asarray(lengths)[:, None]


def gradient_of(**fields):
    """Returns the embeddings of `texts` with dropout, and the gradient of a weighted sum of them by `tiny.params`."""
    model = api.build(make(dropout=0.3, **fields))
    tokens, mask = texts()
    direction = jnp.asarray(np.random.default_rng(0).normal(size=(len(tokens), 8)), jnp.float32)

    def total(params):
        found = by_text(model)(params, tokens, mask, jax.random.key(4))
        return jnp.sum(found * direction), found

    (_, found), gradient = fast(jax.value_and_grad(total, has_aux=True))(draw(model.init))
    return jax.device_get((found, gradient))


@pytest.fixture(scope="session")
def gradient():
    """What `gradient_of` gives of a plain stack, compiled once."""
    return gradient_of()


@pytest.fixture(scope="session")
def encoded(tiny):
    """What the encoder of `tiny` gives for `texts`, compiled once."""
    return np.asarray(fast(make().encoder.apply)({"params": tiny.params["encoder"]}, *texts()))


@pytest.fixture(scope="session")
def initial():
    """A model with enough parameters that their deviations can be told, and its `init`, compiled once."""
    model = api.build(Embedder(Gemma(512, 64, 2, 4, 128, head_dim=32), MeanPooling(), (96, 64)))
    return types.SimpleNamespace(model=model, init=fast(model.init))


@pytest.fixture(scope="session")
def tiny():
    """The tools above, the model they make by default, and parameters for it."""
    model = api.build(make())
    tools = {"make": make, "draw": draw, "fast": fast, "texts": texts, "sizes": SIZES, "gradient": gradient_of}
    return types.SimpleNamespace(**tools, model=model, params=draw(model.init), apply=fast(by_text(model)))
