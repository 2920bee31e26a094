"""Networks of transformers with weights from a folder or the Hugging Face cache. Nothing is downloaded here."""

from __future__ import annotations

from typing import Any

from stemwise.errors import ModelError
from stemwise.extras import needed


def of_transformers(kind: str, source: str, extra: str = "eval", **options: Any) -> Any:
    """A class of transformers by name, with the weights (or the files) of `source`. Raises ModelError with the remedy.

    `extra` is what installs transformers for the caller's purpose; `options` are those of `from_pretrained`.
    """
    transformers = needed("transformers", extra)
    try:
        return getattr(transformers, kind).from_pretrained(source, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{source}: no weights of {kind} in this folder or in the Hugging Face cache ({reason}). With a network, "
            f"`hf download {source}` puts them into the cache; for a machine without one, add --local-dir FOLDER, copy "
            "the folder, and give its path"
        ) from error
