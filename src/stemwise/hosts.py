"""Operations answer alike, whatever the program around them has switched on in PyTorch."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

DEVICES = ("cpu", "cuda", "mps")


def without_autocast(operation: Callable[P, R]) -> Callable[P, R]:
    """Calls it outside any `torch.autocast` of the caller's: spectra and sums are float32, a network has a precision of its own."""

    @functools.wraps(operation)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with contextlib.ExitStack() as stack:
            for device in DEVICES:
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            return operation(*args, **kwargs)

    return called
