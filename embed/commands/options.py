"""What several commands share: the types of options (for `add_argument(type=...)`), gin files, the log beside an output."""

import argparse
import pathlib
import typing
from collections.abc import Callable
from typing import Any

from embed import console, ranges
from embed.errors import UsageError


def path(text: str) -> str:
    """Returns a path as it was given; an empty one is an error."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty path; give a file or a folder")
    return text


def of(hint: Any) -> Callable[[str], Any]:
    """Returns the function from an option's text to a number of type `hint`."""
    kind = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint

    def number(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError as e:
            raise argparse.ArgumentTypeError(f"{text!r} is not {'an integer' if kind is int else 'a number'}") from e
        reason = ranges.problem(value, hint)
        if reason is not None:
            raise argparse.ArgumentTypeError(f"{text}: {reason}")
        return value

    number.hint = hint
    return number


count, natural, positive = of(ranges.Count), of(ranges.Natural), of(ranges.Positive)
non_negative, share, finite = of(ranges.NonNegative), of(ranges.Share), of(float)


def add_gin_arguments(parser) -> None:
    """Adds --gin_file; `embed.commands.main` collects --gin.NAME=VALUE into `arguments.gin_bindings`."""
    parser.add_argument(
        "--gin_file",
        action="append",
        type=path,
        default=[],
        metavar="FILE",
        help="gin file; may be given again",
    )
    parser.set_defaults(gin_bindings=())
    bindings = "--gin.NAME=VALUE overrides a binding of the gin files, e.g. --gin.TRAIN_STEPS=200."
    parser.epilog = f"{bindings}\n\n{parser.epilog or ''}".rstrip()


def numbers(flag: str, text: str | None, kind: type = float) -> list | None:
    """Returns the comma-separated numbers of an option, None when it was not given."""
    try:
        return [kind(part) for part in text.split(",")] if text else None
    except ValueError as e:
        raise UsageError(f"--{flag}={text}: not numbers separated by commas") from e


def log_beside_output(arguments) -> pathlib.Path:
    """Returns where a command with --output, or OUTPUT, keeps what it cannot print any more."""
    return pathlib.Path(arguments.output) / console.LOG
