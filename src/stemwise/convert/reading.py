"""Pickled checkpoints, read without executing anything in them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stemwise.errors import ModelError


def read_pickle(file: Path, owner: str, give: str, stand_ins: Mapping[str, type] | None = None) -> dict[str, Any]:
    """The dictionary in a file, large tensors mapped from the disk where its format allows that.

    Classes that the file names are replaced by the empty `stand_ins` of those full names; one that names others is
    refused. `owner` is whose checkpoint it should be and `give` what to give instead, for errors. Raises ModelError.
    """
    if not file.is_file():
        raise ModelError(f"{file}: {'is a folder' if file.is_dir() else 'no such file'}; give {give}")
    with open(file, "rb") as handle:
        zipped = handle.read(4) == b"PK\x03\x04"  # older files cannot be mapped, and need twice the memory
    known = dict(stand_ins or {})
    try:
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in known.items()]):
            document = torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        strange = [name for name in _named(file) if name not in known]
        why = f"it names {', '.join(strange)}, which {owner}'s do not" if strange else "it is damaged or no checkpoint"
        raise ModelError(f"{file}: not a checkpoint of {owner}: {why}; nothing in it was run") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"{file}: not a checkpoint, or cut short ({error}); download it again") from error
    if not isinstance(document, dict):
        raise ModelError(f"{file}: holds a {type(document).__name__}; give {give}")
    return document


def _named(file: Path) -> list[str]:
    try:
        return list(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # whatever a damaged file makes the reader raise
        return []
