"""A sound is as long as what is in it: headers that guess, lie or say nothing are no matter."""

import io
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from slmlab.errors import LabError
from slmlab.sound import audio, containers

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 160_000)
LOUD_FIRST = np.concatenate([NOISE[:32_000], np.zeros(128_000)])
SILENT_FIRST = np.concatenate([np.zeros(16_000), NOISE[:144_000]])


def encoded(wave: np.ndarray, rate: int = 16_000, **how: object) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, wave, rate, **how)
    return content.getvalue()


def mp3_without_index(wave: np.ndarray) -> bytes:
    content = encoded(wave, format="MP3", bitrate_mode="VARIABLE", compression_level=0.3)
    return content[containers._frame_length(content, 0) :]


def seconds(path: Path, content: bytes, **how: object) -> float:
    path.write_bytes(content)
    return audio.read(path, **how)[1].seconds


@pytest.mark.parametrize("wave", [LOUD_FIRST, SILENT_FIRST])
@pytest.mark.parametrize("tag", [b"", b"ID3\4\0\0\0\0\0\x0aInfo123456"])
def test_an_mp3_without_an_index_lasts_as_long_as_its_frames(tmp_path: Path, wave: np.ndarray, tag: bytes):
    content = tag + mp3_without_index(wave)
    assert seconds(tmp_path / "a.mp3", content, max_seconds=30) == pytest.approx(10, abs=0.12)
    assert seconds(tmp_path / "a.mp3", content + content) == pytest.approx(20, abs=0.3)
    assert audio.read(tmp_path / "a.mp3")[1].remark == ""
    (tmp_path / "a.mp3").write_bytes(content[:-20])
    assert "ends in the middle of a frame" in audio.read(tmp_path / "a.mp3")[1].remark


def test_an_mp3_joined_of_two_is_not_cut_to_the_index_of_the_first(tmp_path: Path):
    content = encoded(NOISE, format="MP3")
    assert seconds(tmp_path / "a.mp3", content) == pytest.approx(10, abs=0.1)
    assert seconds(tmp_path / "a.mp3", content + content) == pytest.approx(20, abs=0.3)


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2)])
@pytest.mark.parametrize("n", [100, 50_000])
def test_a_flac_from_a_pipe_is_counted_by_its_last_frame(tmp_path: Path, rate: int, channels: int, n: int):
    content = encoded(np.stack([NOISE[:n]] * channels, axis=1), rate, format="FLAC")
    for counted in (0, n // 2):
        head = int.from_bytes(content[21:26], "big") & ~containers.FLAC_MOST | counted
        piped = content[:21] + head.to_bytes(5, "big") + content[26:]
        assert seconds(tmp_path / "a.flac", piped, max_seconds=30) == n / rate
    (tmp_path / "a.flac").write_bytes(
        (content[:21] + bytes([content[21] & 0xF0, 0, 0, 0, 0]) + content[26:])[:-7]
    )
    with pytest.raises(LabError, match=r"a\.flac is cut off in the middle of a frame"):
        audio.read(tmp_path / "a.flac")


def checksum(page: bytes) -> int:
    return containers._crc(page, 32, 0x04C11DB7)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_without_a_mark_of_its_end_is_taken_whole_and_said(tmp_path: Path, subtype: str):
    content = bytearray(encoded(NOISE[:96_000], 48_000, format="OGG", subtype=subtype))
    place = content.rfind(b"OggS")
    content[place + 5] &= ~4
    content[place + 22 : place + 26] = bytes(4)
    content[place + 22 : place + 26] = struct.pack("<I", checksum(bytes(content[place:])))
    assert seconds(tmp_path / "a.ogg", bytes(content)) == pytest.approx(2.0, abs=0.01)
    assert "has no mark of its end" in audio.read(tmp_path / "a.ogg")[1].remark


def test_a_wav_is_cut_off_where_samples_are_missing_and_not_where_its_size_is_counted_wrongly(tmp_path: Path):
    content = encoded(NOISE[:16_000], format="WAV", subtype="PCM_16")
    wrong = (
        content[:4] + struct.pack("<I", len(content)) + content[8:]
    )  # many programs count the first 8 bytes
    assert seconds(tmp_path / "a.wav", wrong) == 1.0
    (tmp_path / "a.wav").write_bytes(content[:-2])
    with pytest.raises(LabError, match=r"a\.wav is cut off: 32042 of 32044 bytes"):
        audio.read(tmp_path / "a.wav")


@pytest.mark.parametrize("code", ["ascii", "utf-16-le", "utf-16-be"])
def test_the_mark_of_generated_speech_is_found_in_any_tag(tmp_path: Path, code: str):
    for kind, tag in (("MP3", "album"), ("FLAC", "title"), ("OGG", "copyright")):
        path = tmp_path / f"a.{kind.lower()}"
        with soundfile.SoundFile(path, "w", 16_000, 1, format=kind) as file:
            setattr(file, tag, audio.GENERATED)
            file.write(NOISE[:16_000])
        assert audio.read(path)[1].generated
        assert audio.read(path)[1].generated
    mark = audio.GENERATED.encode(code)
    tagged = b"ID3\4\0\0\0\0\0" + bytes([len(mark)]) + mark + mp3_without_index(NOISE)
    (tmp_path / "b.mp3").write_bytes(tagged)
    assert audio.read(tmp_path / "b.mp3")[1].generated


WHOLE = {
    "wav": encoded(NOISE[:4_000], format="WAV"),
    "flac": encoded(NOISE[:4_000], format="FLAC"),
    "mp3": mp3_without_index(NOISE[:16_000]),
    "ogg": encoded(NOISE[:4_000], format="OGG"),
}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_a_header_of_any_bytes_is_read_or_one_sentence(kind: str, data: st.DataObject):
    content = bytearray(WHOLE[kind])
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), min_size=1, max_size=6)
    ):
        content[place] = byte
    end = data.draw(st.integers(1, len(content)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{kind}"
        path.write_bytes(content[:end])
        try:
            wave, info = audio.read(path, max_seconds=30)
            assert len(wave)
            assert info.seconds <= 30
        except LabError as error:
            assert "a." in str(error)  # noqa: PT017


def test_samples_that_look_like_mp3_stay_samples(tmp_path: Path):
    """A WAV's samples may be any bytes, those of an MP3 file without an index among them."""
    hidden = mp3_without_index(NOISE)
    samples = np.frombuffer(hidden[: len(hidden) // 2 * 2], dtype="<i2")
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="PCM_16")
    wave, _ = audio.read(tmp_path / "a.wav", max_seconds=60)
    assert len(wave) == len(samples)
    assert np.abs(wave * 32768 - samples).max() < 2
    assert audio.read(tmp_path / "a.wav")[1].remark == ""
