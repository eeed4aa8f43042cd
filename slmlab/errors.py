"""The one error that a person is meant to read."""

from importlib import import_module
from typing import Any


class LabError(ValueError):
    """A mistake in what came from outside: text, sound, files, settings.

    Its message is one sentence for a person: what is wrong, where, what was found and expected, what to do.
    """


def import_extra(module: str, asking: str, package: str = "") -> Any:
    """A module that not everybody has; LabError says what asks for it, and how its package is installed."""
    try:
        return import_module(module)
    except ImportError:
        raise LabError(f"{asking} needs {module}: run `pip install {package or module}`.") from None
