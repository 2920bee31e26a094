"""Audio files: what is in them, lazy reading, streaming resampling, and writing that never leaves a half-finished file.

This package knows files and arrays and nothing of models. Blocks are float32 arrays of shape (channels, frames); a set
of stems is (stem, channels, frames). Every failure is an ``AudioFileError`` that names the file, the problem and the
remedy.
"""

from __future__ import annotations

from stemwise.audio_io.folders import LITTER, Existing, output_folder, refuse_existing
from stemwise.audio_io.reading import (
    AUDIO_SUFFIXES,
    LOUDEST,
    MAX_CHANNELS,
    MAX_RATE,
    MIN_RATE,
    AudioInfo,
    AudioSource,
    open_audio,
    probe,
    read_audio,
)
from stemwise.audio_io.resampling import resample, resample_blocks, resampled_frames
from stemwise.audio_io.writing import FLOAT_WAV, AudioWriter, Encoding, StemWriter, Written, encoding, write_audio

__all__ = [
    "AUDIO_SUFFIXES",
    "FLOAT_WAV",
    "LITTER",
    "LOUDEST",
    "MAX_CHANNELS",
    "MAX_RATE",
    "MIN_RATE",
    "AudioInfo",
    "AudioSource",
    "AudioWriter",
    "Encoding",
    "Existing",
    "StemWriter",
    "Written",
    "encoding",
    "open_audio",
    "output_folder",
    "probe",
    "read_audio",
    "refuse_existing",
    "resample",
    "resample_blocks",
    "resampled_frames",
    "write_audio",
]
