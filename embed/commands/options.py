"""Types of command-line options: paths, and numbers with the ranges of `embed.ranges`. For `add_argument(type=...)`."""

import argparse
import typing
from collections.abc import Callable
from typing import Any

from embed import ranges


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
