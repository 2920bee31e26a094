"""Packages that not everybody has installed."""

from __future__ import annotations

import importlib
from typing import Any

from stemwise.errors import ModelError

EXTRAS = {
    "midi": ("symusic",),
    "eval": ("scipy", "torchmetrics", "matplotlib", "librosa", "transformers", "platformdirs"),
    "latents": ("diffusers", "transformers", "accelerate"),
    "train": ("lightning", "tensorboard", "scipy", "symusic"),
    "av": ("av",),
}
"""Packages that each extra brings; for a package of several the first is the one to install."""


def extra_of(package: str) -> str | None:
    """The extra that brings a package, given with or without its submodule."""
    return next((extra for extra, packages in EXTRAS.items() if package.partition(".")[0] in packages), None)


def needed(package: str, extra: str) -> Any:
    """Import a package that comes with an extra of stemwise. Raises ModelError with how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ModelError(
            f"this needs {package.partition('.')[0]}; install it with: pip install 'stemwise[{extra}]' ({error})"
        ) from error
