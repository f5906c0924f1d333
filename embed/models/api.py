"""The seam: everything outside this room sees a model as `init`, `apply` and `axes` (`types.Model`), never as a module.

Parameters are nested dicts of float32 arrays. Their paths are the checkpoint format; a test lists them. A model is described
by the registered names of its parts and their fields, and built again from that description alone: no code comes from a file.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from embed import ranges
from embed.errors import ConfigError, DataError, did_you_mean
from embed.models import (
    bert,
    dual_encoder,
    embedder,
    embedding_gemma2,
    gemma,
    gemma_vision,
    layout,
    mixed_embedder,
    modernbert,
    pooling,
    qwen3,
    t5gemma,
    tips_text,
    vit,
)
from embed.models.gemma_vision import GemmaVision
from embed.models.transformer import TransformerEncoder
from embed.models.vit import VisionTransformer
from embed.types import Model, Params

_REGISTRY: dict[str, type[nn.Module]] = {
    "Embedder": embedder.Embedder,
    "DualEncoder": dual_encoder.DualEncoder,
    "ImageEmbedder": dual_encoder.ImageEmbedder,
    "Bert": bert.Bert,
    "EmbeddingGemma2": embedding_gemma2.EmbeddingGemma2,
    "Gemma": gemma.Gemma,
    "GemmaVision": gemma_vision.GemmaVision,
    "ImageTokens": mixed_embedder.ImageTokens,
    "MixedEmbedder": mixed_embedder.MixedEmbedder,
    "ModernBert": modernbert.ModernBert,
    "Qwen3": qwen3.Qwen3,
    "T5GemmaEncoder": t5gemma.T5GemmaEncoder,
    "T5GemmaDecoder": t5gemma.T5GemmaDecoder,
    "TipsText": tips_text.TipsText,
    "VisionTransformer": vit.VisionTransformer,
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


def build(module: nn.Module) -> Model:
    """Returns the model of an Embedder or a DualEncoder, after checking at full size that its shapes fit together.

    Equal modules give one `Model`, so that JAX traces and compiles its functions once in a process.
    """
    module = module.clone(parent=None)
    try:
        hash(module)
    except TypeError:  # a field is a list
        return _built.__wrapped__(module, "")
    return _built(module, repr(module))


@functools.lru_cache(maxsize=64)
def _built(module: nn.Module, text: str) -> Model:
    """Builds a model. `text` tells apart modules whose fields are equal and of different types, as 0 and 0.0 are."""
    del text

    def boxed_init(key):
        return module.init(key, method=module.initialise)["params"]

    def apply(params, inputs, *, method="text", key=None, max_segments=None):
        if method not in methods:
            raise ConfigError(f"the model has no method {method!r}{did_you_mean(method, methods)}")
        rngs = None if key is None else {"dropout": key}
        arrays = {name: inputs[name] for name in methods[method].inputs}
        given = ({"params": params}, method, arrays, key is not None, max_segments)
        return module.apply(*given, rngs=rngs, method=module.run)

    methods = module.methods()
    try:
        boxed = jax.eval_shape(lambda: boxed_init(jax.random.key(0)))
        sizes = {
            name: jax.eval_shape(lambda p, name=name, x=x: apply(p, x, method=name), nn.unbox(boxed)).shape[-1]
            for name, x in module.examples().items()
        }
    except (TypeError, ValueError, ZeroDivisionError, IndexError) as e:
        raise ConfigError(f"the model's sizes do not fit together: {str(e).strip().splitlines()[0][:200]}") from e
    size = next(iter(sizes.values()))
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {n}" for name, n in sizes.items())
        raise ConfigError(f"the model's embeddings have different sizes ({listed}); make the last projections equal")
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
    return Model(
        init=lambda key: nn.unbox(boxed_init(key)),
        apply=apply,
        axes=axes,
        description=describe(module),
        embedding_dim=size,
        matryoshka_dims=dims,
        methods=methods,
        apart=_apart(module, axes),
    )


def with_layers(module: nn.Module, remat: str, unrolled: bool) -> nn.Module:
    """Returns a model whose encoders have another remat policy, and the scan over their layers unrolled whole or not.

    A scan that is unrolled in part stays so where it is not unrolled whole. An encoder without such fields stays as it is.
    """
    if module.towers:
        return module.clone(**{name: with_layers(getattr(module, name), remat, unrolled) for name in module.towers})
    num_layers, before = getattr(module.encoder, "num_layers", 1), getattr(module.encoder, "unroll", 1)
    scan = before if before < num_layers else 1
    fields = {"remat": remat, "unroll": num_layers if unrolled else scan}
    known = {f.name for f in dataclasses.fields(module.encoder)}
    return module.clone(encoder=module.encoder.clone(**{name: x for name, x in fields.items() if name in known}))


def layers_of(module: nn.Module) -> tuple[str, bool]:
    """Returns the remat policy of a model's first encoder, and whether the scan over its layers is unrolled whole."""
    encoder = (getattr(module, module.towers[0]) if module.towers else module).encoder
    num_layers = getattr(encoder, "num_layers", 1)
    return getattr(encoder, "remat", "none"), 1 < num_layers <= getattr(encoder, "unroll", 1)


def _apart(module: nn.Module, axes: Params) -> Callable[[Params], Params] | None:
    """Returns what lays the layers of every encoder apart; None where an encoder arranges its layers as `layout` does not know."""
    towers = [axes[name] for name in module.towers] if module.towers else [axes]
    encoders = [getattr(module, name).encoder for name in module.towers] or [module.encoder]
    known = all(
        isinstance(encoder, TransformerEncoder | VisionTransformer | GemmaVision)
        and layout.is_known(tower["encoder"].get("stack", {}))
        for encoder, tower in zip(encoders, towers)
    )
    if not known:
        return None
    if not module.towers:
        return layout.apart
    return lambda params: {**params, **{name: layout.apart(params[name]) for name in module.towers}}
