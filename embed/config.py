"""Gin files, read strictly. With `gin_statements` the only file that knows gin.

gin itself accepts duplicate bindings, wrong types, bindings nobody uses and holes nobody filled; here each is a one-line
error with file and line. A gin file is code (its imports run) and is trusted like code; nothing here ever reads gin out of
a checkpoint or bundle.
"""

import contextlib
import functools
import importlib
import inspect
import operator
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

import beartype
from beartype.door import is_bearable

import gin
from embed import documents, errors, ranges
from embed.buckets import addresses
from embed.errors import ConfigError, EmbedError, did_you_mean
from embed.gin_statements import Binding, Reader, Reference, find, holds_reference, references
from gin import config as gin_config

_TOWER = beartype.BeartypeConf(is_pep484_tower=True)  # an int is fine where a float is asked for


def _resolve(selector: str, modules: dict[str, str], location: str) -> Any:
    """Returns the object a selector names through the file's imports."""
    known = {}
    for alias, module in modules.items():
        members = vars(importlib.import_module(module))
        for name, value in members.items():
            if callable(value) and not name.startswith("_"):
                known[f"{alias}.{name}"] = value
    if selector not in known:
        raise ConfigError(f"{location}: nothing is called {selector!r}{did_you_mean(selector, known)}")
    return known[selector]


def _parameters(target: Any) -> dict[str, Any]:
    """Returns {parameter: annotation} of a callable; annotations that cannot be read are Any."""
    hints = ranges.hints(target.__init__ if inspect.isclass(target) else target)
    return {name: hints.get(name, Any) for name in inspect.signature(target).parameters}


def _check(reader: Reader) -> None:
    """Checks every binding: known names, known parameters, types of literals, filled holes."""
    macros = {b.selector for b in reader.bindings if not b.arg}
    final: dict[str, Binding] = {}
    for b in reader.bindings:
        final[b.name] = b
        for reference in references(b.value):
            if reference.is_macro and reference.name not in macros and reference.name != "gin.REQUIRED":
                raise ConfigError(f"{b.location}: no macro {reference.name!r}{did_you_mean(reference.name, macros)}")
            if not reference.is_macro:
                _resolve(reference.name.rpartition("/")[2], reader.modules, b.location)
        if b.arg:
            parameters = _parameters(_resolve(b.selector, reader.modules, b.location))
            if b.arg not in parameters:
                raise ConfigError(
                    f"{b.location}: {b.selector} has no parameter {b.arg!r}{did_you_mean(b.arg, parameters)}"
                )
            _check_type(b, parameters[b.arg], final)
        elif b.selector not in _used_macros(reader):
            raise ConfigError(
                f"{b.location}: nothing uses the macro {b.selector}{did_you_mean(b.selector, _used_macros(reader))}"
            )
    for b in final.values():
        if b.value == Reference("gin.REQUIRED", is_macro=True):
            raise ConfigError(
                f"{b.location}: {b.name} must be set; give --gin.{b.name}=VALUE or bind it in your gin file"
            )


def _used_macros(reader: Reader) -> set[str]:
    return {r.name for b in reader.bindings for r in references(b.value) if r.is_macro}


def _check_type(binding: Binding, hint: Any, final: dict[str, Binding]) -> None:
    value, location = binding.value, binding.location
    if isinstance(value, Reference) and value.is_macro and value.name in final:
        value, location = final[value.name].value, final[value.name].location
    if holds_reference(value):
        return
    if not _fits(value, hint):
        bare = _bare(hint)
        expected = getattr(bare, "__name__", None) if isinstance(bare, type) else str(bare).replace("typing.", "")
        raise ConfigError(f"{location}: {binding.name} = {value!r} is a {type(value).__name__}; expected {expected}")
    reason = ranges.problem(value, hint)
    if reason is not None:
        raise ConfigError(f"{location}: {binding.name} = {value!r}: {reason}")


def _bare(hint: Any) -> Any:
    """Returns a hint without the ranges that its parts are annotated with."""
    if typing.get_origin(hint) is typing.Annotated:
        return _bare(typing.get_args(hint)[0])
    parts = tuple(map(_bare, typing.get_args(hint)))
    if not parts or parts == typing.get_args(hint):
        return hint
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, parts)
    return typing.get_origin(hint)[parts]


def _fits(value: Any, hint: Any) -> bool:
    """Returns whether `value` is of type `hint`; beartype samples one item of a container, here all are looked at."""
    if not is_bearable(value, hint, conf=_TOWER):
        return False
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for option in options:
        arguments = [a for a in typing.get_args(option) if a is not ...]
        container = typing.get_origin(option)
        if not isinstance(container, type) or not isinstance(value, container):
            continue
        if isinstance(value, dict) and len(arguments) == 2:
            return all(_fits(k, arguments[0]) and _fits(v, arguments[1]) for k, v in value.items())
        if isinstance(value, list | tuple) and len(arguments) == 1:
            return all(_fits(item, arguments[0]) for item in value)
    return True


@contextlib.contextmanager
def _one_line_errors(reader: Reader):
    try:
        yield
    except EmbedError as e:  # gin appends which configurable it was called from
        kind = next(c for c in type(e).__mro__ if getattr(errors, c.__name__, None) is c)
        raise kind(str(e).splitlines()[0]) from e
    except (ValueError, SyntaxError, RuntimeError, TypeError) as e:
        lines = [line.strip() for line in str(e).splitlines() if line.strip()]
        number = re.search(r"line (\d+)", str(e))
        location = reader.locations[int(number[1]) - 1] if number and int(number[1]) <= len(reader.locations) else ""
        raise ConfigError(f"{location + ': ' if location else ''}{lines[0] if lines else type(e).__name__}") from e


def build(target: Callable, gin_files: Sequence[str], bindings: Sequence[str] = ()) -> tuple[Any, str, str]:
    """Returns (target called with what the gin files bind, the config as given, the operative config).

    `bindings` are NAME=VALUE of the command line and override the files. Raises ConfigError with file and line for anything
    unknown, unused, bound twice in one file, of the wrong type or left REQUIRED.
    """
    if not gin_files:
        raise ConfigError("no --gin_file given; start from one under gin/recipes/")
    reader = Reader()
    for name in gin_files:
        reader.read(find(name, f"--gin_file={name}"))
    for text in bindings:
        reader.read_binding(text)
    _check_final_types(reader)
    _check(reader)
    gin.clear_config()
    with _one_line_errors(reader):
        gin.parse_config("\n".join(reader.lines))
        given = addresses.restored(gin.config_str())
        built = _call(target, reader)
    _check_used(reader)
    return built, given, addresses.restored(gin.operative_config_str())


def digest(gin_files: Sequence[str]) -> str:
    """Returns the digest of what gin files and their includes say; comments do not count."""
    reader = Reader()
    for name in gin_files:
        reader.read(find(name, f"--gin_file={name}"))
    code = [addresses.restored(line).partition(" # ")[0].rstrip() for line in reader.lines]
    return documents.digest_json([line for line in code if line and not line.startswith("#")])


def _check_final_types(reader: Reader) -> None:
    """Checks each binding that takes a macro against the macro's last value, which a later line may have given."""
    final = {b.name: b for b in reader.bindings}
    for b in final.values():
        if b.arg and isinstance(b.value, Reference) and b.value.is_macro:
            parameters = _parameters(_resolve(b.selector, reader.modules, b.location))
            if b.arg in parameters and b.value.name in final:
                _check_type(b, parameters[b.arg], final)


def _call(target: Callable, reader: Reader):
    bound = {b.arg for b in reader.bindings if b.arg and _resolve(b.selector, reader.modules, b.location) is target}
    missing = [
        name
        for name, p in inspect.signature(target).parameters.items()
        if p.default is inspect.Parameter.empty and name not in bound
    ]
    if missing:
        raise ConfigError(
            f"the gin files do not bind {target.__name__}.{missing[0]}; include a run file such as runs/train.gin"
        )
    return gin.get_configurable(target)()


def _applies(scope: str, to: str) -> bool:
    """Returns whether a binding in `scope` applies to a call in the scope `to`: the same scope, or one inside it."""
    return not scope or to == scope or to.startswith(f"{scope}/")


def _check_used(reader: Reader) -> None:
    """Raises ConfigError for a binding that no built object took, and for one that inner scopes override everywhere.

    gin knows an object by the import that named it, which may be a package that takes the object from its own modules. Bindings
    of an object are allowed to be unused where a later binding replaced the reference to the object (`_released`).
    """
    operative = [
        (gin_config._REGISTRY[selector].wrapped, scope, set(arguments))
        for (scope, selector), arguments in gin_config._OPERATIVE_CONFIG.items()
    ]
    targets = [_resolve(b.selector, reader.modules, b.location) if b.arg else None for b in reader.bindings]
    last = {b.name: number for number, b in enumerate(reader.bindings)}
    takers = [
        [s for built, s, given in operative if built is target and b.arg in given and _applies(b.scope, s)]
        for b, target in zip(reader.bindings, targets)
    ]
    released = _released(reader, last, targets, takers)
    for number, b in enumerate(reader.bindings):
        if not b.arg or number in released:
            continue
        if not takers[number]:
            used = [built.__name__ for built, _, _ in operative if not built.__module__.startswith("gin.")]
            raise ConfigError(
                f"{b.location}: {b.name} is never used; the recipe is built from {', '.join(sorted(set(used)))}"
            )
        if last[b.name] != number:
            continue
        # gin takes the binding of the innermost scope. Where every call has one that was bound earlier, this one has no effect;
        # where it was bound later, it overrides this one on purpose.
        nearer = [
            [n for n, c in enumerate(reader.bindings) if targets[n] is targets[number] and _is_nearer(c, b, scope)]
            for scope in takers[number]
        ]
        if all(nearer) and all(n < number for inside in nearer for n in inside):
            others = ", ".join(dict.fromkeys(reader.bindings[n].name for inside in nearer for n in inside))
            raise ConfigError(f"{b.location}: {b.name} has no effect, as each use has its own: {others}; bind those")
    _check_macros_used(reader, last, released)


def _released(
    reader: Reader, last: dict[str, int], targets: Sequence[Any], takers: Sequence[Sequence[str]]
) -> dict[int, int]:
    """Returns {n: m} for each unused binding n of an object that only an overridden value referenced; m overrode that value.

    An example is the rate of AdamW in runs/base.gin where a recipe binds another optimiser. The objects that such bindings
    reference are released with them.
    """
    replaced = [(n, last[b.name]) for n, b in enumerate(reader.bindings) if last[b.name] != n]
    released: dict[int, int] = {}
    while replaced:
        number, by = replaced.pop()
        for reference in references(reader.bindings[number].value):
            if reference.is_macro:
                continue
            gone = _resolve(reference.name.rpartition("/")[2], reader.modules, reader.bindings[number].location)
            for n, target in enumerate(targets):
                if target is gone and not takers[n] and n < by and n not in released:
                    released[n] = by
                    replaced.append((n, by))
    return released


def _is_nearer(one: Binding, other: Binding, scope: str) -> bool:
    """Returns whether a call in `scope` takes the value of `one`, which is bound in an inner scope, and not that of `other`."""
    return one.arg == other.arg and len(one.scope) > len(other.scope) and _applies(one.scope, scope)


def _check_macros_used(reader: Reader, last: dict[str, int], released: dict[int, int]) -> None:
    """Raises ConfigError for a macro that was bound after all bindings that take it were released."""
    for number, b in enumerate(reader.bindings):
        users = [n for n, c in enumerate(reader.bindings) if b.selector in {r.name for r in references(c.value)}]
        if b.arg or last[b.name] != number or not users or not all(n in released for n in users):
            continue
        if number > max(released[n] for n in users):
            raise ConfigError(
                f"{b.location}: {b.name} has no effect: {reader.bindings[users[0]].name} takes it, and is not used any more"
            )
