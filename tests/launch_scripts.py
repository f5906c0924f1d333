"""Python files of launch/ as modules."""

import importlib
import pathlib
import sys
from unittest import mock

LAUNCH = pathlib.Path(__file__).resolve().parents[1] / "launch"


def script(name: str):
    """Returns launch/NAME.py as a module. What it imports from launch/ is found as when the file is run."""
    with mock.patch.object(sys, "path", [str(LAUNCH), *sys.path]):
        return importlib.import_module(name)
