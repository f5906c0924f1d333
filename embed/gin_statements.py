"""The statements of gin files with their locations: bindings, imports, includes in place.

gin itself forgets where a binding stood, and looks for included files in Python packages.
"""

import dataclasses
import importlib
import pathlib
import tokenize
from collections.abc import Iterator, Sequence
from typing import Any

import gin
from embed import documents
from embed.buckets import copies
from embed.errors import ConfigError

if not hasattr(gin, "parse_config"):
    raise ConfigError("`import gin` found a folder, not the package; run: pip install gin-config")

from gin import config_parser  # noqa: E402 - after the check that this is gin-config

_DEPTH = 50
FIRST_LINE = "from __gin__ import dynamic_registration"


@dataclasses.dataclass(frozen=True)
class Reference:
    """`@name`, `@name()` or `%MACRO` inside a value, kept unresolved."""

    name: str
    is_macro: bool


@dataclasses.dataclass(frozen=True)
class Binding:
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
        return Reference(scoped_configurable_name, is_macro=False)

    def macro(self, macro_name):
        return Reference(macro_name, is_macro=True)


def search_paths() -> list[pathlib.Path]:
    """Returns where gin files and their includes are looked for: here, then the repository's gin/ folder."""
    repository = pathlib.Path(__file__).resolve().parent.parent
    return [pathlib.Path.cwd(), repository / "gin", repository]


def find(name: str, location: str) -> pathlib.Path:
    """Returns the gin file of this name, which stands at `location`; ConfigError where there is none."""
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


class Reader:
    """Collects the statements of gin files, includes in place, with their locations.

    gin would look for an included 'runs/train.gin' in a Python package `runs` too, and fail on a folder of that name; so it
    is given one text, `lines`, and `locations` says where each of its lines stands.
    """

    def __init__(self):
        self.bindings: list[Binding] = []
        self.modules: dict[str, str] = {}  # name in the file -> dotted module
        self.lines: list[str] = [FIRST_LINE]
        self.locations: list[str] = [""]

    def read(self, path: pathlib.Path, depth: int = 0) -> None:
        if depth > _DEPTH:
            raise ConfigError(f"{path}: includes nest deeper than {_DEPTH}; does a file include itself?")
        seen: dict[str, str] = {}
        text = _text_of(path)
        if FIRST_LINE not in text.splitlines():
            raise ConfigError(f"{path}:1: the first line must be: {FIRST_LINE}")
        text = copies.localized(text)
        lines, copied = text.splitlines(), 0
        for statement in self._parse(text, str(path)):
            location = f"{path}:{statement.location.line_num}"
            if isinstance(statement, config_parser.IncludeStatement):
                self._copy(path, lines, copied, statement.location.line_num - 1)
                copied, before = statement.location.line_num, len(self.bindings)
                self.read(find(statement.filename, location), depth + 1)
                self._check_above(seen, self.bindings[before:])
            elif isinstance(statement, config_parser.ImportStatement):
                self._import(statement, location)
            else:
                self._bind(statement, location, seen)
        self._copy(path, lines, copied, len(lines))

    def _check_above(self, seen: dict[str, str], included: Sequence[Binding]) -> None:
        """Raises ConfigError for a binding above an include whose file binds the same name: it would have no effect."""
        for b in included:
            if b.name in seen:
                raise ConfigError(
                    f"{seen[b.name]}: {b.name} is overridden at {b.location}, in a file that is included below; move it below the "
                    "include"
                )

    def _copy(self, path: pathlib.Path, lines: list[str], start: int, stop: int) -> None:
        for number in range(start, stop):
            self.lines.append("" if lines[number] == FIRST_LINE else lines[number])
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
        b = Binding(statement.scope or "", statement.selector, statement.arg_name or "", statement.value, location)
        if b.name in seen:
            raise ConfigError(f"{location}: {b.name} is bound twice, first at {seen[b.name]}; keep one of them")
        seen[b.name] = location
        self.bindings.append(b)


def holds_reference(value: Any) -> bool:
    """Returns whether a value holds a reference or a macro."""
    if isinstance(value, Reference):
        return True
    if isinstance(value, dict):
        return any(map(holds_reference, [*value, *value.values()]))
    return isinstance(value, list | tuple) and any(map(holds_reference, value))


def references(value: Any) -> Iterator[Reference]:
    """Yields the references and macros in a value."""
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, dict):
        for item in [*value, *value.values()]:
            yield from references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)
