"""Packages that not everybody has installed."""

from __future__ import annotations

import importlib
from typing import Any

from stemwise.errors import ModelError


def needed(package: str, extra: str) -> Any:
    """Import a package that comes with an extra of stemwise. Raises ModelError with how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ModelError(
            f"this needs {package.partition('.')[0]}; install it with: pip install 'stemwise[{extra}]' ({error})"
        ) from error
