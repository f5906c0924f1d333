"""The seam: everything outside this room sees a model as `init`, `apply` and `axes` (`types.Model`), never as a module.

Parameters are nested dicts of float32 arrays. Their paths are the checkpoint format; a test lists them. A model is described
by the registered names of its parts and their fields, and built again from that description alone: no code comes from a file.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from embed import ranges
from embed.errors import ConfigError, DataError, did_you_mean
from embed.models import (
    bert,
    embedder,
    embedding_gemma2,
    gemma,
    language_model,
    layout,
    modernbert,
    pooling,
    qwen3,
    t5gemma,
)
from embed.models.transformer import TransformerEncoder
from embed.types import EMBEDDINGS, Method, Model

_REGISTRY: dict[str, type[nn.Module]] = {
    "Embedder": embedder.Embedder,
    "Bert": bert.Bert,
    "EmbeddingGemma2": embedding_gemma2.EmbeddingGemma2,
    "Gemma": gemma.Gemma,
    "ModernBert": modernbert.ModernBert,
    "Qwen3": qwen3.Qwen3,
    "T5GemmaEncoder": t5gemma.T5GemmaEncoder,
    "T5GemmaDecoder": t5gemma.T5GemmaDecoder,
    "MeanPooling": pooling.MeanPooling,
    "FirstPooling": pooling.FirstPooling,
    "LastPooling": pooling.LastPooling,
    "AttentionPooling": pooling.AttentionPooling,
}


def register(module: type[nn.Module]) -> type[nn.Module]:
    """Makes a module of your own describable, under its class name; use it as a decorator. Returns the module."""
    _REGISTRY[module.__name__] = module
    return module


def describe(module: nn.Module) -> dict[str, Any]:
    """Returns the JSON description of a module: its registered name and its fields, nested."""
    # gin builds a subclass of the class it configures; the nearest registered class is the one that was meant.
    name = next((n for base in type(module).__mro__ for n, c in _REGISTRY.items() if c is base), None)
    if name is None:
        raise ConfigError(
            f"{type(module).__name__} is not a registered module; decorate it with embed.models.api.register"
        )
    fields = {f: getattr(module, f) for f in module.__dataclass_fields__ if f not in ("parent", "name")}
    return {"type": name, **{f: describe(v) if isinstance(v, nn.Module) else v for f, v in fields.items()}}


def from_description(description: dict[str, Any]) -> nn.Module:
    """Returns the module that `describe` described. Unknown names and fields are DataErrors that list the known ones."""
    fields = dict(description)
    name = fields.pop("type", None)
    if not isinstance(name, str) or name not in _REGISTRY:
        raise DataError(f"unknown architecture {name!r}{did_you_mean(str(name), _REGISTRY)}")
    known = set(_REGISTRY[name].__dataclass_fields__) - {"parent", "name"}
    for field in fields:
        if field not in known:
            raise DataError(f"{name} has no field {field!r}{did_you_mean(field, known)}")
    values = {
        f: from_description(v) if isinstance(v, dict) else tuple(v) if isinstance(v, list) else v
        for f, v in fields.items()
    }
    for field, value in values.items():
        reason = ranges.problem(value, ranges.hints(_REGISTRY[name]).get(field, Any))
        if reason is not None:
            raise DataError(f"{name}.{field} = {value!r}: {reason}; restore model.json from its source")
    return _REGISTRY[name](**values)


def build(module: embedder.Embedder) -> Model:
    """Returns the model of an Embedder, after checking at full size that its shapes fit together."""
    module = module.clone(parent=None)
    tokens, mask = jnp.zeros((1, 8), jnp.int32), jnp.ones((1, 8), bool)

    def boxed_init(key):
        return module.init(key, tokens, mask, method=_initialise)["params"]

    def apply(params, inputs, *, method="text", key=None, max_segments=None):
        if method not in methods:
            raise ConfigError(f"the model has no method {method!r}{did_you_mean(method, methods)}")
        rngs = None if key is None else {"dropout": key}
        arrays = {name: inputs[name] for name in methods[method].inputs}
        if method == "logits":
            return language_model.logits(module, params, **arrays)
        options = {"method": module.decode} if method == "decode" else {"max_segments": max_segments}
        if method == EMBEDDINGS:
            options["with_intermediate"] = True
        return module.apply({"params": params}, **arrays, is_training=key is not None, rngs=rngs, **options)

    methods = _methods(module)

    try:
        boxed = jax.eval_shape(lambda: boxed_init(jax.random.key(0)))
        shape = jax.eval_shape(lambda p: apply(p, {"tokens": tokens, "segment_ids": mask}), nn.unbox(boxed)).shape
    except (TypeError, ValueError, ZeroDivisionError, IndexError) as e:
        raise ConfigError(f"the model's sizes do not fit together: {str(e).strip().splitlines()[0][:200]}") from e
    size = shape[-1]
    dims = tuple(sorted({size, *module.matryoshka_dims}, reverse=True))
    if dims[0] > size or dims[-1] < 1:
        raise ConfigError(f"matryoshka_dims {module.matryoshka_dims} must lie between 1 and the embedding size {size}")
    # Parameters of a module that names no axes are whole on every device.
    axes = jax.tree.map(
        lambda spec, x: tuple(spec) or (None,) * x.ndim,
        nn.get_partition_spec(boxed),
        nn.unbox(boxed),
        is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec),
    )
    # The layers of another encoder, or of one that arranges its stacks itself, may not lie as `layout` knows them.
    layered = isinstance(module.encoder, TransformerEncoder) and layout.is_known(axes["encoder"].get("stack", {}))
    return Model(
        init=lambda key: nn.unbox(boxed_init(key)),
        apply=apply,
        axes=axes,
        description=describe(module),
        embedding_dim=size,
        matryoshka_dims=dims,
        methods=methods,
        dropout=getattr(module.encoder, "dropout", 0.0) > 0,
        apart=layout.apart if layered else None,
    )


def _initialise(module: embedder.Embedder, tokens, mask):
    """Calls all that a model has, so that all its parameters are made."""
    vectors = module(tokens, mask)
    return vectors if module.decoder is None else (vectors, module.decode(tokens, mask, tokens, mask))


def _methods(module: embedder.Embedder) -> dict[str, Method]:
    """Returns how a model may be called: as an embedder, and as a language model where it is causal or has a decoder."""
    packs = all(getattr(part, "packs", False) for part in (module.encoder, module.pooling))
    methods = {"text": Method(("tokens", "segment_ids"), module.forward_flops, packs)}
    if len(module.projection) > 1:
        methods[EMBEDDINGS] = methods["text"]
    if language_model.table_of(module) is None:
        return methods
    inputs = ("tokens", "segment_ids") + (() if module.decoder is None else ("decoder_tokens", "decoder_segment_ids"))
    last = module.decoder or module.encoder
    return methods | {
        "decode": Method(inputs, module.decode_flops, packs),
        "logits": Method(("states",), lambda length: 2.0 * length * last.width * last.vocab_size),
    }
