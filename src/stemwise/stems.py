"""Named signals that belong together, and how they mix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stemwise.errors import QueryError

Part = frozenset[str]
"""A set of stem names: one name is a stem, several are a sub-mix. Order comes from a `Stems`' names, never from a
set.
"""

REST = "rest"
"""The reserved name of the complement of a part; no stem may be called so."""


@dataclass(frozen=True, eq=False)
class Audio:
    """Stems as waveforms: ``data`` is float (batch, stem, channel, time) at ``rate`` hertz; parts mix by sum.

    ``audio["bass"]`` and ``audio[{"bass", "drums"}]`` are (batch, channel, time). Raises `QueryError` for unknown
    names. ``mixture`` (batch, channel, time) is the mix where it is known bit for bit, beyond the rounding of a sum.
    """

    names: tuple[str, ...]
    data: Tensor
    rate: int
    mixture: Tensor | None = None

    def __post_init__(self) -> None:
        check_names(self.names)
        if self.data.dim() != 4 or self.data.shape[1] != len(self.names):
            raise QueryError(
                f"stems {', '.join(self.names)} need data of shape (batch, {len(self.names)}, channel, time); "
                f"got {tuple(self.data.shape)}"
            )

    @classmethod
    def of(cls, stems: Mapping[str, Tensor], rate: int) -> Audio:
        """Stems from a mapping of name to (channel, time) or (batch, channel, time), all of one shape."""
        data = torch.stack([x if x.dim() == 3 else x[None] for x in stems.values()], dim=1)
        return cls(tuple(stems), data, rate)

    def __getitem__(self, part: str | Iterable[str]) -> Tensor:
        return self.data[:, self._indices(part)].sum(1)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def frames(self) -> int:
        """Length in samples."""
        return int(self.data.shape[-1])

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate

    def mix(self) -> Tensor:
        """The sum of all stems (batch, channel, time)."""
        return self.data.sum(1) if self.mixture is None else self.mixture

    def select(self, names: Iterable[str]) -> Audio:
        """The named stems alone, in the order asked for."""
        chosen = tuple(names)
        return Audio(chosen, self.data[:, [self._index(name) for name in chosen]], self.rate)

    def numpy(self) -> dict[str, object]:
        """The first item of the batch as a mapping from name to array (channel, time)."""
        return {name: self.data[0, i].cpu().numpy() for i, name in enumerate(self.names)}

    def _indices(self, part: str | Iterable[str]) -> list[int]:
        names = {part} if isinstance(part, str) else set(part)
        unknown = names - set(self.names)
        if unknown:
            self._index(sorted(unknown)[0])
        return [i for i, name in enumerate(self.names) if name in names]

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise QueryError(f"no stem named {name!r} here; there are: {', '.join(self.names)}")
        return self.names.index(name)


def check_names(names: Iterable[str]) -> None:
    """Stem names are unique, not empty, and not the reserved `rest`."""
    seen: set[str] = set()
    for name in names:
        if not name or name == REST or name in seen:
            why = "is reserved for the complement" if name == REST else "is empty" if not name else "appears twice"
            raise QueryError(f"stem name {name!r} {why}; give every stem a name of its own")
        seen.add(name)


def known_names(names: Sequence[str], known: Sequence[str], owner: str = "there are") -> tuple[str, ...]:
    """The names without repetition. Raises `QueryError` with a suggestion for one that is not known."""
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise QueryError(f"no stem named {name!r}{hint}; {owner}: {', '.join(known)}")
    return tuple(dict.fromkeys(names))
