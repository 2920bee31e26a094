"""Sound fonts in three sets that never mix: training, validation and test, told apart by the file's SHA-256.

A model must be judged on timbres that it has never heard, so a font of one set is refused wherever another is asked
for, under whatever name it lies on disk. Fonts that we do not know may be used for training only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stemwise import files
from stemwise.errors import SongError
from stemwise.songs.synthetic.soundfont import opened

FontSet = Literal["train", "validation", "test"]

#: SHA-256 of every known font file -> (set, what it is). The Fluid and MuseScore fonts share samples.
KNOWN: dict[str, tuple[FontSet, str]] = {
    "74594e8f4250680adf590507a306655a299935343583256f3b722c48a1bc1cb0": ("train", "FluidR3 GM"),
    "cda013d8c370a48ae8dad271e761078d2e77455488dabdedbfbe5fc76a38c682": ("train", "FluidR3 Mono GM"),
    "59287cbb0f424ec76d1bc269eee40dfe0b02252588d72eb016b5d2382e710a8f": ("train", "MuseScore General Full (sf2)"),
    "f9a37b36655f23e167c66ec91bef6097c8e99be29286219a54062919eb41aeae": ("train", "MuseScore General Full (sf3)"),
    "916aaca6b0eb9f9083eb42399614acb2ff4ec72ce28dffff1814592a9696b479": ("train", "MuseScore General Lite"),
    "3bc27deb1b9d6a919c7cfc4ba5fc5c077ac7899fc21becbbb234749ffc523d13": ("train", "Black Pearl drums"),
    "e8710b899ece8f83b109d0e2f6a89b007b864c8c088ca3ad3cd6e47bd8e629cc": ("train", "Red Zeppelin drums"),
    "39bff96eee3dcfbce9665e3968701b894ca2136c7d0bd580281b2bbf59e80392": ("train", "OPL-3 FM"),
    "9f39fc53bd3a1a69f13cb486838944eded358b3b6e8afbd6c1c2c33675b2034b": ("validation", "sf_GMbank"),
    "c5378b62028c920cb11e4803327983fee2f2cdff5dc89c708e39da417e51c854": ("test", "TimGM6mb"),
}
#: where each set comes from, for the remedy in error messages (Debian packages)
PACKAGES: dict[FontSet, str] = {
    "train": "fluid-soundfont-gm, fluidr3mono-gm-soundfont, musescore-general-soundfont, avldrums.lv2-soundfont, "
    "opl3-soundfont",
    "validation": "csound-soundfont",
    "test": "timgm6mb-soundfont",
}
_FOLDERS = ("/usr/share/sounds/sf2", "/usr/share/sounds/sf3", "/usr/share/soundfonts", "/usr/lib/lv2/avldrums.lv2")
# File names that distributions use for the fonts above: they only save hashing what is clearly of another set.
_NAMES: dict[FontSet, tuple[str, ...]] = {
    "train": ("fluidr3", "musescore_general", "opl-3", "black_pearl", "red_zeppelin"),
    "validation": ("gmbank",),
    "test": ("timgm",),
}
_hashes: dict[tuple[str, int, int], str] = {}


@dataclass(frozen=True)
class Font:
    """A usable sound font. `presets` are (bank, program) pairs; drums are bank 128, or bank 0 in a kit-only font."""

    path: Path
    sha256: str
    name: str
    presets: frozenset[tuple[int, int]]

    @property
    def kit_only(self) -> bool:
        """Whether the file holds one drum kit and nothing else."""
        return len(self.presets) == 1

    def kit(self, program: int) -> int | None:
        """The drum kit of this font that is nearest to `program`, or None where it has none that sounds."""
        kits = [p for bank, p in self.presets if bank == 128]
        return program if program in kits else 0 if 0 in kits else None


def sha256(path: Path) -> str:
    """SHA-256 of a file, remembered for this process by path, size and time of change."""
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    if key not in _hashes:
        _hashes[key] = files.sha256(path)
    return _hashes[key]


def font(path: str | Path, use: FontSet) -> Font:
    """One font file for one use.

    Raises SongError where the file is missing, is no sound font, or belongs to another set; a file that is not in
    `KNOWN` is accepted for training only.
    """
    path = Path(path)
    if not path.is_file():
        raise SongError(f"{path}: no such sound font. Install one of: {PACKAGES[use]}.")
    digest = sha256(path)
    owner, name = KNOWN.get(digest, ("train", path.stem))
    if owner != use:
        known = "is" if digest in KNOWN else "is unknown, hence"
        raise SongError(
            f"{path}: this font {known} of the {owner} set and is refused for {use} "
            f"(told by its content, not its name). Use a font of the {use} set: {PACKAGES[use]}."
        )
    return Font(path, digest, name, opened(str(path)).presets)


def fonts(use: FontSet, *, log: Callable[[str], None] | None = None) -> tuple[Font, ...]:
    """The installed fonts of a set, without duplicates, in a stable order.

    Looks in the usual system folders and in the folders of the environment variable STEMWISE_FONTS. `log` is called
    with one line when the test set is opened, so that every look can be recorded. Raises SongError if none is found.
    """
    found: dict[str, Font] = {}
    for path in _candidates(use):
        try:
            one = font(path, use)
        except SongError:
            continue
        if KNOWN.get(one.sha256, ("", ""))[0] == use or _extra(path):
            found.setdefault(one.sha256, one)
    if not found:
        raise SongError(
            f"no {use} sound font is installed. Install {PACKAGES[use]}, or set STEMWISE_FONTS to a folder."
        )
    if use == "test" and log is not None:
        log(f"test fonts opened: {', '.join(sorted(f.name for f in found.values()))}")
    return tuple(sorted(found.values(), key=lambda f: f.sha256))


def _folders() -> list[Path]:
    extra = os.environ.get("STEMWISE_FONTS", "")
    return [Path(p) for p in (*filter(None, extra.split(os.pathsep)), *_FOLDERS)]


def _extra(path: Path) -> bool:
    return any(Path(p) in path.parents for p in os.environ.get("STEMWISE_FONTS", "").split(os.pathsep) if p)


def _candidates(use: FontSet) -> Sequence[Path]:
    unlike = [n for other, names in _NAMES.items() if other != use for n in names]
    paths: dict[Path, Path] = {}
    for folder in _folders():
        for path in sorted(folder.glob("*.sf[23]")) if folder.is_dir() else []:
            # The system folders may hold any number of large unknown fonts; only likely names are hashed there.
            likely = any(n in path.resolve().name.lower() for n in _NAMES[use])
            if (likely or _extra(path)) and not any(n in path.resolve().name.lower() for n in unlike):
                paths.setdefault(path.resolve(), path)
    return list(paths.values())
