"""Miniature data sets, laid out as the published ones are: true names, metadata files and quirks, a moment of noise."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

FRAMES = 2000


def noise(frames: int = FRAMES, channels: int = 1, seed: int = 0) -> np.ndarray:
    """(frames, channels), of a level that the sum of five stays clear of clipping."""
    return 0.1 * np.random.default_rng(seed).uniform(-1, 1, (frames, channels))


def write(file: Path, signal: np.ndarray, rate: int) -> Path:
    """An audio file in the format of its ending; 16 bits where it has integers, so that sums hold to 1e-4."""
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, signal, rate, **({"subtype": "PCM_16"} if file.suffix in (".wav", ".flac") else {}))
    return file


def cut(file: Path, share: float = 0.6) -> None:
    """Keep the first part of a file's bytes: a download that broke off."""
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


def piped(file: Path) -> Path:
    """A WAV or FLAC file as it is when its writer could not go back to say how long it is (WAV: as sox does)."""
    data = bytearray(file.read_bytes())
    if file.suffix == ".flac":
        data[21] &= 0xF0
        data[22:26] = bytes(4)
    else:
        size = data.find(b"data") + 4
        data[4:8], data[size : size + 4] = 0x7FFFF024.to_bytes(4, "little"), 0x7FFFF000.to_bytes(4, "little")
    file.write_bytes(data)
    return file


def with_mixture(folder: Path, stems: Mapping[str, np.ndarray], mixture: str, rate: int) -> None:
    """A file for each stem (names with endings) and one for their sum."""
    for name, signal in stems.items():
        write(folder / name, signal, rate)
    write(folder / mixture, np.sum(list(stems.values()), axis=0), rate)


#: Sources of a Slakh track: class, is_drum, program number, program name, rendered.
SLAKH_SOURCES = (
    ("Guitar", False, 30, "Distortion Guitar", True),
    ("Bass", False, 33, "Electric Bass (finger)", True),
    ("Drums", True, 128, "Drums", True),
    ("Guitar", False, 25, "Acoustic Guitar (steel)", True),
    ("Piano", False, 0, "Acoustic Grand Piano", True),
    ("Strings (continued)", False, 50, "Synth Strings 1", True),
    ("Sound Effects", False, 122, "Seashore", False),  # rare instruments were not rendered
)


def slakh_track(track: Path, rate: int = 44100, frames: int = FRAMES) -> Path:
    """One track as in slakh2100_flac_redux."""
    entries: dict[str, dict[str, Any]] = {}
    sounds: dict[str, np.ndarray] = {}
    for number, (kind, drum, program, name, rendered) in enumerate(SLAKH_SOURCES):
        entries[f"S{number:02d}"] = {
            "audio_rendered": rendered, "inst_class": kind, "integrated_loudness": -12.8, "is_drum": drum,
            "midi_program_name": name, "midi_saved": True, "plugin_name": "some.nkm", "program_num": program,
        }  # fmt: skip
        if rendered:
            sounds[f"stems/S{number:02d}.flac"] = noise(frames, seed=number)
    with_mixture(track, sounds, "mix.flac", rate)
    about = {"UUID": "1a81ae092884234f3264e2f45927f00a", "normalized": True, "overall_gain": 0.18, "stems": entries}
    (track / "metadata.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")
    (track / "all_src.mid").write_bytes(b"MThd")
    return track


def slakh(root: Path, rate: int = 44100) -> Path:
    """Slakh2100-redux with a track in each of its four folders."""
    for split, number in (("train", 1), ("validation", 1501), ("test", 1876), ("omitted", 49)):
        slakh_track(root / split / f"Track{number:05d}", rate)
    return root


def msdm(root: Path) -> Path:
    """MSDM's derivative: four stems at 22.05 kHz, of which Track00002 has but two, one 50 ms shorter."""
    for number, name in enumerate(("bass", "drums", "guitar", "piano")):
        write(root / "train" / "Track00001" / f"{name}.wav", noise(seed=number), 22050)
    write(root / "train" / "Track00002" / "bass.wav", noise(4000), 22050)
    write(root / "train" / "Track00002" / "piano.wav", noise(4000 - 1102), 22050)
    write(root / "test" / "Track01876" / "drums.wav", noise(), 22050)
    return root


MUSDB_STEMS = ("drums", "bass", "other", "vocals")


def musdb(root: Path) -> Path:
    """MUSDB18-HQ with a training, a validation and a test song."""
    titles = {"train": ("A Classic Education - NightOwl", "Actions - One Minute Smile"), "test": ("Ünal & Søn - Café",)}
    for split, names in titles.items():
        for name in names:
            stems = {f"{stem}.wav": noise(channels=2, seed=seed) for seed, stem in enumerate(MUSDB_STEMS)}
            with_mixture(root / split / name, stems, "mixture.wav", 44100)
    return root


def stem_mp4(file: Path, rate: int = 8000, frames: int = 12000) -> Path:
    """Five AAC tracks, each a sine: of the mixture's place 0 and of the four stems, louder by their number."""
    import av

    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w", format="mp4") as out:
        for track in [out.add_stream("aac", rate=rate, layout="mono") for _ in range(5)]:
            signal = (0.1 * (track.index + 1) * np.sin(np.arange(frames) / 20)).astype(np.float32)[None]
            for start in range(0, frames, 1024):
                frame = av.AudioFrame.from_ndarray(signal[:, start : start + 1024].copy(), format="fltp", layout="mono")
                frame.sample_rate, frame.pts = rate, start
                out.mux(track.encode(frame))
            out.mux(track.encode(None))
    return file


def moisesdb_song(song: Path, stems: Mapping[str, Iterable[tuple[str, np.ndarray]]], about: Mapping[str, str]) -> Path:
    """One song: stem -> (trackType, signal) of its tracks; the sources' ids count from 0."""
    entries = []
    for stem, tracks in stems.items():
        listed = []
        for number, (kind, signal) in enumerate(tracks):
            write(song / stem / f"{stem}-{number}.wav", signal, 44100)
            listed.append({"id": f"{stem}-{number}", "extension": "wav", "trackType": kind, "has_bleed": number > 0})
        entries.append({"id": f"{stem}-id", "stemName": stem, "tracks": listed})
    (song / "data.json").write_text(json.dumps({**about, "stems": entries}), encoding="utf-8")
    return song


def moisesdb(root: Path) -> Path:
    """Two songs: stems of unequal lengths, a mono source among stereo ones, two tracks in a stem, a title in Japanese."""
    base = root / "moisesdb_v0.1"
    stereo = noise(channels=2, seed=1)
    moisesdb_song(
        base / "0358ee25-0001",
        {
            "vocals": [("lead female singer", stereo)],
            "guitar": [("acoustic guitar", stereo[:1500]), ("clean electric guitar", noise(1800, seed=2))],
            "wind": [("flutes (piccolo, bamboo flute, panpipes, flutes etc)", stereo[:900])],
        },
        {"song": "夜想曲", "artist": "Sigur Rós", "genre": "singer_songwriter"},
    )
    moisesdb_song(
        base / "0358ee25-0002",
        {"bass": [("bass_guitar", stereo)], "drums": [("full acoustic drumkit", 0 * stereo)], "other_keys": []},
        {"song": "B", "artist": "C", "genre": "rock"},
    )
    return root


ENSEMBLES = {
    "string": ("violin", "violin", "viola", "cello"),
    "brass": ("trumpet", "horn", "trombone", "tuba"),
    "woodwind": ("flute", "oboe", "clarinet", "bassoon"),
    "random": ("flute", "violin", "horn", "tuba"),
}


def cocochorales_track(track: Path, lengths: tuple[int, int, int, int] = (FRAMES,) * 4) -> Path:
    """One track; with unequal lengths there is no mixture."""
    names = ENSEMBLES[track.name.split("_")[0]]
    stems = {f"stems_audio/{k}_{name}.wav": noise(lengths[k], seed=k) for k, name in enumerate(names)}
    if len(set(lengths)) == 1:
        with_mixture(track, stems, "mix.wav", 16000)
    else:
        for name, signal in stems.items():
            write(track / name, signal, 16000)
    (track / "metadata.yaml").write_text(f"ensemble: {track.name.split('_')[0]}\ntempo: 88\n", encoding="utf-8")
    (track / "mix.mid").write_bytes(b"MThd")
    return track


def cocochorales(root: Path) -> Path:
    """All ensembles, with and without a shard's folder, the misaligned track, and an archive beside its tracks."""
    base = root / "main_dataset"
    cocochorales_track(base / "train" / "1" / "string_track000001")
    cocochorales_track(base / "train" / "1" / "string_track001353", (FRAMES, FRAMES, FRAMES - 320, FRAMES))
    cocochorales_track(base / "train" / "25" / "brass_track048001")
    cocochorales_track(base / "valid" / "woodwind_track204001")
    cocochorales_track(base / "test" / "random_track234001")
    with tarfile.open(base / "valid" / "7.tar.bz2", "w:bz2") as archive:
        archive.add(base / "valid" / "woodwind_track204001", "woodwind_track204001")
    return root


JAMENDO_ROWS = (
    ("1376256", ("genre---hiphop", "instrument---electricguitar", "mood/theme---calm")),
    ("7400", ("genre---jazz", "instrument---piano")),
    ("999", ("genre---pop",)),  # in the table, but not downloaded
)
_HEADER = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"


def jamendo(root: Path) -> Path:
    """Three files, one of them in low quality and in no table; a table in data/, and its splits."""
    for place in ("56/1376256.mp3", "00/7400.mp3", "12/12.low.mp3"):
        write(root / place, noise(5000, 2), 44100)
    lines = [
        f"track_{int(number):07d}\tartist_000001\talbum_000002\t{number[-2:]}/{number}.mp3\t0.1\t" + "\t".join(tags)
        for number, tags in JAMENDO_ROWS
    ]
    (root / "data" / "splits" / "split-0").mkdir(parents=True)
    (root / "data" / "autotagging.tsv").write_text("\n".join([_HEADER, *lines, ""]))
    for split, line in zip(("train", "validation"), lines):
        table = root / "data" / "splits" / "split-0" / f"autotagging-{split}.tsv"
        table.write_text("\n".join([_HEADER, line, ""]))
    return root


def midi_bytes(note: int) -> bytes:
    """A MIDI file with one note."""
    track = bytes([0, 0x90, note, 100, 0x60, 0x80, note, 0, 0, 0xFF, 0x2F, 0])
    head = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1, 0, 96])
    return head + b"MTrk" + len(track).to_bytes(4, "big") + track


def lakh(root: Path) -> Path:
    """lmd_matched with two versions of one recording, one file under two recordings, and a file that is no MIDI."""
    folders = [root / "A" / "B" / "C" / f"TRABC{'0' * 12}{k}" for k in range(2)]
    for folder in folders:
        folder.mkdir(parents=True)
    (folders[0] / f"{'0' * 31}a.mid").write_bytes(midi_bytes(60))
    (folders[0] / f"{'0' * 31}b.mid").write_bytes(midi_bytes(61))
    (folders[1] / f"{'0' * 31}b.mid").write_bytes(midi_bytes(61))
    (folders[1] / f"{'0' * 31}c.mid").write_bytes(b"<html>")
    return root
