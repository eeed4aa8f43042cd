"""What is in a sound file, whatever its header promises: files of every kind are cut off, piped, joined or
written by programs that counted wrongly.

`opened` gives the file's bytes with a header under which all that is there is decoded, how many samples the
header had promised, and what is odd. Layouts: RFC 9639 (FLAC), RFC 3533 (Ogg), ISO 11172-3 with the "Xing"
index (MP3), RIFF (WAV).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from slmlab.errors import LabError

STREAMED = 0x7FFF_0000
"""A WAV file's size from which on, or at 0, it is what programs write that do not know it: to a pipe."""
BITRATES = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
"""Of layer III in kbit/s, by MPEG 1 (the second) or a later version, and index; 0 is none."""
RATES = (44_100, 48_000, 32_000)
"""Of MPEG 1 in Hz; half and a quarter of it are those of the later versions."""
FLAC_MOST = 2**36 - 1
"""Samples that a FLAC header can count."""
LARGEST_FLAC_FRAME = 100_000
"""Bytes before the end in which the last frame is looked for."""
INDEX_FRACTION = 0.9
"""Of the frames that an MP3's index counts; fewer is a file cut off."""


@dataclass(frozen=True)
class Container:
    """A sound file made ready to be decoded."""

    raw: bytes
    """As it is on the disk."""
    content: bytes
    """With a header that promises what is there."""
    promised: int = 0
    """Samples that must be there, of each channel; 0 where nobody counted them."""
    remark: str = ""
    """What is odd about it, though all that is there can be used."""


def opened(path: Path) -> Container:
    """A sound file ready to be decoded; LabError if it is absent, empty or cut off."""
    try:
        if not path.is_file():
            other = "is a folder" if path.is_dir() else "is a pipe or a device"
            what = other if path.exists() else "does not exist"
            raise LabError(f"{path} {what}: give the path of a sound file.")
        content = path.read_bytes()
    except OSError as error:
        raise LabError(f"{path} cannot be read ({error.strerror}): give another sound file.") from None
    if not content:
        raise LabError(f"{path} is empty (0 bytes): record or copy it again.")
    if content[:4] == b"RIFF":
        _check_wav(path, content)
        return Container(content, content)
    if content[:4] == b"OggS":
        return _ended_ogg(path, content)
    if content[:4] == b"fLaC":
        return _counted_flac(path, content)
    start = _behind_tag(content)
    if content[start : start + 4] == b"fLaC":
        return replace(_counted_flac(path, content[start:]), raw=content)
    return _counted_mp3(path, content, start)


def _check_wav(path: Path, content: bytes) -> None:
    """LabError where samples that the header counts are not there."""
    needed, place = 8 + int.from_bytes(content[4:8], "little"), 12
    while place + 8 <= len(content):
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        if content[place : place + 4] == b"data":
            needed = place + 8 + size
            break
        place += 8 + size + size % 2
    if needed - 8 - place > 0 and needed < STREAMED and len(content) < needed:
        raise LabError(f"{path} is cut off: {len(content)} of {needed} bytes are there; copy it again.")


def _ended_ogg(path: Path, content: bytes) -> Container:
    """An Ogg file whose last page is marked as the end; LabError where that page is not whole."""
    place = content.rfind(b"OggS")
    page = bytearray(content[place:])
    lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if len(page) < 27 or len(page) < 27 + page[26] + sum(lengths):
        raise LabError(f"{path} is cut off in the middle of a page: copy it again.")
    if page[5] & 4:
        return Container(content, content)
    page[5] |= 4
    page[22:26] = bytes(4)
    page[22:26] = _crc(page[: 27 + page[26] + sum(lengths)], 32, 0x04C11DB7).to_bytes(4, "little")
    remark = f"{path} has no mark of its end: what is there was taken."
    return Container(content, content[:place] + page, remark=remark)


def _counted_flac(path: Path, content: bytes) -> Container:
    """A FLAC file whose header counts what is there; LabError where nobody did, and its end is not whole."""
    promised, counted = int.from_bytes(content[21:26], "big") & FLAC_MOST, _flac_samples(content)
    if not promised and not counted:
        raise LabError(f"{path} is cut off in the middle of a frame: copy it again.")
    if counted <= promised:
        return Container(content, content, promised)
    head = int.from_bytes(content[21:26], "big") & ~FLAC_MOST | counted
    return Container(content, content[:21] + head.to_bytes(5, "big") + bytes(16) + content[42:], counted)


def _flac_samples(content: bytes) -> int:
    """Samples of a FLAC file by the number that its last frame has; 0 if that is not whole."""
    end = len(content) - 128 * (content[-128:-125] == b"TAG")
    place = end
    while (place := content.rfind(b"\xff", max(0, end - LARGEST_FLAC_FRAME), place)) > 0:
        head = content[place : place + 16]
        if len(head) < 16 or head[1] & 0xFE != 0xF8 or head[2] >> 4 == 0:
            continue
        ones = f"{head[4]:08b}0".index("0")
        more, size = max(ones - 1, 0), head[2] >> 4
        number = head[4] & (0x7F >> ones)
        for byte in head[5 : 5 + more]:
            number = number << 6 | byte & 0x3F
        here = 5 + more
        given = {6: 1, 7: 2}.get(size, 0)
        samples = int.from_bytes(head[here : here + given], "big") + 1
        here += given + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
        is_head = here < 16 and _crc(content[place : place + here + 1], 8, 0x07) == 0
        if is_head and _crc(content[place:end], 16, 0x8005) == 0:
            usual = int.from_bytes(content[8:10], "big")
            samples = samples if given else 192 if size == 1 else (144 if size < 6 else 1) << size
            return samples + number * (1 if head[1] & 1 else usual)
    return 0


def _crc(content: bytes | bytearray, bits: int, polynomial: int) -> int:
    """The remainder that FLAC and Ogg check by; 0 where FLAC's checksum stands at the end and is right."""
    rest, mask = 0, (1 << bits) - 1
    for byte in content:
        rest = rest << 8 & mask ^ _crc_of(rest >> bits - 8 ^ byte, bits, polynomial)
    return rest


@cache
def _crc_of(byte: int, bits: int, polynomial: int) -> int:
    rest = byte << bits - 8
    for _ in range(8):
        rest = rest << 1 ^ (rest >> bits - 1) * (1 << bits | polynomial)
    return rest


def _behind_tag(content: bytes) -> int:
    """Where the sound begins, behind an ID3 tag if there is one."""
    if content[:3] != b"ID3" or len(content) < 10:
        return 0
    size = 0
    for byte in content[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _counted_mp3(path: Path, content: bytes, start: int) -> Container:
    """An MP3 file whose index counts what is there: without one, decoders guess by the first frames."""
    if not (places := list(_frames(content, start))):
        return Container(content, content)
    start = places[0]
    first = content[start : start + _frame_length(content, start)]
    place = max(first.find(b"Xing", 0, 48), first.find(b"Info", 0, 48))
    has_count = place > 0 and len(first) >= place + 12 and first[place + 7] & 1
    indexed = struct.unpack(">I", first[place + 8 : place + 12])[0] if has_count else 0
    frames, end = len(places) - (place > 0), places[-1] + _frame_length(content, places[-1])
    remark = f"{path} ends in the middle of a frame: what is whole was taken."
    remark = remark if _frame_length(content, end) else ""
    if frames < INDEX_FRACTION * indexed:
        raise LabError(f"{path} is cut off: {frames} of {indexed} frames are there; copy it again.")
    if 0 < frames <= indexed + 1:
        return Container(content, content, remark=remark)
    head = bytes([0xFF, content[start + 1] | 1, 0xE0 | content[start + 2] & 0x0C, content[start + 3]])
    is_first, is_mono = content[start + 1] >> 3 & 3 == 3, content[start + 3] >> 6 == 3
    side = (17 if is_mono else 32) if is_first else (9 if is_mono else 17)
    index = head + bytes(side) + b"Xing" + struct.pack(">II", 1, frames)
    index = index.ljust(_frame_length(index, 0), b"\0")
    counted = content[:start] + index + content[start + len(first) * (place > 0) :]
    return Container(content, counted, remark=remark)


def _frames(content: bytes, place: int) -> Iterator[int]:
    """Where MP3 frames begin; what is none is passed over, up to two frames in a row."""
    while place >= 0:
        length = _frame_length(content, place)
        if length and place + length <= len(content):
            yield place
            place += length
            continue
        while (place := content.find(b"\xff", place + 1)) >= 0:
            length = _frame_length(content, place)
            if length and _frame_length(content, place + length):
                break


def _frame_length(content: bytes, place: int) -> int:
    """Bytes of the MP3 frame at a place; 0 where none begins."""
    head = content[place : place + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[1] & 0x18 == 0x08:
        return 0
    version, index, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if index in (0, 15) or rate == 3:
        return 0
    hertz = RATES[rate] // (1, 2, 4)[(3, 2, 0).index(version)]
    bits = BITRATES[version == 3][index] * 1000
    return (144 if version == 3 else 72) * bits // hertz + (head[2] >> 1 & 1)
