"""The instruments that notes are assigned to, as data: what each is called, sounds as, and is recognised by."""

from __future__ import annotations

import re
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
        words: words of track names that belong to it, in lower case and singular; they count before programs do.
        unless: words that make another instrument of it: a bass guitar is no guitar, a bass clarinet no bass.
    """

    name: str
    program: int
    drums: bool = False
    programs: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()


#: The instruments of the bundled model, in the order of its labels. Lead instruments have no programs of their own: a
#: flute may lead or not, so tracks are recognised as a melody by name.
BAND: tuple[Instrument, ...] = (
    Instrument("piano", 0, programs=tuple(range(8)), words=("piano", "epiano", "keys", "klavier", "rhodes")),
    Instrument("guitar", 25, programs=tuple(range(24, 32)), words=("guitar", "gtr", "gitarre"), unless=("bass",)),
    Instrument(
        "bass", 33, programs=tuple(range(32, 40)), words=("bass", "bassline", "contrabass"),
        unless=("drum", "clarinet", "flute", "oboe", "recorder", "sax", "saxophone", "trombone", "trumpet", "tuba"),
    ),
    Instrument(
        "strings", 48, programs=(*range(40, 55), *range(88, 96)),
        words=("string", "violin", "cello", "violoncello", "pad"),
    ),
    Instrument(
        "drums", 0, drums=True, words=("drum", "drumkit", "drumset", "percussion", "kit"), unless=("steel",)
    ),
    Instrument("melody", 73, words=("melody", "lead", "vocal", "voice", "solo", "bridge")),
    Instrument("other", 18),
)  # fmt: skip

#: What the players of the composer's stem "other" do -> the instrument that does it in a band.
COMPOSER_ROLES: Mapping[str, str] = MappingProxyType(
    {"tune": "melody", "pad": "strings", "sustained": "strings", "run": "strings", "counter": "strings"}
)


def instrument_of(name: str, program: int, is_drum: bool, instruments: Sequence[Instrument] = BAND) -> int:
    """Which instrument a track of this name, program (0-based) and channel belongs to; the last one where none fits.

    Of several whose words are in the name it is the one of the program, or else the first whose `unless` does not strike it.
    """
    for index, one in enumerate(instruments):
        if is_drum and one.drums:
            return index
    said = _words(name)
    named = [index for index, one in enumerate(instruments) if said & _forms((one.name, *one.words))]
    playing = [index for index, one in enumerate(instruments) if program in one.programs]
    both = [index for index in named if index in playing]
    left = [index for index in named if not said & _forms(instruments[index].unless)]
    return (*both, *left, *(() if named else playing), len(instruments) - 1)[0]


def _words(name: str) -> frozenset[str]:
    """The words of a name in lower case, those of SlapBass1 being slap and bass."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return frozenset(re.findall(r"[^\W\d_]+", apart.lower()))


def _forms(words: Sequence[str]) -> frozenset[str]:
    """Words with their plurals."""
    return frozenset(form for word in words for form in (word, f"{word}s", f"{word}es"))
