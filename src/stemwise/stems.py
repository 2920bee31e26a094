"""Named signals that belong together, and how they mix."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from stemwise.errors import QueryError, did_you_mean

Part = frozenset[str]
"""A set of stem names: one name is a stem, several are a sub-mix. Order comes from a `Stems`' names, never from a
set.
"""


@dataclass(frozen=True, eq=False)
class Audio:
    """Stems as waveforms: ``data`` is float (batch, stem, channel, time) at ``rate`` hertz; parts mix by sum.

    ``audio["bass"]`` and ``audio[{"bass", "drums"}]`` are (batch, channel, time). Raises `QueryError` for unknown
    names. ``mixture`` (batch, channel, time) is the mix where it is known bit for bit, beyond the rounding of a sum; it
    stands until ``data`` are changed.
    """

    names: tuple[str, ...]
    data: Tensor
    rate: int
    mixture: Tensor | None = None
    seal: tuple[Tensor, bytes] | None = field(default=None, repr=False)
    """The mixture with a digest of the sum of the stems when it was given."""

    def __post_init__(self) -> None:
        check_names(self.names)
        if self.data.dim() != 4 or self.data.shape[1] != len(self.names):
            raise QueryError(
                f"stems {', '.join(self.names)} need data of shape (batch, {len(self.names)}, channel, time); "
                f"got {tuple(self.data.shape)}"
            )
        if not self.data.is_floating_point():
            raise QueryError(
                f"the samples are {self.data.dtype}; give floats from -1 to 1, such as x / 32768 of 16-bit samples"
            )
        shape = (*self.data.shape[:1], *self.data.shape[2:])
        if self.mixture is not None and tuple(self.mixture.shape) != shape:
            raise QueryError(f"the mixture of these stems must have the shape {shape}; got {tuple(self.mixture.shape)}")
        if self.mixture is not None and (self.seal is None or self.seal[0] is not self.mixture):
            object.__setattr__(self, "seal", (self.mixture, _digest(self.data.sum(1))))

    @classmethod
    def of(cls, stems: Mapping[str, Tensor | np.ndarray], rate: int) -> Audio:
        """Stems from a mapping of name to (channel, time) or (batch, channel, time), all of one shape. Raises `QueryError`."""
        signals = {name: x if isinstance(x, Tensor) else torch.from_numpy(_native(x)) for name, x in stems.items()}
        if len({signal.shape for signal in signals.values()}) != 1 or next(iter(signals.values())).dim() not in (2, 3):
            said = ", ".join(f"{name} {tuple(signal.shape)}" for name, signal in signals.items())
            raise QueryError(
                f"stems must be (channel, time) or (batch, channel, time), all of one shape; got {said or 'none'}"
            )
        return cls(tuple(signals), torch.stack([x if x.dim() == 3 else x[None] for x in signals.values()], dim=1), rate)

    def __getitem__(self, part: str | Iterable[str]) -> Tensor:
        return self.data[:, indices(part, self.names)].sum(1)

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
        """The sum of all stems (batch, channel, time), a tensor of its own; as it is known, if the stems are as they were."""
        return self.mixture.clone() if self.mixture is not None and self.intact else self.data.sum(1)

    @property
    def intact(self) -> bool:
        """Whether the stems sum to what they did when their mixture was given."""
        return self.seal is not None and self.seal[1] == _digest(self.data.sum(1))

    def select(self, names: str | Iterable[str]) -> Audio:
        """The named stems alone, in the order asked for."""
        chosen = named(names)
        return Audio(chosen, self.data[:, [index(name, self.names) for name in chosen]], self.rate)

    def numpy(self) -> dict[str, np.ndarray]:
        """The first item of the batch as a mapping from name to array (channel, time); on the CPU they share its memory."""
        return {name: self.data[0, i].detach().cpu().numpy() for i, name in enumerate(self.names)}


@dataclass(frozen=True, eq=False)
class Rolls:
    """Stems as piano rolls: ``data`` is uint8 (batch, stem, time, pitch); parts mix by max.

    A cell is 0 where the pitch is silent, 1 where it sounds and 2 where a note of it begins, so that notes that follow
    each other stay apart; rolls that know no onsets have no 2. ``steps`` is how many cells of time a quarter note has,
    ``lowest`` the MIDI pitch of the first row. ``rolls["bass"]`` and ``rolls[{"bass", "drums"}]`` are (batch, time, pitch).
    """

    names: tuple[str, ...]
    data: Tensor
    steps: int = 4
    lowest: int = 24

    def __post_init__(self) -> None:
        check_names(self.names)
        if self.data.dim() != 4 or self.data.shape[1] != len(self.names) or self.data.dtype != torch.uint8:
            raise QueryError(
                f"rolls of {', '.join(self.names)} need uint8 data of shape (batch, {len(self.names)}, time, pitch); "
                f"got {self.data.dtype} {tuple(self.data.shape)}"
            )

    def __getitem__(self, part: str | Iterable[str]) -> Tensor:
        rows = indices(part, self.names)
        return self.data[:, rows].amax(1) if rows else torch.zeros_like(self.data[:, 0])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def mix(self) -> Tensor:
        """All stems at once (batch, time, pitch): who plays what is gone."""
        return self.data.amax(1)

    def sounding(self) -> Tensor:
        """Where anything sounds: bool, the shape of the data."""
        return self.data > 0

    def select(self, names: str | Iterable[str]) -> Rolls:
        """The named stems alone, in the order asked for."""
        chosen = named(names)
        return replace(self, names=chosen, data=self.data[:, [index(name, self.names) for name in chosen]])


def _native(array: np.ndarray) -> np.ndarray:
    """The array where tensors can share its memory, else a copy: in order, writable, in the machine's byte order."""
    array = np.asarray(array)
    if not np.issubdtype(array.dtype, np.number):
        raise QueryError(f"the samples are {array.dtype}; give floats from -1 to 1")
    return np.require(array, array.dtype.newbyteorder("="), ["C", "W"])


def _digest(signal: Tensor) -> bytes:
    plain = signal.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.blake2b(plain.numpy().data, digest_size=16).digest()


def indices(part: str | Iterable[str], names: Sequence[str]) -> list[int]:
    """Where the stems of a part are among names, in their order. Raises `QueryError` for one that is not there."""
    wanted = {part} if isinstance(part, str) else set(part)
    for unknown in sorted(wanted - set(names)):
        index(unknown, names)
    return [i for i, name in enumerate(names) if name in wanted]


def index(name: str, names: Sequence[str]) -> int:
    """Where a stem is among names. Raises `QueryError` if it is not there."""
    if name not in names:
        raise QueryError(f"no stem named {name!r} here; there are: {', '.join(names)}")
    return list(names).index(name)


def check_names(names: Iterable[str]) -> None:
    """Stem names are unique and not empty."""
    seen: set[str] = set()
    for name in names:
        if not name or name in seen:
            why = "appears twice" if name else "is empty"
            raise QueryError(f"stem name {name!r} {why}; give every stem a name of its own")
        seen.add(name)


def named(names: str | Iterable[str]) -> tuple[str, ...]:
    """Several names, or a single one."""
    return (names,) if isinstance(names, str) else tuple(names)


def known_names(names: Sequence[str], known: Sequence[str], owner: str = "there are") -> tuple[str, ...]:
    """The names without repetition. Raises `QueryError` with a suggestion for one that is not known."""
    names = named(names)
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise QueryError(f"no stem named {name!r}{hint}; {owner}: {', '.join(known)}")
    return tuple(dict.fromkeys(names))
