"""MIDI: files in ticks, notes as arrays, the instruments they belong to, labelled notes for training."""

from stemwise.symbolic.instruments import BAND, Instrument, instrument_of
from stemwise.symbolic.midi import MIDI_SUFFIXES, Music, assembled, is_midi, multiset, read_midi, written
from stemwise.symbolic.notes import FEATURES, NOTE, Labelled, Notes, features

__all__ = [
    "BAND",
    "FEATURES",
    "MIDI_SUFFIXES",
    "NOTE",
    "Instrument",
    "Labelled",
    "Music",
    "Notes",
    "assembled",
    "features",
    "instrument_of",
    "is_midi",
    "multiset",
    "read_midi",
    "written",
]
