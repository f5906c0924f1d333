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
from embed.models import bert, embedder, gemma, layout, modernbert, pooling, qwen3, t5gemma
from embed.models.transformer import TransformerEncoder
from embed.types import EMBEDDINGS, Method, Model

_REGISTRY: dict[str, type[nn.Module]] = {
    "Embedder": embedder.Embedder,
    "Bert": bert.Bert,
    "Gemma": gemma.Gemma,
    "ModernBert": modernbert.ModernBert,
    "Qwen3": qwen3.Qwen3,
    "T5GemmaEncoder": t5gemma.T5GemmaEncoder,
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

    def init(key):
        return nn.unbox(module.init(key, tokens, mask)["params"])

    def apply(params, inputs, *, method="text", key=None, max_segments=None):
        if method not in methods:
            raise ConfigError(f"the model has no method {method!r}{did_you_mean(method, methods)}")
        rngs = None if key is None else {"dropout": key}
        arrays = (inputs[name] for name in methods[method].inputs)
        options = {"with_intermediate": True} if method == EMBEDDINGS else {}
        return module.apply({"params": params}, *arrays, key is not None, max_segments, rngs=rngs, **options)

    packs = all(getattr(part, "packs", False) for part in (module.encoder, module.pooling))
    methods = {"text": Method(("tokens", "segment_ids"), module.forward_flops, packs)}
    if len(module.projection) > 1:
        methods[EMBEDDINGS] = methods["text"]

    try:
        boxed = jax.eval_shape(lambda: module.init(jax.random.key(0), tokens, mask)["params"])
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
    layered = isinstance(module.encoder, TransformerEncoder) and "layers" in axes["encoder"].get("stack", {})
    return Model(
        init=init,
        apply=apply,
        axes=axes,
        description=describe(module),
        embedding_dim=size,
        matryoshka_dims=dims,
        methods=methods,
        dropout=getattr(module.encoder, "dropout", 0.0) > 0,
        apart=layout.apart if layered else None,
    )
