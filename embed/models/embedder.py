"""The embedding model: encoder, pooling, projection, unit length.

One linear map after pooling is Gemini Embedding's head, two (768 -> 3072 -> 768) are EmbeddingGemma's; neither has biases or
an activation. Matryoshka sizes are prefixes of the embedding, always scaled back to unit length (`vectors.truncate`).

An encoder may be trained as a language model first: a causal one by itself, another one with a `decoder` that attends to its
states.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from embed.models import language_model
from embed.models.layers import project
from embed.types import EMBEDDINGS, Method
from embed.vectors import normalize


def output_dim(encoder: nn.Module) -> int:
    """Returns the size of an encoder's token vectors: its `output_dim` where it maps its last states, or else its width."""
    return getattr(encoder, "output_dim", None) or encoder.width


class Embedder(nn.Module):
    """Token ids to unit vectors in float32. `projection` lists the sizes after each linear map; none means no projection.

    `matryoshka_dims` are the prefixes the model is trained and served at; the embedding size itself is always one of them.
    `decoder` is a causal transformer that language-model objectives train with the encoder (`objectives.language_model`).
    Embeddings do not use it.
    """

    encoder: nn.Module
    pooling: nn.Module
    projection: tuple[int, ...] = ()
    matryoshka_dims: tuple[int, ...] = ()
    decoder: nn.Module | None = None
    towers = ()  # of a dual encoder

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B L"],
        segment_ids: Array,
        is_training: bool = False,
        max_segments: int | None = None,
        with_intermediate: bool = False,
        inserted: Float[Array, "B L W"] | None = None,
    ) -> Float[Array, "B *S E"] | tuple[Float[Array, "B *S E"], Float[Array, "B *S U"]]:
        """Returns [B, E] for one text a row (`segment_ids` is its mask), or [B, S, E] for rows of several texts
        (`segment_ids` numbers each token's text from 1, 0 is padding).

        `with_intermediate` returns the intermediate embedding beside it, what the last of several linear maps is applied to, at
        unit length: EmbeddingGemma's 3,072 values. `inserted` are the input vectors of tokens below 0, such as those of images
        in a text.
        """
        more = {} if inserted is None else {"inserted": inserted}
        states = self.encoder(tokens, segment_ids, is_training, **more)
        pooled = self.pooling(states, segment_ids, max_segments)
        intermediate, final = [pooled, *project(pooled, self.projection)][-2:]
        return (normalize(final), normalize(intermediate)) if with_intermediate else normalize(final)

    def decode(
        self,
        tokens: Int[Array, "B L"],
        segment_ids: Array,
        decoder_tokens: Int[Array, "B T"] | None = None,
        decoder_segment_ids: Array | None = None,
        is_training: bool = False,
    ) -> Float[Array, "B _ D"]:
        """Returns the states that predict each next token: the decoder's [B, T, D], or a causal encoder's own [B, L, D]."""
        states = self.encoder(tokens, segment_ids, is_training)
        if self.decoder is None:
            return states
        return self.decoder(decoder_tokens, decoder_segment_ids, is_training, (states, segment_ids))

    @nn.nowrap
    def methods(self) -> dict[str, Method]:
        """Returns how the model may be called: as an embedder, and as a language model where it is causal or has a decoder."""
        packs = all(getattr(part, "packs", False) for part in (self.encoder, self.pooling))
        methods = {"text": Method(("tokens", "segment_ids"), self.forward_flops, packs)}
        if len(self.projection) > 1:
            methods[EMBEDDINGS] = methods["text"]
        if language_model.table_of(self) is None:
            return methods
        decoder_inputs = () if self.decoder is None else ("decoder_tokens", "decoder_segment_ids")
        last = self.decoder or self.encoder
        return methods | {
            "decode": Method(("tokens", "segment_ids", *decoder_inputs), self.decode_flops, packs),
            "logits": Method(("states",), lambda length: 2.0 * length * last.width * last.vocab_size),
        }

    @nn.nowrap
    def examples(self) -> dict[str, dict[str, Array]]:
        """Returns inputs of the methods that embed, one item each."""
        return {"text": {"tokens": jnp.zeros((1, 8), jnp.int32), "segment_ids": jnp.ones((1, 8), bool)}}

    def initialise(self) -> None:
        """Calls all that the model has, so that all its parameters are made."""
        text = self.examples()["text"]
        self(**text)
        if self.decoder is not None:
            self.decode(**text, decoder_tokens=text["tokens"], decoder_segment_ids=text["segment_ids"])

    def run(self, method: str, inputs: Mapping[str, Array], is_training: bool, max_segments: int | None) -> Any:
        """Returns what a method of `methods` gives."""
        if method == "logits":
            return language_model.logits(self, self.variables["params"], **inputs)
        if method == "decode":
            return self.decode(**inputs, is_training=is_training)
        with_intermediate = method == EMBEDDINGS
        return self(**inputs, is_training=is_training, max_segments=max_segments, with_intermediate=with_intermediate)

    @nn.nowrap
    def decode_flops(self, length: float, decoder_length: float = 0) -> float:
        """Returns the FLOPs of predicting tokens: those of a text of `length` tokens, or `decoder_length` from such a text."""
        flops = self.encoder.forward_flops(length)
        if self.decoder is None:
            return flops + 2.0 * length * self.encoder.width * self.encoder.vocab_size
        logits = 2.0 * decoder_length * self.decoder.width * self.decoder.vocab_size
        return (
            flops
            + self.decoder.forward_flops(decoder_length)
            + self.decoder.cross_flops(decoder_length, length)
            + logits
        )

    @nn.nowrap
    def forward_flops(self, length: int) -> float:
        """Returns the FLOPs of embedding one text of `length` tokens."""
        sizes = [output_dim(self.encoder), *self.projection]
        return self.encoder.forward_flops(length) + sum(2.0 * a * b for a, b in zip(sizes, sizes[1:]))
