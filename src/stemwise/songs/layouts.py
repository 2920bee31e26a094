"""Which data set is it? A directory as downloaded is recognised by the paths in it, and read by its reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from stemwise.errors import SongError
from stemwise.songs import cocochorales, jamendo, lakh, moisesdb, musdb, shards, slakh
from stemwise.songs.folder import recognises_stem_folders, scan, scan_stem_folders, scan_table
from stemwise.songs.scanning import SUFFIXES, Scan, sample, usable
from stemwise.songs.song import Song

_ARCHIVES = (".zip", ".tar", ".gz", ".bz2", ".xz", ".tgz")


@dataclass(frozen=True)
class Layout:
    """One way in which songs lie on disk: its name, whether some of its paths look like it, and its reader."""

    name: str
    recognises: Callable[[list[Path]], bool]
    scan: Callable[[Path], Scan]


#: What names itself; a collection of MIDI files and any folder of songs are what remains.
LAYOUTS = (
    Layout(shards.LAYOUT, shards.recognises, shards.scan),
    Layout(slakh.LAYOUT, slakh.recognises, slakh.scan),
    Layout(moisesdb.LAYOUT, moisesdb.recognises, moisesdb.scan),
    Layout(cocochorales.LAYOUT, cocochorales.recognises, cocochorales.scan),
    Layout(musdb.LAYOUT, musdb.recognises, musdb.scan),
    Layout(jamendo.LAYOUT, jamendo.recognises, jamendo.scan),
    Layout("stem folders", recognises_stem_folders, scan_stem_folders),
)


def songs(path: Path | str) -> list[Song]:
    """The songs of any data set, whatever its layout; a warning names unreadable ones.

    Raises SongError where nothing can be read, with what was expected.
    """
    return usable(path, scan_any(path))


def scan_any(path: Path | str) -> Scan:
    """Recognise the layout of a directory (or of a CSV file) and read the headers of its songs.

    Raises SongError where the place itself is of no use: no directory, empty, an archive that was not unpacked.
    """
    root = Path(path)
    if root.is_file() and root.suffix.lower() == ".csv":
        return scan_table(root)
    if root.is_file() and root.suffix.lower() in _ARCHIVES:
        raise SongError(f"{root}: is an archive; unpack it, and give the folder that comes out")
    if not root.is_dir():
        return scan(root)  # says what is wrong with it
    places = sample(root)
    ours = [layout for layout in LAYOUTS if layout.recognises(places)]
    if len(ours) > 1:
        raise SongError(f"{root}: holds several data sets ({', '.join(one.name for one in ours)}); give one of them")
    if ours:
        return replace(ours[0].scan(root), layout=ours[0].name)
    if lakh.recognises(places) and not any(place.suffix.lower() in SUFFIXES for place in places):
        return lakh.scan(root)
    if any(place.suffix.lower() in SUFFIXES for place in places):
        return scan(root)
    packed = [place.name for place in places if place.suffix.lower() in _ARCHIVES]
    if packed:
        raise SongError(f"{root}: has nothing but archives ({', '.join(packed[:3])}); unpack them first")
    raise SongError(
        f"{root}: holds no audio. Give a folder with one sub-folder a song (bass.wav, drums.wav, ...), with one a stem, a "
        f"CSV file, shards, or a copy of: {', '.join(layout.name for layout in LAYOUTS[1:-1])}, lakh"
    )
