"""Descriptions of models (`models.api.describe`): the towers of a dual encoder, or the one that a model is."""

from collections.abc import Callable, Mapping
from typing import Any

TOWERS = ("text", "image")  # of a dual encoder


def towers(architecture: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the embedders of a model by the names of their parameters: those of a dual encoder, or the model itself as ''."""
    return {name: architecture[name] for name in TOWERS if name in architecture} or {"": architecture}


def text_encoder(architecture: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the description of the encoder of texts."""
    return architecture.get("text", architecture)["encoder"]


def image_tower(architecture: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns the description of what embeds images; None where nothing does."""
    tower = architecture.get("image", architecture)
    return tower if "image_size" in tower else None


def takes_no_text(architecture: Mapping[str, Any]) -> bool:
    """Returns whether a model embeds images alone."""
    return "image_size" in architecture


def map_towers(value: Mapping[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    """Returns a description, or parameters of the same structure, with `function` applied to each embedder."""
    names = [name for name in TOWERS if name in value and "encoder" in value[name]]
    return {**value, **{name: function(value[name]) for name in names}} if names else function(value)
