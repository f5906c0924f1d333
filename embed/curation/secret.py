"""The endpoint's key, and how it is kept out of everything that is printed or written."""

import re

from embed.errors import UsageError

_MARK = "[key removed]"
_MIN_LENGTH = 5  # a shorter key stands in ordinary texts by chance, so that it cannot be told from them


class Secret:
    """Removes one key from texts, however its characters are escaped. An empty key removes nothing."""

    mark = _MARK

    def __init__(self, key: str, variable: str):
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise UsageError(f"{variable}: the key holds characters that no key has; set it again")
        if 0 < len(key) < _MIN_LENGTH:
            raise UsageError(
                f"{variable}: a key of {len(key)} characters is too short to be kept out of texts; set one of at least "
                f"{_MIN_LENGTH}, or unset the variable for a server that needs none"
            )
        self._pattern = re.compile("".join(map(_escaped, key))) if key else None

    def is_in(self, text: str) -> bool:
        """Returns whether `text` holds the key."""
        return self._pattern is not None and self._pattern.search(text) is not None

    def remove(self, text: str) -> str:
        """Returns `text` with a mark in place of the key."""
        return text if self._pattern is None else self._pattern.sub(_MARK, text)


def _escaped(character: str) -> str:
    """Returns a pattern for a character as it is, or as JSON (nested or not), Python or a URL may escape it."""
    code = f"(?i:{ord(character):02x})"
    return rf"(?:{re.escape(character)}|\\+{re.escape(character)}|\\+u00{code}|\\+x{code}|%{code})"


def printable(text: str, max_length: int = 160) -> str:
    """Returns the beginning of a text that a server sent, in one line without characters that command a terminal."""
    cut = text[: 4 * max_length]
    return " ".join("".join(c if c.isprintable() else " " for c in cut).split())[:max_length]
