"""Figures: axes in seconds and Hz, melodies with gaps, pictures that are small and described."""

import io

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from slmlab.notebook import plots
from slmlab.sound import SAMPLE_RATE, features
from slmlab.sound.mel import mel_bin

TONE = (0.3 * np.sin(2 * np.pi * 200 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)


def test_the_axis_in_hz_stands_where_the_mel_has_the_tone() -> None:
    for hertz in (250.0, 1000.0, 4000.0):
        wave = np.sin(2 * np.pi * hertz * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
        loudest = int(features.log_mel(wave)[0, 20].argmax())
        assert mel_bin(hertz) == pytest.approx(loudest, abs=1)


def test_a_waveform_keeps_its_highest_and_lowest_sample() -> None:
    _, axes = plots.sheet()
    wave = np.zeros(3 * SAMPLE_RATE, np.float32)
    wave[12_345], wave[23_456] = 0.9, -0.7
    plots.waveform(wave, axes[0, 0])
    drawn = axes[0, 0].collections[0].get_paths()[0].vertices[:, 1]
    assert (drawn.max(), drawn.min()) == (pytest.approx(0.9), pytest.approx(-0.7))
    assert axes[0, 0].get_xlim() == (0, 3)
    assert axes[0, 0].get_xlabel() == "seconds"


def test_a_melody_has_gaps_where_nothing_is_voiced() -> None:
    _, axes = plots.sheet()
    plots.melody([0.0, 100.0, 110.0, 0.0, 120.0], axes[0, 0])
    assert np.isnan(axes[0, 0].lines[0].get_ydata()).tolist() == [True, False, False, True, False]
    assert axes[0, 0].lines[0].get_xdata()[1] == pytest.approx(0.02)


def test_the_axis_of_a_melody_fits_the_voice_and_grows_with_octaves() -> None:
    _, axes = plots.sheet(columns=2)
    low = np.array([0.0, *np.linspace(80, 100, 98), 400.0])  # the last is a slip of the tracker
    plots.melody(low, axes[0, 0])
    bottom, top = axes[0, 0].get_ylim()
    assert bottom < 80
    assert 100 < top < 200
    assert axes[0, 0].get_yscale() == "log"
    assert [text.get_text() for text in axes[0, 0].get_yticklabels()] == ["80", "100", "120"]
    plots.melody(2 * low, axes[0, 1])
    assert axes[0, 1].get_ylim() == (pytest.approx(2 * bottom), pytest.approx(2 * top))


def test_a_flat_melody_is_not_stretched_and_none_has_an_axis_too() -> None:
    _, axes = plots.sheet(columns=2)
    plots.melody(np.full(50, 100.0), axes[0, 0])
    assert np.log2(np.divide(*axes[0, 0].get_ylim()[::-1])) == pytest.approx(plots.F0_OCTAVES)
    plots.melody(np.zeros(50), axes[0, 1])
    assert axes[0, 1].get_ylim()[0] < plots.F0_LIMITS[0]


def test_compared_melodies_share_an_axis() -> None:
    figures = [plots.speech(tone) for tone in (TONE, TONE[::2])]
    assert figures[0].axes[2].get_ylim() != figures[1].axes[2].get_ylim()
    plots.fit_f0([figure.axes[2] for figure in figures])
    assert figures[0].axes[2].get_ylim() == figures[1].axes[2].get_ylim()


def test_a_legend_stands_above_the_axes_and_names_each_line_once() -> None:
    figure, axes = plots.sheet(columns=2)
    plots.melody(np.full(50, 100.0), axes[0, 0], "low", plots.COLOURS[0])
    plots.melody(np.full(50, 200.0), axes[0, 0], "high", plots.COLOURS[1])
    plots.melody(np.full(50, 100.0), axes[0, 1], "low", plots.COLOURS[0])
    (named,) = figure.legends
    assert [text.get_text() for text in named.get_texts()] == ["low", "high"]
    figure.draw_without_rendering()  # lays it out
    assert named.get_window_extent().y0 >= axes[0, 0].get_window_extent().y1


def test_tokens_are_drawn_at_their_time() -> None:
    _, axes = plots.sheet()
    plots.tokens(np.zeros((50, 8)), axes[0, 0])
    assert axes[0, 0].get_xlim() == (0, 2)


def test_speech_shares_one_axis_of_time_and_names_its_axes() -> None:
    figure = plots.speech(TONE, seconds=2.5)
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim() == (0, 2.5)
    said = {text.get_text() for text in figure.findobj(Text)}
    assert {"seconds", "F0 in Hz", "Hz (mel scale)", "amplitude"} <= said


def test_a_picture_is_a_small_png_with_alternative_text() -> None:
    data, about = plots.Picture(plots.speech(TONE), "A tone of one second.")._repr_mimebundle_()
    image = Image.open(io.BytesIO(data["image/png"]))
    assert image.size[0] == plots.WIDTH * plots.DPI
    assert len(data["image/png"]) < 60_000
    assert about["image/png"]["alt"] == data["text/plain"] == "A tone of one second."


def test_colours_are_all_different() -> None:
    assert len(set(plots.COLOURS)) == len(plots.COLOURS) >= 8
