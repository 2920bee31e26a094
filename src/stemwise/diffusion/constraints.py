"""Hard evidence: the affine set of states that agrees with what was heard.

A constraint *lifts* free coordinates u to a full state x at noise level sigma, and *pulls* a full-state vector back by
the adjoint of the lift's linear part. Free coordinates have the state's own shape, so slot indices mean the same in
every composition; what is not free is ignored by `lift` and zero after `pull`.

Restricting the *noised* density to the plane of the *clean* mixture is the approximation of MSDM (Mariani et al. 2024),
not the exact conditional; the Gaussian oracles in the tests measure the gap. `guidance.project` acts on the denoised
estimate instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from stemwise.diffusion.denoisers import Denoiser, NoiseSource, align, slot_mask
from stemwise.errors import QueryError


class Constraint(Protocol):
    """An affine set of states, with coordinates on it."""

    def lift(self, u: Tensor, sigma: Tensor | float, /) -> Tensor:
        """The full state at noise level sigma that belongs to free coordinates u. Pure."""
        ...

    def pull(self, v: Tensor, /) -> Tensor:
        """The adjoint of the lift's linear part: <lift(u) - lift(0), v> = <u, pull(v)>. Pure."""
        ...

    def noise(self, source: NoiseSource, /) -> Tensor:
        """White noise in the free coordinates (noise belongs to the space), zero where nothing is free."""
        ...

    def fresh(self, source: NoiseSource, /) -> Constraint:
        """The same evidence with what is random in it drawn anew; itself where nothing is."""
        return self

    def claim(self) -> Tensor:
        """Which positions of the state the evidence decides, alone or together: bool, the state's shape."""
        ...

    def then(self, inner: Constraint) -> Constraint:
        """Both at once: self.lift after inner.lift. Raises QueryError naming both where they decide the same thing."""
        mine, other = self.claim(), inner.claim()
        if mine.shape != other.shape:
            raise QueryError(f"{self} is for states {tuple(mine.shape)}, {inner} for {tuple(other.shape)}")
        if bool((mine & other.to(mine.device)).any()):
            raise QueryError(
                f"{self} and {inner} decide the same part of the state: combine what was heard first, "
                "e.g. subtract a known stem from the mixture and sum over the rest"
            )
        return Composed(self, inner)


@dataclass(frozen=True)
class Free(Constraint):
    """Nothing was heard: every state of this shape."""

    shape: tuple[int, ...]

    def lift(self, u: Tensor, sigma: Tensor | float, /) -> Tensor:
        """x = u."""
        return u

    def pull(self, v: Tensor, /) -> Tensor:
        """The identity."""
        return v

    def noise(self, source: NoiseSource, /) -> Tensor:
        """Noise of the state's shape."""
        return source(self.shape)

    def claim(self) -> Tensor:
        """Nothing."""
        return torch.zeros((), dtype=torch.bool).expand(self.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Known(Constraint):
    """Positions whose clean value is known: x = value + sigma n there, for priors whose slots share one noise level.

    `values` has the state's shape, `mask` is a bool tensor broadcastable to it (True = known; over any axes: whole
    stems, spans of time). `fresh` draws n anew, as RePaint and MSDM do each step; before that the known part is clean.
    The noised context says less than the clean one: with a Gaussian pair of correlation 0.8 a single pass reaches about
    half of the conditional mean, 16 resamplings all of it. Models with a level per slot bind clean slots instead.
    """

    values: Tensor
    mask: Tensor
    draw: Tensor | None = None

    @classmethod
    def held(cls, values: Tensor, mask: Tensor, source: NoiseSource) -> Held:
        """One draw of n for the whole trajectory."""
        return Held(cls(values, mask).fresh(source))

    def lift(self, u: Tensor, sigma: Tensor | float, /) -> Tensor:
        """The known values, noised, where known; u elsewhere."""
        known = self.values if self.draw is None else self.values + align(sigma, u) * self.draw
        return torch.where(self.mask, known, u)

    def pull(self, v: Tensor, /) -> Tensor:
        """V where not known."""
        return v.masked_fill(self.mask, 0)

    def noise(self, source: NoiseSource, /) -> Tensor:
        """Noise where not known."""
        return self.pull(source(tuple(self.values.shape)))

    def fresh(self, source: NoiseSource, /) -> Known:
        """Redraw n (drawn for the full state, used where known)."""
        return replace(self, draw=source(tuple(self.values.shape)))

    def claim(self) -> Tensor:
        """The mask."""
        return self.mask.expand(self.values.shape)

    def __repr__(self) -> str:
        return f"Known(slots {_slots(self.claim())})"


@dataclass(frozen=True)
class Held(Constraint):
    """A constraint whose random draw is kept for the whole trajectory."""

    inner: Constraint

    def lift(self, u: Tensor, sigma: Tensor | float, /) -> Tensor:
        """As the inner constraint, with its draw."""
        return self.inner.lift(u, sigma)

    def pull(self, v: Tensor, /) -> Tensor:
        """As the inner constraint."""
        return self.inner.pull(v)

    def noise(self, source: NoiseSource, /) -> Tensor:
        """As the inner constraint."""
        return self.inner.noise(source)

    def fresh(self, source: NoiseSource, /) -> Constraint:
        """Itself."""
        return self

    def claim(self) -> Tensor:
        """As the inner constraint."""
        return self.inner.claim()


@dataclass(frozen=True, eq=False, repr=False)
class Support(Constraint):
    """States that are zero outside `mask` (bool, the state's shape): Mixture2Music's notes in need of an instrument."""

    mask: Tensor

    def lift(self, u: Tensor, sigma: Tensor | float, /) -> Tensor:
        """U inside the mask, zero outside, at every noise level."""
        return u * self.mask

    def pull(self, v: Tensor, /) -> Tensor:
        """V inside the mask."""
        return v * self.mask

    def noise(self, source: NoiseSource, /) -> Tensor:
        """Noise inside the mask."""
        return self.pull(source(tuple(self.mask.shape)))

    def claim(self) -> Tensor:
        """Everything outside the mask."""
        return ~self.mask

    def __repr__(self) -> str:
        return f"Support(slots {_slots(self.claim())})"


@dataclass(frozen=True, eq=False, repr=False)
class SumTo(Constraint):
    """The slots in `part` sum to `mix`; slot `drop` is eliminated: MSDM's Dirac likelihood in the paper's coordinates.

    x_drop = mix - the others, d_k = e_k - e_drop. For replaying published loops: coordinates are skewed, so the
    restricted denoiser is not an x0 estimate; one-step, clamping and multistep rules use `SumEven` or
    `guidance.project`. `mix` has the state's shape without its slots, `slots` is how many those are.
    """

    part: tuple[int, ...]
    mix: Tensor
    drop: int
    slots: int

    def __post_init__(self) -> None:
        _check_part(self.part, self.slots)
        if self.drop not in self.part:
            raise QueryError(f"the eliminated slot {self.drop} is not among the slots {self.part} of the sum")

    def lift(self, u: Tensor, sigma: Tensor | float, /) -> Tensor:
        """U with slot `drop` replaced by mix minus the rest of the part."""
        drop = slot_mask((self.drop,), u)
        rest = u * (slot_mask(self.part, u) & ~drop)
        return torch.where(drop, self.mix.unsqueeze(1) - rest.sum(1, keepdim=True), u)

    def pull(self, v: Tensor, /) -> Tensor:
        """v_k - v_drop in the part, 0 at `drop`."""
        return v - slot_mask(self.part, v) * v.narrow(1, self.drop, 1)

    def noise(self, source: NoiseSource, /) -> Tensor:
        """Drawn for the full state, zero at `drop`."""
        draw = source(_with_slots(self.mix, self.slots))
        return draw.masked_fill(slot_mask((self.drop,), draw), 0)

    def claim(self) -> Tensor:
        """All slots of the part."""
        return _claim(self.part, self.mix, self.slots)

    def __repr__(self) -> str:
        return f"SumTo(part={self.part}, drop={self.drop})"


@dataclass(frozen=True, eq=False, repr=False)
class SumEven(Constraint):
    """The slots in `part` sum to `mix`, in orthonormal coordinates: d_k = e_k - mean(e), no slot is special.

    The restricted estimate is the denoiser's estimate moved the shortest way onto the plane. Shapes as in `SumTo`.
    """

    part: tuple[int, ...]
    mix: Tensor
    slots: int

    def __post_init__(self) -> None:
        _check_part(self.part, self.slots)

    def lift(self, u: Tensor, sigma: Tensor | float, /) -> Tensor:
        """The point of the plane nearest to u."""
        row = slot_mask(self.part, u)
        return u + row * ((self.mix.unsqueeze(1) - (u * row).sum(1, keepdim=True)) / len(self.part))

    def pull(self, v: Tensor, /) -> Tensor:
        """v_k - mean(v) in the part."""
        row = slot_mask(self.part, v)
        return v - row * ((v * row).sum(1, keepdim=True) / len(self.part))

    def noise(self, source: NoiseSource, /) -> Tensor:
        """White within the plane: drawn for the full state, then pulled."""
        return self.pull(source(_with_slots(self.mix, self.slots)))

    def claim(self) -> Tensor:
        """All slots of the part."""
        return _claim(self.part, self.mix, self.slots)

    def __repr__(self) -> str:
        return f"SumEven(part={self.part})"


@dataclass(frozen=True)
class Composed(Constraint):
    """Two constraints at once, made by `outer.then(inner)`, which checks that they do not meet."""

    outer: Constraint
    inner: Constraint

    def lift(self, u: Tensor, sigma: Tensor | float, /) -> Tensor:
        """outer.lift after inner.lift."""
        return self.outer.lift(self.inner.lift(u, sigma), sigma)

    def pull(self, v: Tensor, /) -> Tensor:
        """inner.pull after outer.pull."""
        return self.inner.pull(self.outer.pull(v))

    def noise(self, source: NoiseSource, /) -> Tensor:
        """One draw, in the inner coordinates; what the outer decides is ignored by its lift."""
        return self.inner.noise(source)

    def fresh(self, source: NoiseSource, /) -> Constraint:
        """Both anew, the outer first."""
        return Composed(self.outer.fresh(source), self.inner.fresh(source))

    def claim(self) -> Tensor:
        """What either decides."""
        mine = self.outer.claim()
        return mine | self.inner.claim().to(mine.device)


def restrict(denoiser: Denoiser, constraint: Constraint) -> Denoiser:
    """The denoiser in free coordinates: u + pull(D(x, sigma) - x) with x = lift(u, sigma)."""

    def restricted(u: Tensor, sigma: Tensor, /) -> Tensor:
        x = constraint.lift(u, sigma)
        return u + constraint.pull(denoiser(x, sigma) - x)

    return restricted


def _with_slots(mix: Tensor, slots: int) -> tuple[int, ...]:
    return (mix.shape[0], slots, *mix.shape[1:])


def _claim(part: tuple[int, ...], mix: Tensor, slots: int) -> Tensor:
    state = mix.unsqueeze(1).expand(_with_slots(mix, slots))
    return slot_mask(part, state).expand(state.shape)


def _check_part(part: tuple[int, ...], slots: int) -> None:
    if not part or len(set(part)) != len(part) or not all(0 <= k < slots for k in part):
        raise QueryError(f"a sum is over distinct slots out of 0..{slots - 1}, got {part}")


def _slots(claim: Tensor) -> list[int]:
    return [k for k in range(claim.shape[1]) if bool(claim[:, k].any())]
