"""The header Retry-After of an HTTP response (RFC 9110, section 10.2.3)."""

import email.utils
import math
import time
from collections.abc import Mapping


def seconds(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds that a server asks to wait, given as a number or as a date; None where the header is missing or wrong."""
    value = headers.get("retry-after", "")
    try:
        wait = float(value)
    except ValueError:
        try:
            wait = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError, TypeError):
            return None
    return None if math.isnan(wait) else max(0.0, wait)
