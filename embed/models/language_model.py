"""An embedder as a language model: the logits of the next token, and a decoder that starts from its encoder.

The output map is the token table, as in Gemma and T5Gemma. Source of the start: T5Gemma, arXiv:2504.06225 s3.
"""

from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from embed.errors import ConfigError
from embed.models.layers import compute_dtype, product
from embed.models.transformer import TransformerEncoder
from embed.types import Params

_TABLE = "embedding/table"


def table_of(module: nn.Module) -> str | None:
    """Returns the part of an Embedder whose token table gives the logits; None for a model that predicts no tokens.

    A decoder that is not causal would see what it is to predict: a ConfigError.
    """
    for part in (module.encoder, module.decoder):
        if isinstance(part, TransformerEncoder):
            part.check()
    if module.decoder is not None:
        if not getattr(module.decoder, "is_causal", False):
            raise ConfigError(
                f"Embedder.decoder is a {type(module.decoder).__name__} that sees the tokens it is to predict; make it causal"
            )
        return "decoder"
    is_causal = isinstance(module.encoder, TransformerEncoder) and module.encoder.is_causal
    return "encoder" if is_causal else None


def logits(module: nn.Module, params: Params, states: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
    """Returns the logits of the next token, in float32: the product with the token table, capped where the decoder says so."""
    part = table_of(module)
    last = getattr(module, part)
    table = params[part]["embedding"]["table"]
    values = product("BLD,VD->BLV", states, table, compute_dtype(last.dtype))
    softcap = getattr(last, "final_softcap", None)
    return values if softcap is None else softcap * jnp.tanh(values / softcap)


def decoder_start(expected: Mapping[str, Any], stored: Collection[str]) -> dict[str, str]:
    """Returns {path of a decoder's parameter: path of the encoder's parameter that it starts as}, of one causal checkpoint.

    `expected` are the paths and shapes of a model, `stored` those that a checkpoint has. Self-attention, MLP, norms and the token
    table are copied, and cross-attention starts as self-attention. What the checkpoint has of the decoder itself is left out,
    and so is what fits none of the encoder's parameters in its shape.
    """
    sources = {}
    for path, x in expected.items():
        if not path.startswith("decoder/") or path in stored:
            continue
        source = "encoder/" + path.removeprefix("decoder/").replace("/cross_attention", "/attention")
        if source in stored and source in expected and tuple(expected[source].shape) == tuple(x.shape):
            sources[path] = source
    return sources
