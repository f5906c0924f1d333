"""What several commands share: the types of options (for `add_argument(type=...)`), gin files, the log beside an output."""

import argparse
import pathlib
import typing
from collections.abc import Callable
from typing import Annotated, Any

from msgspec import Meta

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


def up_to(maximum: int, minimum: int = 1) -> Callable[[str], Any]:
    """Returns the type of an option that is an integer of this range."""
    return of(Annotated[int, Meta(ge=minimum, le=maximum)])


KEY_VARIABLE = "EMBED_API_KEY"
_SECONDS = of(Annotated[float, Meta(gt=0, le=86_400)])


def add_endpoint_arguments(parser) -> None:
    """Adds what every command that asks an OpenAI-compatible endpoint takes."""
    parser.add_argument("--endpoint", help="base URL, such as http://localhost:8000/v1")
    parser.add_argument("--model", help="the model's name there")
    parser.add_argument(
        "--key_variable", default=KEY_VARIABLE, help=f"environment variable that holds the key ({KEY_VARIABLE})"
    )
    parser.add_argument(
        "--max_requests",
        type=count,
        help="most HTTP requests in all: retries, failures and runs before are counted",
    )
    parser.add_argument(
        "--max_tokens",
        type=count,
        help="most tokens in all, in and out; a request must fit with all that it can cost",
    )
    parser.add_argument("--concurrency", type=up_to(1024), default=8, help="requests at once (8)")
    parser.add_argument("--attempts", type=up_to(1000), default=8, help="tries of a request that fails (8)")
    parser.add_argument(
        "--first_wait", type=_SECONDS, default=1.0, help="seconds before the second try, then doubled (1)"
    )
    parser.add_argument("--deadline", type=_SECONDS, default=120.0, help="seconds a request may take (120)")


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
