"""Changes to foreign folders, and the one line with which reading them is refused."""

import json

import pytest

from embed.errors import DataError
from embed.interop import source as sources


def edit(path, change=None, **values) -> None:
    """Changes the object of a JSON file, which may be missing: by `change`, or by entries that are set.

    Those of an encoder-decoder are set in its encoder.
    """
    content = json.loads(path.read_text()) if path.is_file() else {}
    if change is not None:
        change(content)
    if values:
        content.get("encoder", content).update(values)
    path.write_text(json.dumps(content))


def error(folder, kind=DataError, **options) -> str:
    """Returns the one line with which `read` refuses a folder."""
    with pytest.raises(kind) as e:
        sources.read(folder, **options)
    assert "\n" not in str(e.value)
    return str(e.value)
