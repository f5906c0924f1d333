"""Gin files, read strictly. The only file that knows gin.

gin itself accepts duplicate bindings, wrong types, bindings nobody uses and holes nobody filled; here each is a one-line
error with file and line. A gin file is code (its imports run) and is trusted like code; nothing here ever reads gin out of
a checkpoint or bundle.
"""

import contextlib
import dataclasses
import functools
import importlib
import inspect
import operator
import pathlib
import re
import tokenize
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

import beartype
from beartype.door import is_bearable

import gin
from embed import documents, errors, ranges
from embed.buckets import addresses, copies
from embed.errors import ConfigError, EmbedError, did_you_mean

if not hasattr(gin, "parse_config"):
    raise ConfigError("`import gin` found a folder, not the package; run: pip install gin-config")

from gin import config as gin_config  # noqa: E402 - after the check that this is gin-config
from gin import config_parser  # noqa: E402

_DEPTH = 50
_FIRST_LINE = "from __gin__ import dynamic_registration"
_TOWER = beartype.BeartypeConf(is_pep484_tower=True)  # an int is fine where a float is asked for


@dataclasses.dataclass(frozen=True)
class _Reference:
    """`@name`, `@name()` or `%MACRO` inside a value, kept unresolved."""

    name: str
    is_macro: bool


@dataclasses.dataclass(frozen=True)
class _Binding:
    """One `scope/selector.arg = value` and where it stands."""

    scope: str
    selector: str
    arg: str
    value: Any
    location: str

    @property
    def name(self) -> str:
        return f"{self.scope + '/' if self.scope else ''}{self.selector}{'.' + self.arg if self.arg else ''}"


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name, evaluate):
        return _Reference(scoped_configurable_name, is_macro=False)

    def macro(self, macro_name):
        return _Reference(macro_name, is_macro=True)


def search_paths() -> list[pathlib.Path]:
    """Returns where gin files and their includes are looked for: here, then the repository's gin/ folder."""
    repository = pathlib.Path(__file__).resolve().parent.parent
    return [pathlib.Path.cwd(), repository / "gin", repository]


def _find(name: str, location: str) -> pathlib.Path:
    if pathlib.Path(name).is_absolute() and pathlib.Path(name).is_file():
        return pathlib.Path(name)
    for folder in search_paths():
        if (folder / name).is_file():
            return folder / name
    looked = ", ".join(str(p) for p in search_paths())
    raise ConfigError(f"{location}: no gin file {name!r}; looked in {looked}")


def _text_of(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: not valid UTF-8 at byte {e.start}; convert the file to UTF-8") from e
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror or e}); check its permissions") from e


class _Reader:
    """Collects the statements of gin files, includes in place, with their locations.

    gin would look for an included 'runs/train.gin' in a Python package `runs` too, and fail on a folder of that name; so it
    is given one text, `lines`, and `locations` says where each of its lines stands.
    """

    def __init__(self):
        self.bindings: list[_Binding] = []
        self.modules: dict[str, str] = {}  # name in the file -> dotted module
        self.lines: list[str] = [_FIRST_LINE]
        self.locations: list[str] = [""]

    def read(self, path: pathlib.Path, depth: int = 0) -> None:
        if depth > _DEPTH:
            raise ConfigError(f"{path}: includes nest deeper than {_DEPTH}; does a file include itself?")
        seen: dict[str, str] = {}
        text = _text_of(path)
        if _FIRST_LINE not in text.splitlines():
            raise ConfigError(f"{path}:1: the first line must be: {_FIRST_LINE}")
        text = copies.localized(text)
        lines, copied = text.splitlines(), 0
        for statement in self._parse(text, str(path)):
            location = f"{path}:{statement.location.line_num}"
            if isinstance(statement, config_parser.IncludeStatement):
                self._copy(path, lines, copied, statement.location.line_num - 1)
                copied = statement.location.line_num
                self.read(_find(statement.filename, location), depth + 1)
            elif isinstance(statement, config_parser.ImportStatement):
                self._import(statement, location)
            else:
                self._bind(statement, location, seen)
        self._copy(path, lines, copied, len(lines))

    def _copy(self, path: pathlib.Path, lines: list[str], start: int, stop: int) -> None:
        for number in range(start, stop):
            self.lines.append("" if lines[number] == _FIRST_LINE else lines[number])
            self.locations.append(f"{path}:{number + 1}")

    def read_binding(self, text: str) -> None:
        """Reads one NAME=VALUE of the command line, after all files. A bare word is taken as a string."""
        location = f"--gin.{text}"
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"{location}: expected --gin.NAME=VALUE")
        try:
            list(config_parser.ConfigParser(f"{name} = {value}", _Delegate()))
        except SyntaxError:
            value = repr(value)
        except tokenize.TokenError as e:
            raise ConfigError(f"{location}: {documents.first_line(e)}; a bracket or a quote is not closed") from e
        value = copies.localized(value)
        statements = self._parse(f"{name} = {value}", "--gin")
        if len(statements) != 1 or not isinstance(statements[0], config_parser.BindingStatement):
            raise ConfigError(f"{location}: expected one --gin.NAME=VALUE; give each binding an option of its own")
        self._bind(statements[0], location, {})
        self.lines.append(f"{name} = {value}")
        self.locations.append(location)

    def _parse(self, text: str, path: str):
        try:
            return list(config_parser.ConfigParser(text, _Delegate()))
        except (SyntaxError, ValueError, RecursionError, tokenize.TokenError) as e:
            line = e.args[1][0] if isinstance(e, tokenize.TokenError) else getattr(e, "lineno", None)
            message = " ".join((getattr(e, "msg", None) or str(e.args[0]) or type(e).__name__).split())
            raise ConfigError(f"{path}{f':{line}' if line else ''}: {message}") from e

    def _import(self, statement, location: str) -> None:
        if statement.module.startswith("__gin__"):
            return
        try:
            importlib.import_module(statement.module)
        except Exception as e:  # a module of the user's may fail in any way
            reason = documents.first_line(e)
            raise ConfigError(f"{location}: cannot import {statement.module!r} ({type(e).__name__}: {reason})") from e
        last = statement.module.rpartition(".")[2]
        self.modules[statement.alias or (last if statement.is_from else statement.module)] = statement.module

    def _bind(self, statement, location: str, seen: dict[str, str]) -> None:
        b = _Binding(statement.scope or "", statement.selector, statement.arg_name or "", statement.value, location)
        if b.name in seen:
            raise ConfigError(f"{location}: {b.name} is bound twice, first at {seen[b.name]}; keep one of them")
        seen[b.name] = location
        self.bindings.append(b)


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


def _holds_reference(value) -> bool:
    if isinstance(value, _Reference):
        return True
    if isinstance(value, dict):
        return any(map(_holds_reference, [*value, *value.values()]))
    return isinstance(value, list | tuple) and any(map(_holds_reference, value))


def _references(value):
    if isinstance(value, _Reference):
        yield value
    elif isinstance(value, dict):
        for item in [*value, *value.values()]:
            yield from _references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _references(item)


def _check(reader: _Reader) -> None:
    """Checks every binding: known names, known parameters, types of literals, filled holes."""
    macros = {b.selector for b in reader.bindings if not b.arg}
    final: dict[str, _Binding] = {}
    for b in reader.bindings:
        final[b.name] = b
        for reference in _references(b.value):
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
        if b.value == _Reference("gin.REQUIRED", is_macro=True):
            raise ConfigError(
                f"{b.location}: {b.name} must be set; give --gin.{b.name}=VALUE or bind it in your gin file"
            )


def _used_macros(reader: _Reader) -> set[str]:
    return {r.name for b in reader.bindings for r in _references(b.value) if r.is_macro}


def _check_type(binding: _Binding, hint: Any, final: dict[str, _Binding]) -> None:
    value, location = binding.value, binding.location
    if isinstance(value, _Reference) and value.is_macro and value.name in final:
        value, location = final[value.name].value, final[value.name].location
    if _holds_reference(value):
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
def _one_line_errors(reader: _Reader):
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
    reader = _Reader()
    for name in gin_files:
        reader.read(_find(name, f"--gin_file={name}"))
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
    reader = _Reader()
    for name in gin_files:
        reader.read(_find(name, f"--gin_file={name}"))
    code = [addresses.restored(line).partition(" # ")[0].rstrip() for line in reader.lines]
    return documents.digest_json([line for line in code if line and not line.startswith("#")])


def _check_final_types(reader: _Reader) -> None:
    """Checks each binding that takes a macro against the macro's last value, which a later line may have given."""
    final = {b.name: b for b in reader.bindings}
    for b in final.values():
        if b.arg and isinstance(b.value, _Reference) and b.value.is_macro:
            parameters = _parameters(_resolve(b.selector, reader.modules, b.location))
            if b.arg in parameters and b.value.name in final:
                _check_type(b, parameters[b.arg], final)


def _call(target: Callable, reader: _Reader):
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


def _check_used(reader: _Reader) -> None:
    """Raises ConfigError for a binding that no built object took.

    gin knows an object by the import that named it, which may be a package that takes the object from its own modules.
    """
    operative = [
        (gin_config._REGISTRY[selector].wrapped, scope, set(arguments))
        for (scope, selector), arguments in gin_config._OPERATIVE_CONFIG.items()
    ]
    for b in reader.bindings:
        if not b.arg:
            continue
        target = _resolve(b.selector, reader.modules, b.location)
        takers = [a for built, scope, a in operative if built is target and (not b.scope or b.scope in scope)]
        if not any(b.arg in arguments for arguments in takers):
            used = [built.__name__ for built, _, _ in operative if not built.__module__.startswith("gin.")]
            raise ConfigError(
                f"{b.location}: {b.name} is never used; the recipe is built from {', '.join(sorted(set(used)))}"
            )
