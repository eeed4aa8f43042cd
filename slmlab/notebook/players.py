"""Players for notebooks: a sound with its waveform, spectrogram, melody and words in step, heard and seen.

A player is a frame of HTML of its own, so that its keys do not reach the notebook and nothing outside is
needed: the sound is a 16-bit WAV file inside the page. Space plays and stops, left and right move a tenth of
a second, Home returns to the start, M mutes, Tab goes to the next player, a click in the picture moves there.

What is played is equally loud everywhere, so that no slider hurts an ear and no sound wins by its level;
where the level is what is to be heard, `loudness=None` leaves it alone.

Axis legend: s samples, f mel frames.
"""

import asyncio
import base64
import html
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from slmlab import metrics
from slmlab.errors import LabError
from slmlab.notebook import plots
from slmlab.sound import SAMPLE_RATE, audio, features
from slmlab.sound.audio import Wave
from slmlab.sound.mel import FRAME_RATE, HOP

PAUSE = 0.03
"""Seconds that a control waits whether another move follows."""
LOUDNESS = -23.0
"""dB of full scale at which sounds are played (`audio.loudness`); the corpora's own."""
PEAK = 0.97
"""Largest sample of what is played."""
SOFTER = 6.0
"""dB by which sounds that are compared may be softer than `LOUDNESS`, to be as loud as the most peaky one."""
NARROW = 5.6
"""Inches of a picture that stands beside another."""
STYLE, SCRIPT = ((Path(__file__).parent / f"player.{kind}").read_text("utf-8") for kind in ("css", "js"))


@dataclass(frozen=True)
class Player:
    """One sound or several beside each other, ready to be played in a notebook."""

    page: str
    """The HTML inside the frame."""
    height: int
    """Of the frame in pixels, until the page has measured itself."""
    words: str
    """What is shown where HTML is not: names and lengths."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """How Jupyter shows it."""
        frame = (
            f'<iframe srcdoc="{html.escape(self.page)}" title="{html.escape(self.words)}" '
            f'style="width: 100%; height: {self.height}px; border: 0" allow="autoplay"></iframe>'
        )
        return {"text/html": frame, "text/plain": f"run this cell to hear: {self.words}"}


def player(wave: ArrayLike, title: str = "", text: str = "", loudness: float | None = LOUDNESS) -> Player:
    """A sound `(s,)` at 16 kHz with its picture, its melody, and its words in step: see `compare`."""
    return compare({title: wave}, text, loudness)


def compare(waves: Mapping[str, ArrayLike], text: str = "", loudness: float | None = LOUDNESS) -> Player:
    """Several sounds beside each other, equally loud, on the same scales of time, amplitude and pitch.

    Args:
        waves: each sound `(s,)` at 16 kHz under its name.
        text: what all of them say; when each word is said is estimated from the letters and the pauses.
        loudness: in dB of full scale at which they are played; None leaves their levels alone.
    """
    if not waves:
        raise LabError("there is no sound to compare: give at least one, under its name.")
    samples = _equally_loud([_samples(wave, name) for name, wave in waves.items()], loudness)
    seconds = max(map(len, samples)) / SAMPLE_RATE
    peak = max(float(np.abs(wave).max()) for wave in samples)
    width = plots.WIDTH if len(samples) == 1 else NARROW
    figures = [plots.speech(wave, seconds, peak, width) for wave in samples]
    plots.fit_f0([figure.axes[2] for figure in figures])
    sections = "".join(map(_section, samples, waves, [text] * len(samples), figures))
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>player</title><style>{STYLE}</style>'
        f"<main>{sections}</main><script>{SCRIPT}</script></html>"
    )
    named = zip(waves, samples, strict=True)
    lengths = [f"{name or 'sound'} ({len(wave) / SAMPLE_RATE:.1f} s)" for name, wave in named]
    return Player(page, 560, ", ".join(lengths))


def under(player: Player, picture: plots.Picture) -> Player:
    """A player with a picture below it, so that the same controls move what is heard and what is seen."""
    page = player.page.replace("</main>", f"</main>{_image(picture)}", 1)
    return Player(page, 2 * player.height, f"{player.words}. {picture.alt}")


def controls(show: Callable[..., Any], **choices: ipywidgets.Widget) -> None:
    """Widgets above what `show` makes of their values, made anew whenever one of them is moved.

    `show` takes the widgets' values by name; the parts of a tuple are displayed one below the other. Unlike
    with `ipywidgets.interact`, a mistake in the first answer is the cell's own error, and the answer is an
    ordinary output: seen where no widgets are. When moves come faster than answers, the last is answered.
    """
    rows = list[ipywidgets.Widget]()
    for name, widget in choices.items():
        widget.description = widget.description or name.replace("_", " ")
        widget.style = {"description_width": "9rem"}
        widget.layout.width = "min(40rem, 100%)"
        if hasattr(widget, "continuous_update"):
            widget.continuous_update = False
        if isinstance(widget, ipywidgets.Text):
            widget = ipywidgets.HBox([widget, ipywidgets.Label("then Enter")])
        rows.append(widget)

    def answer() -> tuple[Any, ...]:
        parts = show(**{name: widget.value for name, widget in choices.items()})
        return parts if isinstance(parts, tuple) else (parts,)

    display(ipywidgets.VBox(rows))
    places = [display(part, display_id=True) for part in answer()]

    def update(_change: Any) -> None:
        try:
            for place, part in zip(places, answer(), strict=True):
                place.update(part)
        except Exception as error:  # said here: nobody reads what a timer raises
            kind = "" if isinstance(error, LabError) else f"{type(error).__name__}: "
            places[0].update(ipywidgets.HTML(f"<b>{html.escape(kind + str(error))}</b>"))

    waiting: list[asyncio.TimerHandle] = []

    def moved(change: Any) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return update(change)
        while waiting:
            waiting.pop().cancel()
        waiting.append(loop.call_later(PAUSE, update, change))

    for widget in choices.values():
        widget.observe(moved, names="value")


def hum(f0: ArrayLike, level: float = 0.15) -> NDArray[np.float32]:
    """A melody alone, words and voice gone: F0 `(f,)` in Hz as a soft tone `(s,)`, silent where it is 0."""
    hertz = np.asarray(f0, dtype=np.float64)
    frames = np.arange(len(hertz) * HOP) / HOP
    voiced = hertz > 0
    places = np.flatnonzero(voiced)
    pitch = np.interp(frames, places, hertz[voiced]) if len(places) else np.full(len(frames), 100.0)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    tone = sum(np.sin(k * phase) / k**2 for k in (1, 2, 3))
    return (level * tone * np.interp(frames, np.arange(len(hertz)), voiced)).astype(np.float32)


def word_times(text: str, energy: ArrayLike) -> list[tuple[str, float, float]]:
    """Words with the seconds where each begins and ends, about: letters share the frames that are not pauses
    evenly, as the energy `(f,)` in dB tells.
    """
    words = text.split()
    sounding = np.flatnonzero(metrics.speech_frames(energy))
    if not words or not len(sounding):
        return []
    letters = np.cumsum([0, *(len(word) for word in words)])
    frames = np.interp(letters / letters[-1], np.linspace(0, 1, len(sounding)), sounding)
    ends = itertools.pairwise((frames / FRAME_RATE).tolist())
    return [(word, start, end) for word, (start, end) in zip(words, ends, strict=True)]


def _samples(wave: ArrayLike, name: str) -> Wave:
    samples = np.asarray(wave, dtype=np.float32)
    if samples.ndim != 1 or len(samples) < HOP or not np.isfinite(samples).all():
        raise LabError(
            f"{name or 'the sound'} cannot be played: expected one row of at least {HOP} finite "
            f"samples at 16 kHz, found shape {samples.shape}."
        )
    return samples


def _equally_loud(waves: Sequence[Wave], loudness: float | None) -> list[Wave]:
    """The same sounds at one level; what is silent stays so.

    One whose peaks would pass full scale makes all of them softer, by `SOFTER` at most.
    """

    def at(level: float) -> list[Wave]:
        return [wave if _is_silent(wave) else audio.with_loudness(wave, level, PEAK) for wave in waves]

    if loudness is None:
        return list(waves)
    reached = [audio.loudness(wave) for wave in at(loudness) if not _is_silent(wave)]
    return at(max(min(reached, default=loudness), loudness - SOFTER))


def _is_silent(wave: Wave) -> bool:
    return bool(np.abs(wave).max() < audio.SILENT_PEAK)


def _section(wave: Wave, title: str, text: str, figure: Figure) -> str:
    """The HTML of one player.

    The browser's own buttons are for the mouse: with them a keyboard would need seven Tabs to pass a player.
    """
    sound = base64.b64encode(audio.wav(wave)).decode()
    (top, place), seconds = (ax.get_position() for ax in figure.axes[:2]), figure.axes[0].get_xlim()[1]
    alt = f"waveform, spectrogram and F0 of {title or 'the sound'}, {len(wave) / SAMPLE_RATE:.1f} s"
    words = " ".join(
        f'<span data-from="{start:.3f}" data-to="{end:.3f}">{html.escape(word)}</span>'
        for word, start, end in word_times(text, features.energy(wave))
    )
    above, height = 100 * (1 - top.y1), 100 * (top.y1 - place.y0)
    return (
        f'<section tabindex="0" aria-label="{html.escape(title or "sound")}: space plays, arrows move">'
        f"<h3>{html.escape(title)}</h3><p>{words}</p>"
        f'<div data-left="{place.x0:.4f}" data-width="{place.width:.4f}" data-seconds="{seconds:.4f}">'
        f"{_image(plots.Picture(figure, alt))}"
        f'<i style="left: {100 * place.x0:.2f}%; top: {above:.1f}%; height: {height:.1f}%"></i></div>'
        f'<audio controls tabindex="-1" preload="auto" src="data:audio/wav;base64,{sound}"></audio></section>'
    )


def _image(picture: plots.Picture) -> str:
    image = base64.b64encode(picture.png()).decode()
    return f'<img alt="{html.escape(picture.alt)}" src="data:image/png;base64,{image}">'
