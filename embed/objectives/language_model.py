"""Language modelling: a causal encoder predicts its next token, or a decoder what is missing in the encoder's text.

The second is how EmbeddingGemma's encoder began (arXiv:2509.20354 s2.3): encoder and decoder from one causal checkpoint, trained on
the mixture of denoisers of UL2 (arXiv:2205.05131) as in T5Gemma (arXiv:2504.06225).
"""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from embed import ranges
from embed.errors import ConfigError
from embed.losses.language_model import token_sums
from embed.objectives.pairs import MODEL
from embed.ranges import NonNegative
from embed.types import Batch, Metrics, Model, Outputs, Params, Variables


class _LanguageModel:
    """What both objectives share: one model, and a loss that is a mean over the tokens of the whole batch."""

    text: str
    z_loss: float
    model: Model | None

    def __post_init__(self):
        ranges.check_fields(self)

    def init(self, key, start: Params | None = None) -> Variables:
        """Returns the variables; `types.Objective`."""
        self._check()
        return Variables({MODEL: self.model.init(key) if start is None else start}, {}, {})

    def axes(self) -> Variables:
        """Returns their logical axes."""
        return Variables({MODEL: self.model.axes}, {}, {})

    def loss(self, params: Params, outputs: Outputs, batch: Batch, step) -> tuple[Float[Array, ""], Metrics]:
        """Returns the mean over the predicted tokens in nats, and the share of them that the model would have chosen."""
        del params, batch, step
        sums = outputs.sums
        tokens = jnp.maximum(sums["tokens"], 1.0)
        z_loss = {name: sums[name] / tokens for name in ("z_loss",) if name in sums}
        return sums["loss"] / tokens, {
            "accuracy": sums["correct"] / tokens,
            "predicted_tokens": sums["tokens"],
            **z_loss,
        }

    def update(self, variables: Variables, outputs: Outputs, step) -> dict[str, Any]:
        """Returns {}: nothing moves."""
        del variables, outputs, step
        return {}

    def export(self, variables: Variables) -> Params:
        """Returns the model's parameters, those of its decoder among them."""
        return variables.params[MODEL]

    def served(self, variables: Variables) -> Variables:
        """Returns the variables as they are."""
        return variables

    def _check(self) -> None:
        raise NotImplementedError

    def _arrays(self, batch: Batch, *names: str) -> list[Any]:
        """Returns the arrays of the feature `text`; a batch without them is a ConfigError."""
        missing = [f"{self.text}_{name}" for name in names if f"{self.text}_{name}" not in batch]
        if missing:
            raise ConfigError(
                f"{type(self).__name__} reads {missing[0]!r}, and the batch has {', '.join(sorted(batch))}; bind Recipe.features "
                f"to [@language_features.{self.feature}()], and {type(self).__name__}.text to its name"
            )
        return [batch[f"{self.text}_{name}"] for name in names]

    def _sums(self, params: Params, inputs, labels, mask, key) -> dict[str, Float[Array, ""]]:
        """Returns the sums of the predictions of `labels`, from the named `inputs` of the model."""
        states = self.model.apply(params, inputs, method="decode", key=key)
        logits_of = lambda params, chunk: self.model.apply(params, {"states": chunk}, method="logits")  # noqa: E731
        return token_sums(logits_of, params, states, labels, mask, self.z_loss)


@dataclasses.dataclass(frozen=True)
class CausalLanguageModel(_LanguageModel):
    """The next token from those before it, by a causal encoder. `text` is the name of a feature `language_features.Continuation`.

    `z_loss` is the weight of the squared log-partition (`losses.language_model`). The trainer sets `model`.
    """

    text: str = "text"
    z_loss: NonNegative = 0.0
    model: Model | None = None
    feature: ClassVar[str] = "Continuation"

    def _check(self) -> None:
        methods = self.model.methods
        if "decode" not in methods or "decoder_tokens" in methods["decode"].inputs:
            raise ConfigError(
                "CausalLanguageModel needs a model whose encoder is causal, without a decoder; set causal = True of its "
                "encoder, or take SequenceToSequence"
            )

    def forward(self, variables: Variables, batch: Batch, key, step) -> Outputs:
        """Returns the sums of a micro-batch."""
        del step
        tokens, mask = self._arrays(batch, "tokens", "mask")
        inputs = {"tokens": tokens[:, :-1], "segment_ids": mask[:, :-1]}
        return Outputs({}, self._sums(variables.params[MODEL], inputs, tokens[:, 1:], mask[:, 1:], key))


@dataclasses.dataclass(frozen=True)
class SequenceToSequence(_LanguageModel):
    """The tokens of `targets` from those before them and the whole of `inputs`, by an encoder and its decoder.

    `text` is the name of a feature `language_features.Denoised`. `z_loss` is the weight of the squared log-partition
    (`losses.language_model`). The trainer sets `model`.
    """

    text: str = "text"
    z_loss: NonNegative = 0.0
    model: Model | None = None
    feature: ClassVar[str] = "Denoised"
    trains_decoder: ClassVar[bool] = True

    def _check(self) -> None:
        if "decoder_tokens" not in getattr(self.model.methods.get("decode"), "inputs", ()):
            raise ConfigError(
                "SequenceToSequence needs a model with a decoder; bind Embedder.decoder, such as a causal model of the encoder's "
                "kind, or take CausalLanguageModel"
            )

    def forward(self, variables: Variables, batch: Batch, key, step) -> Outputs:
        """Returns the sums of a micro-batch."""
        del step
        tokens, segment_ids, targets, mask = self._arrays(batch, "inputs", "inputs_mask", "targets", "targets_mask")
        inputs = {
            "tokens": tokens,
            "segment_ids": segment_ids,
            "decoder_tokens": targets[:, :-1],
            "decoder_segment_ids": mask[:, :-1],
        }
        return Outputs({}, self._sums(variables.params[MODEL], inputs, targets[:, 1:], mask[:, 1:], key))
