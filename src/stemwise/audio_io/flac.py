"""FLAC streams whose encoder never learned their length (written to a pipe): STREAMINFO says 0 samples.

libsndfile then reports an absurd length and fails at the end; the decoder is shown the file with the counted length.
Layout: RFC 9639, section 8.2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from stemwise.audio_io.views import JoinedFile, native_name

_TOTAL = 21  # offset of the byte whose low half begins the 36-bit number of samples, after the marker "fLaC"
UNKNOWN_FRAMES = 1 << 40


def counted_view(path: Path) -> JoinedFile | None:
    """The file with its decodable length in the header, or None where the header is not at the start of the file."""
    with path.open("rb") as file:
        head = bytearray(file.read(_TOTAL + 5))
    if head[:4] != b"fLaC" or head[4] & 127 != 0:
        return None
    count = decodable_frames(path)
    head[_TOTAL] = head[_TOTAL] & 0xF0 | count >> 32
    head[_TOTAL + 1 :] = (count & 0xFFFFFFFF).to_bytes(4, "big")
    return JoinedFile(bytes(head), path, len(head))


def decodable_frames(path: Path) -> int:
    """How many frames can be decoded before the stream ends or breaks."""
    count = 0
    with soundfile.SoundFile(native_name(path)) as file:
        # a failing read still fills what it decoded: a sentinel tells how much that is
        block = np.empty((4_096, file.channels), np.float32)
        while True:
            block.fill(np.nan)
            try:
                file.read(out=block)
            except soundfile.SoundFileError:
                return count + int((~np.isnan(block[:, 0])).sum())
            got = int((~np.isnan(block[:, 0])).sum())
            count += got
            if got < len(block):
                return count
