"""Players: the sound inside is the sound given, words follow the speech, nothing comes from outside."""

import asyncio
import base64
import html
import io
import re
from pathlib import Path
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
import soundfile
import torch

from slmlab.errors import LabError
from slmlab.notebook import players
from slmlab.sound import SAMPLE_RATE, audio, features
from slmlab.sound.mel import HOP

TONE = (0.3 * np.sin(2 * np.pi * 200 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)


def sounds(page: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(r"data:audio/wav;base64,([^\"]+)", page)]


def test_a_player_holds_the_very_samples_as_16_bit_and_their_mark(tmp_path: Path) -> None:
    (inside,) = sounds(players.player(TONE, "tone", loudness=None).page)
    samples, rate = soundfile.read(io.BytesIO(inside), dtype="int16")
    assert rate == SAMPLE_RATE
    assert np.array_equal(samples, np.round(TONE * 32767).astype(np.int16))
    (tmp_path / "a.wav").write_bytes(inside)
    assert audio.read(tmp_path / "a.wav")[1].generated


def played(player: players.Player) -> list[np.ndarray]:
    return [soundfile.read(io.BytesIO(inside))[0] for inside in sounds(player.page)]


def test_sounds_are_played_equally_loud_and_below_full_scale() -> None:
    loud = np.clip(20 * TONE, -1, 1)
    for wave in (0.01 * TONE, TONE, loud, TONE[:400]):
        (alone,) = played(players.player(wave))
        assert audio.loudness(alone) == pytest.approx(players.LOUDNESS, abs=0.1)
    for wave in played(players.compare({"quiet": 0.01 * TONE, "loud": loud})):
        assert audio.loudness(wave) == pytest.approx(players.LOUDNESS, abs=0.1)
        assert np.abs(wave).max() < 1


def test_a_sound_of_peaks_makes_those_beside_it_softer_but_not_without_end() -> None:
    peaky, click = 0.01 * TONE, 0.03 * TONE
    peaky[::320] = 0.5
    click[8000] = 0.9
    first, second = played(players.compare({"tone": TONE, "peaky": peaky}))
    assert np.abs(second).max() == pytest.approx(players.PEAK, abs=1e-3)
    assert audio.loudness(first) == pytest.approx(audio.loudness(second), abs=0.1)
    first, second = played(players.compare({"tone": TONE, "click": click}))
    assert audio.loudness(first) == pytest.approx(players.LOUDNESS - players.SOFTER, abs=0.1)
    assert np.abs(second).max() == pytest.approx(players.PEAK, abs=1e-3)


def test_silence_stays_silent_and_makes_nothing_softer() -> None:
    hiss = np.random.default_rng(0).normal(0, 1e-5, SAMPLE_RATE).astype(np.float32)
    for quiet in (np.zeros_like(TONE), hiss):
        silent, tone = played(players.compare({"silence": quiet, "tone": TONE}))
        assert np.abs(silent).max() <= 1e-4
        assert audio.loudness(tone) == pytest.approx(players.LOUDNESS, abs=0.1)


def test_where_the_level_is_to_be_heard_it_is_not_touched() -> None:
    quiet, loud = played(players.compare({"quiet": 0.1 * TONE, "loud": TONE}, loudness=None))
    assert [np.abs(quiet).max(), np.abs(loud).max()] == [
        pytest.approx(0.03, abs=1e-3),
        pytest.approx(0.3, abs=1e-3),
    ]


def test_compared_sounds_have_one_axis_of_time() -> None:
    page = players.compare({"short": TONE[:8000], "long": TONE}).page
    assert re.findall(r'data-seconds="([\d.]+)"', page) == ["1.0000", "1.0000"]


def test_names_and_texts_cannot_break_the_page() -> None:
    page = players.player(TONE, "<script>alert(1)</script>", "a<b & c").page
    assert "<script>alert" not in page
    assert "a&lt;b" in page


def test_a_player_needs_nothing_from_outside_and_can_be_reached_by_keyboard() -> None:
    page = players.player(TONE, "tone", "aaa").page
    assert not re.search(r"https?://", page)
    assert re.findall(r'<(\w+)[^>]* tabindex="(-?\d)"', page) == [("section", "0"), ("audio", "-1")], (
        "one Tab each"
    )
    assert 'alt="waveform, spectrogram and F0 of tone, 1.0 s"' in page
    shown = players.player(TONE, "tone")._repr_mimebundle_()
    assert shown["text/plain"] == "run this cell to hear: tone (1.0 s)"
    frame = re.search(r'srcdoc="([^"]*)"', shown["text/html"])
    assert frame
    assert html.unescape(frame[1]) == players.player(TONE, "tone").page


def test_words_share_the_frames_that_are_no_pause() -> None:
    energy = np.full(100, -80.0)
    energy[10:30] = energy[60:80] = -20.0
    (first, a, b), (second, c, d) = players.word_times("aaaa bbbb", energy)
    assert (first, second) == ("aaaa", "bbbb")
    assert a == pytest.approx(0.2)
    assert 0.58 <= b <= 1.2
    assert c == b
    assert d == pytest.approx(1.58)
    assert players.word_times("", energy) == []


def test_a_hum_has_the_melody_and_its_gaps() -> None:
    f0 = np.concatenate([np.zeros(10), np.linspace(150, 220, 40), np.zeros(10)])
    hummed = players.hum(f0)
    assert len(hummed) == 60 * HOP
    found = features.f0(hummed).numpy()
    assert np.allclose(found[14:46], f0[14:46], rtol=0.03)
    assert np.abs(hummed[: 8 * HOP]).max() == 0


@pytest.mark.parametrize("wave", [np.zeros(10, np.float32), np.zeros((2, 9000)), np.full(9000, np.nan)])
def test_what_is_no_sound_is_refused_in_a_sentence(wave: np.ndarray) -> None:
    with pytest.raises(LabError, match="x cannot be played"):
        players.player(wave, "x")


def test_controls_show_at_once_and_again_after_a_move(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []

    class Handle:
        def update(self, value: object) -> None:
            shown.append(value)

    def display(value: object, display_id: bool = False) -> Handle:
        if display_id:
            shown.append(value)
        return Handle()

    def half(x: int) -> float:
        if x > 8:
            raise LabError("too much")
        return x / 2

    monkeypatch.setattr(players, "display", display)
    slider = ipywidgets.IntSlider(4, min=0, max=10)
    players.controls(half, x=slider)
    slider.value = 6
    slider.value = 10
    assert shown[:2] == [2.0, 3.0]
    assert "too much" in shown[2].value
    assert slider.description == "x"


def test_a_field_for_text_says_that_enter_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[ipywidgets.VBox] = []
    monkeypatch.setattr(players, "display", lambda part, **_: shown.append(part))
    players.controls(lambda text, n: "", text=ipywidgets.Text("a"), n=ipywidgets.IntSlider(1))
    field, slider = shown[0].children
    assert [part.value for part in field.children] == ["a", "then Enter"]
    assert slider.description == "n"


def test_of_moves_that_come_together_the_last_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel, whose loop runs: five presses of a key are one answer."""
    asked: list[int] = []
    monkeypatch.setattr(players, "display", lambda *_, **__: SimpleNamespace(update=lambda part: None))
    slider = ipywidgets.IntSlider(0, min=0, max=10)
    players.controls(lambda x: asked.append(x), x=slider)

    async def press() -> None:
        for value in range(1, 6):
            slider.value = value
        await asyncio.sleep(3 * players.PAUSE)

    asyncio.run(press())
    assert asked == [0, 5]


def test_a_control_may_answer_with_several_things(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[list[object]] = []

    class Handle:
        def __init__(self, place: list[object]) -> None:
            self.place = place

        def update(self, value: object) -> None:
            self.place.append(value)

    def display(value: object, display_id: bool = False) -> Handle:
        places.append([value])
        return Handle(places[-1])

    monkeypatch.setattr(players, "display", display)
    slider = ipywidgets.IntSlider(4)
    players.controls(lambda x: (x, -x), x=slider)
    slider.value = 6
    assert places[1:] == [[4, 6], [-4, -6]], "each answer has its place, below the widgets"


def test_a_mistake_in_the_first_answer_is_the_cells_own() -> None:
    def broken(x: int) -> None:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        players.controls(broken, x=ipywidgets.IntSlider(1))


def test_a_player_says_the_length_of_a_tensor_as_of_an_array() -> None:
    wave = torch.sin(torch.arange(16_000) * 0.1)
    assert players.player(wave, "hum").words == players.player(wave.numpy(), "hum").words
    assert "1.0 s" in players.player(wave, "hum").words
