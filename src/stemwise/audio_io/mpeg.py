"""How long an MP3 really is.

libsndfile believes the frame count in the Xing header, or guesses from the first frame's bit rate where there is none,
and stops there: a wrong count would lose audio without a word. Hopping over the frame headers gives the true count
(a few milliseconds a minute); where the two disagree, the decoder is shown a view of the file with a true header.

Files that were joined may change their rate, or between mono and stereo; of those the decoder reads the first part alone.

Layout of the headers: ISO/IEC 11172-3, section 2.4.2.3; the Xing tag is a de-facto standard.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from stemwise.audio_io.views import JoinedFile
from stemwise.errors import AudioFileError

_KBPS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
_DECODER_DELAY = 529
_FEW = 3
"""So many frames of another kind may be a tag's, or damage."""
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


@dataclass(frozen=True)
class _Layout:
    """Where the MPEG frames of a file are; ``tag`` is the Xing tag's offset inside the first frame, or None.

    ``mono`` and ``elsewhere`` count those of one channel and those of another rate.
    """

    start: int
    first: bytes
    tag: int | None
    count: int
    samples: int
    end: int
    mono: int
    elsewhere: int


def corrected_view(path: Path, frames: int) -> JoinedFile | None:
    """A readable view of the MP3 with a true frame count, or None where ``frames`` agrees with what is there.

    A view that over-promises is corrected too: the length that is decoded rules, and a cut-off MP3 is played to its
    end. Raises AudioFileError where the rate or the number of channels changes on the way.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        layout = _scan(data)
    if layout is None or layout.count == 0:
        return None
    if max(layout.elsewhere, min(layout.mono, layout.count - layout.mono)) > _FEW:
        raise AudioFileError(
            f"{path}: its rate or its number of channels changes on the way, and only the first part could be read. Join the "
            "parts anew, for instance: ffmpeg -i in.mp3 out.flac"
        )
    size = layout.end - layout.start
    if layout.tag is not None and struct.unpack_from(">I", layout.first, layout.tag + 4)[0] & 1:
        if struct.unpack_from(">I", layout.first, layout.tag + 8)[0] == layout.count:
            return None
        return JoinedFile(_corrected(layout, size), path, layout.start + len(layout.first))
    if frames == layout.count * layout.samples:
        return None
    skip = layout.start if layout.tag is None else layout.start + len(layout.first)
    return JoinedFile(_tag_frame(layout, size), path, skip)


def bit_rate(path: Path) -> int | None:
    """kbit/s of an MP3's second frame, the first being a tag in many; None where there is none."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = _next_frame(data, _after_id3(data))
        if at < 0:
            return None
        then = at + _lengths(data[at + 1], data[at + 2])[data[at + 2]]
        at = then if then + 4 <= len(data) else at
        return (_KBPS_1 if (data[at + 1] >> 3) & 3 == 3 else _KBPS_2)[data[at + 2] >> 4]


def _scan(data: mmap.mmap) -> _Layout | None:
    """Hop from frame header to frame header; None for anything but layer III with a stated bit rate."""
    position = _after_id3(data)
    position = _next_frame(data, position)
    if position < 0:
        return None
    second, lengths = data[position + 1], _lengths(data[position + 1], data[position + 2])
    start, version, mono = position, (second >> 3) & 3, data[position + 3] >> 6 == 3
    first = data[start : start + lengths[data[start + 2]]]
    tag = 4 + ((17 if mono else 32) if version == 3 else (9 if mono else 17))
    has_tag = first[tag : tag + 4] in (b"Xing", b"Info")
    count, size, sync, end, narrow, elsewhere = 0, len(data), second & 0xFE, start, 0, 0
    while position + 4 <= size:
        length = lengths[data[position + 2]] if data[position] == 0xFF and data[position + 1] & 0xFE == sync else 0
        if length:
            if position + length > size:
                break
            count += 1
            narrow += data[position + 3] >> 6 == 3
            position += length
            end = position
        else:
            position = _next_frame(data, position + 1)
            if position < 0:
                break
            elsewhere += data[position + 1] & 0xFE != sync or not lengths[data[position + 2]]
    return _Layout(
        start, first, tag if has_tag else None, count - has_tag, 1152 if version == 3 else 576, end, narrow, elsewhere
    )


def _after_id3(data: mmap.mmap) -> int:
    position = 0
    while data[position : position + 3] == b"ID3" and position + 10 <= len(data):
        a, b, c, d = data[position + 6 : position + 10]
        footer = 10 if data[position + 5] & 0x10 else 0
        position += 10 + footer + ((a & 127) << 21 | (b & 127) << 14 | (c & 127) << 7 | (d & 127))
    return position


def _next_frame(data: mmap.mmap, position: int) -> int:
    """The next offset that holds a frame header followed by another one, or -1."""
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data):
            return -1
        kind = data[position + 1]
        is_layer3 = kind & 0xE6 == 0xE2 and (kind >> 3) & 3 != 1
        if is_layer3:
            length = _lengths(kind, data[position + 2])[data[position + 2]]
            after = position + length
            if length and (after + 2 > len(data) or (data[after] == 0xFF and data[after + 1] & 0xFE == kind & 0xFE)):
                return position
        position += 1


def _lengths(second: int, third: int) -> list[int]:
    """Frame length in bytes for each value of a header's third byte, 0 where it cannot belong to this stream."""
    version, rate_index = (second >> 3) & 3, (third >> 2) & 3
    if rate_index == 3 or version == 1:
        return [0] * 256
    rate = _RATES[version][rate_index]
    table, factor = (_KBPS_1, 144_000) if version == 3 else (_KBPS_2, 72_000)
    return [
        factor * table[byte >> 4] // rate + ((byte >> 1) & 1)
        if (byte >> 2) & 3 == rate_index and table[byte >> 4]
        else 0
        for byte in range(256)
    ]


def _corrected(layout: _Layout, size: int) -> bytes:
    """The first frame with the tag's frame and byte counts (where it has them) replaced by the true ones."""
    assert layout.tag is not None
    frame = bytearray(layout.first)
    struct.pack_into(">I", frame, layout.tag + 8, layout.count)
    if struct.unpack_from(">I", frame, layout.tag + 4)[0] & 2:
        struct.pack_into(">I", frame, layout.tag + 12, size)
    return bytes(frame)


def _tag_frame(layout: _Layout, size: int) -> bytes:
    """A frame that holds nothing but a Xing and LAME tag, and a silent one, to be put before the first of music.

    Seeing a tag, libmpg123 drops 529 frames of decoder delay more than the tag asks for; the silent frame is there to
    be dropped instead of music.
    """
    header = bytearray(layout.first[:4])
    header[1] |= 1  # no checksum
    header[2] = 0x90 | (header[2] & 0x0C)  # 128 or 80 kbit/s, unpadded: room enough for the tag
    version, mono = (header[1] >> 3) & 3, header[3] >> 6 == 3
    tag = 4 + ((17 if mono else 32) if version == 3 else (9 if mono else 17))
    frame = bytearray(_lengths(header[1], header[2])[header[2]])
    frame[:4] = header
    silent = bytes(frame[:4]) + bytes(len(frame) - 4)
    frame[tag : tag + 16] = b"Xing" + struct.pack(">III", 3, layout.count + 1, size + 2 * len(frame))
    frame[tag + 16 : tag + 25] = b"LAME3.100"
    delay = layout.samples - _DECODER_DELAY
    frame[tag + 37 : tag + 40] = struct.pack(">I", delay << 12)[1:]
    return bytes(frame) + silent
