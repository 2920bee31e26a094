"""An endless source of multi-track songs: a seeded composer, sound fonts or a built-in synthesiser, and a mixer."""

from stemwise.songs.synthetic.compose import COMPOSER, compose
from stemwise.songs.synthetic.fonts import Font, FontSet, font, fonts
from stemwise.songs.synthetic.piece import NOTE, STEMS, Piece, Section, Track
from stemwise.songs.synthetic.render import (
    Palette,
    Rendered,
    built_in_palette,
    render,
    single_palette,
    training_palette,
)
from stemwise.songs.synthetic.write import palette, write_midi, write_songs

__all__ = [
    "COMPOSER",
    "NOTE",
    "STEMS",
    "Font",
    "FontSet",
    "Palette",
    "Piece",
    "Rendered",
    "Section",
    "Track",
    "built_in_palette",
    "compose",
    "font",
    "fonts",
    "palette",
    "render",
    "single_palette",
    "training_palette",
    "write_midi",
    "write_songs",
]
