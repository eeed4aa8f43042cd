"""Players for notebooks: a sound with its waveform, spectrogram, melody and words in step, heard and seen.

A player is a frame of HTML of its own, so that its keys do not reach the notebook and nothing outside is
needed: the sound is a 16-bit WAV file inside the page. Space plays and stops, left and right move a tenth of
a second, Home returns to the beginning, M mutes, Tab goes to the next player; a click in the picture moves
there.

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
STYLE = """
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: #1d2733; background: #fff; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1rem; }
section { min-width: 0; padding: .4rem; border: 2px solid transparent; border-radius: 6px; }
section:focus-within, section:focus { border-color: #0173b2; outline: none; }
h3 { font-size: 1rem; margin: 0; } p { margin: 0 0 .3rem; font-size: 1.05rem; }
span.now { background: #1d2733; color: #fff; border-radius: 3px; }
audio { width: 100%; height: 2.4rem; }
div { position: relative; cursor: pointer; } img { width: 100%; display: block; }
i { position: absolute; width: 2px; background: #d55e00; pointer-events: none; }
"""
SCRIPT = """
const players = [...document.querySelectorAll('section')].map(section => {
  const audio = section.querySelector('audio'), head = section.querySelector('i');
  const box = section.querySelector('div'), words = [...section.querySelectorAll('span')];
  const left = +box.dataset.left, width = +box.dataset.width, seconds = +box.dataset.seconds;
  const follow = () => {
    head.style.left = 100 * (left + width * Math.min(1, audio.currentTime / seconds)) + '%';
    for (const word of words)
      word.className = audio.currentTime >= word.dataset.from && audio.currentTime < word.dataset.to
        ? 'now' : '';
    if (!audio.paused) requestAnimationFrame(follow);
  };
  const move = time => { audio.currentTime = Math.max(0, Math.min(audio.duration || 0, time)); };
  audio.addEventListener('play', () => {
    section.focus({ preventScroll: true });  // so that its keys work whatever was clicked
    for (const other of players) if (other !== audio) other.pause();
    follow();
  });
  audio.addEventListener('seeked', follow);
  audio.addEventListener('pause', follow);
  box.addEventListener('click', event => {
    const place = box.getBoundingClientRect();
    move(((event.clientX - place.left) / place.width - left) / width * seconds);
    section.focus();
  });
  section.addEventListener('keydown', event => {
    const keys = { ' ': () => audio.paused ? audio.play() : audio.pause(),
      ArrowLeft: () => move(audio.currentTime - 0.1), ArrowRight: () => move(audio.currentTime + 0.1),
      Home: () => move(0), End: () => move(audio.duration), m: () => { audio.muted = !audio.muted; } };
    if (event.key in keys) { event.preventDefault(); event.stopPropagation(); keys[event.key](); }
  }, true);
  return audio;
});
const fit = () => { if (window.frameElement) window.frameElement.style.height =
  document.documentElement.offsetHeight + 4 + 'px'; };
new ResizeObserver(fit).observe(document.body);
"""


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
    """A sound `(s,)` at 16 kHz with its picture, its melody, and its words in step.

    Args:
        wave: the sound.
        title: its name.
        text: what it says; when each word is said is estimated from the letters and the pauses.
        loudness: in dB of full scale at which it is played; None plays it as it is.
    """
    samples = _levelled([_checked(wave, title)], loudness)
    return _page(samples, [title], [plots.speech(samples[0])], text)


def compare(waves: Mapping[str, ArrayLike], text: str = "", loudness: float | None = LOUDNESS) -> Player:
    """Several sounds beside each other, equally loud, on the same scales of time, amplitude and pitch.

    Args:
        waves: each sound `(s,)` at 16 kHz under its name.
        text: what all of them say.
        loudness: in dB of full scale at which they are played; None plays them as they are.
    """
    if not waves:
        raise LabError("there is no sound to compare: give at least one, under its name.")
    samples = _levelled([_checked(wave, name) for name, wave in waves.items()], loudness)
    seconds = max(len(wave) for wave in samples) / SAMPLE_RATE
    peak = max(float(np.abs(wave).max()) for wave in samples) or None
    figures = [plots.speech(wave, seconds=seconds, peak=peak, width=NARROW) for wave in samples]
    plots.fit_f0([figure.axes[2] for figure in figures])
    return _page(samples, list(waves), figures, text)


def controls(show: Callable[..., Any], **choices: ipywidgets.Widget) -> None:
    """Widgets above what `show` makes of their values, made anew whenever one of them is moved.

    Unlike `ipywidgets.interact`, a mistake in the first answer is the cell's own error, and the answer is
    an ordinary output: seen where no widgets are. Of moves that come faster than answers the last one is
    answered.

    Args:
        show: takes the widgets' values by name; gives what is displayed, a tuple one below the other.
        choices: widgets by the name of the argument they set.
    """
    for name, widget in choices.items():
        widget.description = widget.description or name.replace("_", " ")
        widget.style = {"description_width": "9rem"}
        widget.layout.width = "min(40rem, 100%)"
        if hasattr(widget, "continuous_update"):
            widget.continuous_update = False

    def answer() -> tuple[Any, ...]:
        made = show(**{name: widget.value for name, widget in choices.items()})
        return made if isinstance(made, tuple) else (made,)

    display(ipywidgets.VBox(list(choices.values())))
    shown = [display(part, display_id=True) for part in answer()]

    def update(_change: Any) -> None:
        try:
            for place, part in zip(shown, answer(), strict=True):
                place.update(part)
        except Exception as error:  # said here: nobody reads what a timer raises
            kind = "" if isinstance(error, LabError) else f"{type(error).__name__}: "
            shown[0].update(ipywidgets.HTML(f"<b>{html.escape(kind + str(error))}</b>"))

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
    """A melody alone, words and voice gone: F0 `(f,)` in Hz as a soft tone `(s,)`, silent where it is 0.

    Args:
        f0: at 50 Hz.
        level: amplitude of the tone.
    """
    hertz = np.asarray(f0, dtype=np.float64)
    frames = np.arange(len(hertz) * HOP) / HOP
    voiced = hertz > 0
    places = np.flatnonzero(voiced)
    pitch = np.interp(frames, places, hertz[voiced]) if len(places) else np.full(len(frames), 100.0)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    tone = sum(np.sin(k * phase) / k**2 for k in (1, 2, 3))
    return (level * tone * np.interp(frames, np.arange(len(hertz)), voiced)).astype(np.float32)


def word_times(text: str, energy: ArrayLike) -> list[tuple[str, float, float]]:
    """When each word is said, about: letters share the frames that are not pauses evenly.

    Args:
        text: words with spaces between them.
        energy: `(f,)` in dB.

    Returns:
        word, beginning and end in seconds.
    """
    words = text.split()
    sounding = np.flatnonzero(metrics.speech_frames(energy))
    if not words or not len(sounding):
        return []
    letters = np.cumsum([0, *(len(word) for word in words)])
    frames = np.interp(letters / letters[-1], np.linspace(0, 1, len(sounding)), sounding)
    ends = itertools.pairwise((frames / FRAME_RATE).tolist())
    return [(word, start, end) for word, (start, end) in zip(words, ends, strict=True)]


def _checked(wave: ArrayLike, name: str) -> Wave:
    samples = np.asarray(wave, dtype=np.float32)
    if samples.ndim != 1 or len(samples) < HOP or not np.isfinite(samples).all():
        raise LabError(
            f"{name or 'the sound'} cannot be played: expected one row of at least {HOP} finite "
            f"samples at 16 kHz, found shape {samples.shape}."
        )
    return samples


def _levelled(waves: Sequence[Wave], loudness: float | None) -> list[Wave]:
    """The same sounds, all equally loud; what is silent stays so.

    One whose peaks would pass full scale makes all of them softer, by `SOFTER` at most.
    """
    sounding = [wave for wave in waves if np.abs(wave).max() >= audio.SILENT_PEAK]
    if loudness is None or not sounding:
        return list(waves)
    reached = min(audio.loudness(audio.with_loudness(wave, loudness, PEAK)) for wave in sounding)
    target = max(reached, loudness - SOFTER)
    return [
        audio.with_loudness(wave, target, PEAK) if np.abs(wave).max() >= audio.SILENT_PEAK else wave
        for wave in waves
    ]


def _section(wave: Wave, title: str, text: str, figure: Figure) -> str:
    """The HTML of one player.

    The browser's own buttons are for the mouse: with them a keyboard would need seven Tabs to pass a player.
    """
    image = base64.b64encode(plots.as_png(figure)).decode()
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
        f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{image}">'
        f'<i style="left: {100 * place.x0:.2f}%; top: {above:.1f}%; height: {height:.1f}%"></i></div>'
        f'<audio controls tabindex="-1" preload="auto" src="data:audio/wav;base64,{sound}"></audio></section>'
    )


def _page(waves: Sequence[Wave], names: Sequence[str], figures: Sequence[Figure], text: str) -> Player:
    """Sounds `(s,)` with their names and pictures, all of which say one text."""
    sections = [
        _section(wave, name, text, figure) for wave, name, figure in zip(waves, names, figures, strict=True)
    ]
    lengths = (
        f"{name or 'sound'} ({len(wave) / SAMPLE_RATE:.1f} s)"
        for name, wave in zip(names, waves, strict=True)
    )
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>player</title><style>{STYLE}</style>'
        f"<main>{''.join(sections)}</main><script>{SCRIPT}</script></html>"
    )
    return Player(page, 560, ", ".join(lengths))


def under(player: Player, picture: plots.Picture) -> Player:
    """A player with a picture below it, so that the same controls move what is heard and what is seen."""
    image = base64.b64encode(picture.png()).decode()
    drawn = f'<img alt="{html.escape(picture.alt)}" src="data:image/png;base64,{image}">'
    page = player.page.replace("</main>", f"</main>{drawn}", 1)
    return Player(page, 2 * player.height, f"{player.words}. {picture.alt}")
