"""The type checker of `pytest --jaxtyping-packages=embed,array_types.checked`: shapes and dtypes of arrays, nothing else.

Arrays of numpy pass where those of JAX are asked for, as they do in jax.numpy. Other hints are left to readers.
"""

import inspect
import typing

import beartype
import jax
import jaxtyping
import numpy as np


def _arrays(hint):
    """Returns the part of a hint that is about arrays, and Any for what is not."""
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        if hint.array_type is not jax.Array:
            return hint
        kind = getattr(jaxtyping, hint.__name__.partition("[")[0])
        return kind[jax.Array | np.ndarray | jax.ShapeDtypeStruct, hint.dim_str]
    parts = typing.get_args(hint)
    if parts and any(_arrays(part) is not typing.Any for part in parts):
        own = tuple(_arrays(part) for part in parts)
        origin = typing.get_origin(hint)
        if origin is tuple or origin is dict:
            return origin[own]
        if type(None) in parts and len(parts) == 2:
            return typing.Optional[next(part for part in own if part is not typing.Any)]  # noqa: UP045
    return typing.Any


def checked(function):
    """Returns `function` with the arrays among its arguments and results checked."""
    if inspect.isclass(function):
        return function
    hints = {name: _arrays(hint) for name, hint in getattr(function, "__annotations__", {}).items()}
    kept = {name: hint for name, hint in hints.items() if hint is not typing.Any}
    if not kept:
        return function
    function.__annotations__ = kept
    return beartype.beartype(function)
