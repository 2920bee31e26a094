"""The instruments that notes are assigned to, as data: what each is called, sounds as, and is recognised by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Instrument:
    """A family of instruments.

    Attributes:
        name: what its track is called.
        program: the General MIDI program (0-based) that its track is given.
        drums: whether its track lies on the drum channel.
        programs: General MIDI programs of tracks that belong to it.
        words: parts of track names that belong to it, in lower case; they count before programs do.
    """

    name: str
    program: int
    drums: bool = False
    programs: tuple[int, ...] = ()
    words: tuple[str, ...] = ()


#: The instruments of the bundled model, in the order of its labels. Lead instruments have no programs of their own: a
#: flute may lead or not, so tracks are recognised as a melody by name.
BAND: tuple[Instrument, ...] = (
    Instrument("piano", 0, programs=tuple(range(8)), words=("piano", "keys", "klavier", "rhodes")),
    Instrument("guitar", 25, programs=tuple(range(24, 32)), words=("guitar", "gtr", "gitarre")),
    Instrument("bass", 33, programs=tuple(range(32, 40)), words=("bass",)),
    Instrument("strings", 48, programs=(*range(40, 55), *range(88, 96)), words=("string", "violin", "cello", "pad")),
    Instrument("drums", 0, drums=True, words=("drum", "percussion", "kit")),
    Instrument("melody", 73, words=("melody", "lead", "vocal", "voice", "solo", "bridge")),
    Instrument("other", 18),
)

#: What the players of the composer's stem "other" do -> the instrument that does it in a band.
COMPOSER_ROLES: Mapping[str, str] = MappingProxyType(
    {"tune": "melody", "pad": "strings", "sustained": "strings", "run": "strings", "counter": "strings"}
)


def instrument_of(name: str, program: int, is_drum: bool, instruments: Sequence[Instrument] = BAND) -> int:
    """Which instrument a track of this name, program (0-based) and channel belongs to; the last one where none fits."""
    for index, one in enumerate(instruments):
        if is_drum and one.drums:
            return index
    low = name.lower()
    for index, one in enumerate(instruments):
        if low and any(word in low for word in (one.name, *one.words)):
            return index
    for index, one in enumerate(instruments):
        if program in one.programs:
            return index
    return len(instruments) - 1
