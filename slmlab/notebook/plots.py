"""Every picture of the house, in one place: colour-blind safe, labelled, legible from the back of a room.

Functions draw on the axes they are given, or return a figure; none touches pyplot's state, so nothing is
shown twice and nothing leaks. `Picture` is a figure with words for those who do not see it.

Axis legend: s samples, f mel frames (50 Hz), m mel bins, t speech tokens.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import ArrayLike, NDArray

from slmlab.sound import SAMPLE_RATE, features
from slmlab.sound.mel import FRAME_RATE, mel_bin

COLOURS: tuple[str, ...] = tuple(seaborn.color_palette("colorblind").as_hex())
"""Told apart by all eyes; lines that mean different things take them in this order."""
INK = "#1d2733"
TOKEN_RATE = 25
HALF_FRAME = 0.5 / FRAME_RATE
"""Seconds; frame i of a mel is centred on i / 50 s, so it is drawn half a frame to both sides of that."""
F0_LIMITS = (50.0, 450.0)
"""Hz; of an axis for F0 where nothing is voiced."""
F0_TICKS = (30, 40, 50, 60, 80, 100, 120, 150, 200, 250, 300, 400, 500, 600, 800)
F0_MARGIN = 2.0
"""Semitones of an axis for F0 above and below the voices that it shows."""
F0_OCTAVES = 1.0
"""An axis for F0 shows at least so much: flat speech is to look flat."""
F0_REACH = 12.0
"""Semitones from a voice's median beyond which an axis for F0 does not stretch: a tracker's slips."""
MEL_TICKS = (250, 500, 1000, 2000, 4000)
COLOUR_MAP = "cividis"
DPI = 96
WIDTH = 10.0
SPACE = "␣"
MOST_POINTS = 2000
"""Points of a drawn waveform; each stands for the lowest and highest sample of its stretch."""

TUNING = {
    "margin": "reward margin, nats",
    "accuracy": "pairs told apart",
    "drift": "drift, nats a token",
    "wer": "word error rate",
    "entropy": "H_p, bits",
    "f0_spread": "F0 spread, semitones",
    "length": "length over expected",
    "repetition": "repetition rate",
}
"""Columns of `tune.monitor` and what stands above their panels."""


def use_style() -> None:
    """Large letters, quiet grid, safe colours: for everything that is drawn from now on."""
    seaborn.set_theme(
        context="talk",
        style="ticks",
        palette=list(COLOURS),
        font_scale=0.75,
        rc={
            "text.color": INK,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": False,
            "figure.dpi": DPI,
            "image.cmap": COLOUR_MAP,
            "legend.framealpha": 0.9,  # a curve may pass beneath the words, not through them
            "legend.edgecolor": "none",
            "legend.loc": "best",  # where no curve is, if there is such a place
        },
    )


@dataclass(frozen=True)
class Picture:
    """A figure, shown with a description; what a notebook's cell ends with."""

    figure: Figure
    """What is seen."""
    alt: str
    """What it shows, in a sentence, for those who do not see it."""

    def png(self) -> bytes:
        """The figure as a PNG file of 128 colours, a third of the usual size: notebooks are kept in git."""
        from PIL import Image

        drawn, small = io.BytesIO(), io.BytesIO()
        self.figure.savefig(drawn, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
        Image.open(drawn).convert("RGB").quantize(128, Image.Quantize.FASTOCTREE).save(small, format="png")
        return small.getvalue()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        """How Jupyter shows it: the image with its alternative text."""
        return {"image/png": self.png(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def sheet(rows: int = 1, columns: int = 1, height: float = 3.0) -> tuple[Figure, NDArray[Any]]:
    """A figure as wide as the page with a grid of empty axes `(rows, columns)`, each row `height` inches."""
    figure = Figure(figsize=(WIDTH, height * rows), dpi=DPI, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def waveform(wave: ArrayLike, ax: Axes) -> None:
    """Draw the samples `(s,)` of a sound at 16 kHz over seconds."""
    samples = np.asarray(wave, dtype=np.float32)
    step = max(1, len(samples) // MOST_POINTS)
    chunks = rearrange(samples[: len(samples) // step * step], "(n step) -> n step", step=step)
    times = np.arange(len(chunks)) * step / SAMPLE_RATE
    ax.fill_between(times, chunks.min(1), chunks.max(1), color=COLOURS[0], linewidth=0.8)
    ax.set(xlabel="seconds", ylabel="amplitude", xlim=(0, len(samples) / SAMPLE_RATE))


def mel(
    log_mel: ArrayLike,
    ax: Axes,
    f0: ArrayLike | None = None,
    limits: tuple[float | None, float | None] = (None, None),
) -> AxesImage:
    """Draw a log-mel `(f m)` over seconds and Hz, and F0 `(f,)` in Hz over it on a scale of its own.

    `limits` are the lowest and highest value of the colours, to compare pictures; the mel's own without them.
    """
    frames = np.asarray(log_mel, dtype=np.float32)
    seconds = len(frames) / FRAME_RATE
    extent = (-HALF_FRAME, seconds - HALF_FRAME, -0.5, frames.shape[1] - 0.5)
    image = _image(frames.T, ax, extent, vmin=limits[0], vmax=limits[1])
    ax.set_yticks([mel_bin(hz) for hz in MEL_TICKS], [str(hz) for hz in MEL_TICKS])
    ax.set(xlabel="seconds", ylabel="Hz (mel scale)", xlim=(0, seconds))
    if f0 is not None:
        right = ax.twinx()
        outline = [Stroke(linewidth=5, foreground=INK), Normal()]
        _line(f0, right, color="white", linewidth=2.5, path_effects=outline)
        right.spines["right"].set_visible(True)
        right.set(ylabel="F0 in Hz", xlim=(0, seconds))
        fit_f0([right])
    return image


def melody(f0: ArrayLike, ax: Axes, label: str = "", colour: str = COLOURS[1]) -> None:
    """Draw F0 `(f,)` in Hz (0 where unvoiced) over seconds; the line breaks where nothing is voiced."""
    _line(f0, ax, color=colour, linewidth=2.5, label=label)
    ax.set(xlabel="seconds", ylabel="F0 in Hz")
    fit_f0([ax])
    if label:
        legend(ax)


def fit_f0(axes: Sequence[Axes]) -> None:
    """Give axes on which F0 is drawn one scale, logarithmic as hearing is, that fits all their voices."""
    drawn = [np.asarray(line.get_ydata(), dtype=np.float64) for ax in axes for line in ax.lines]
    voices = [voice[voice > 0] for voice in drawn if (voice > 0).any()]  # nor is NaN above 0
    near = [v[np.abs(12 * np.log2(v / np.median(v))) <= F0_REACH] for v in voices]
    low, high = (np.min(np.concatenate(near)), np.max(np.concatenate(near))) if near else F0_LIMITS
    room = max(2 * F0_MARGIN / 12, F0_OCTAVES - float(np.log2(high / low))) / 2
    limits = (float(low / 2**room), float(high * 2**room))
    ticks = [tick for tick in F0_TICKS if limits[0] <= tick <= limits[1]]
    for ax in axes:
        ax.set(yscale="log", ylim=limits)
        ax.set_yticks(ticks, [str(tick) for tick in ticks])
        ax.set_yticks([], minor=True)


def legend(ax: Axes) -> None:
    """Name what is drawn on all axes of a `sheet` in rows above them, where no curve is, each name once."""
    figure = ax.get_figure(root=True)
    assert figure is not None, "axes are on a figure"
    for old in list(figure.legends):
        old.remove()
    named: dict[str, Any] = {}
    for each in figure.axes:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    inches = [0.7 + 0.09 * len(label) for label in named]  # the sample of the line, and the letters
    room = figure.get_figwidth()
    columns = len(named) if sum(inches) <= room else int(room / max(inches))
    figure.legend(named.values(), named.keys(), loc="outside upper left", ncols=max(1, columns))


def tokens(digits: ArrayLike, ax: Axes) -> None:
    """Draw speech tokens as their digits `(t j)` in {-1, 0, 1}, a column each, over seconds (25 a second)."""
    columns = np.asarray(digits, dtype=np.float32)
    seconds = len(columns) / TOKEN_RATE
    _image(columns.T, ax, (0.0, seconds, 0.5, columns.shape[1] + 0.5))
    ax.set_yticks(range(1, columns.shape[1] + 1))
    ax.set(xlabel="seconds", ylabel="digit", xlim=(0, seconds))


def curve(values: Sequence[float] | ArrayLike, ax: Axes, label: str) -> None:
    """Draw a row of numbers over their place in it, such as a loss over steps; several share a legend."""
    numbers = np.asarray(values, dtype=np.float64)
    ax.plot(np.arange(1, len(numbers) + 1), numbers, linewidth=2.0, label=label)
    ax.set(xlabel="step")
    legend(ax)


def speech(
    wave: ArrayLike, seconds: float | None = None, peak: float | None = None, width: float = WIDTH
) -> Figure:
    """A sound `(s,)` at 16 kHz as waveform and mel with F0, one above the other on one axis of time.

    To compare sounds, `seconds` is how long the axis is and `peak` how high the waveform's axis reaches.
    """
    samples = np.asarray(wave, dtype=np.float32)
    log_mel, f0, _ = features.extract(samples)
    figure = Figure(figsize=(width, 4.4), dpi=DPI)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    figure.subplots_adjust(0.95 / width, 0.15, 1 - 0.85 / width, 0.9, hspace=0.12)
    waveform(samples, top)
    mel(log_mel, bottom, f0)
    highest = 1.1 * max(1e-3, peak or float(np.abs(samples).max()))
    top.set(xlabel="", xlim=(0, seconds or len(samples) / SAMPLE_RATE), ylim=(-highest, highest))
    return figure


def tuning(rows: pd.DataFrame, title: str = "") -> Picture:
    """Rows of `tune.monitor`: a panel for each measure over steps; a cross where something looks hacked."""
    figure, panels = sheet(2, 4, height=2.5)
    suspect = rows[rows["signs"] > 0]
    for ax, (name, label) in zip(panels.flat, TUNING.items(), strict=True):
        if name in rows:
            ax.plot(rows.index, rows[name], "o-", color=COLOURS[0], markersize=5)
            ax.plot(suspect.index, suspect[name], "X", color=COLOURS[3], markersize=11)
        ax.set_title(label, fontsize=13)
        ax.margins(y=0.2)
    for ax in panels[1]:
        ax.set_xlabel("step")
    last = "; ".join(f"{label} {rows[name].iloc[-1]:.2f}" for name, label in TUNING.items() if name in rows)
    alt, headings = f"{title or 'Tuning'}, at step {rows.index[-1]}: {last}. ", [title] if title else []
    if len(suspect):
        alt += f"Signs of reward hacking (crosses) at steps {', '.join(map(str, suspect.index))}."
        headings.append("✕ something looks like reward hacking; such a checkpoint ranks last")
    figure.suptitle(" · ".join(headings), fontsize=13)
    return Picture(figure, alt)


def _image(
    values: NDArray[np.float32], ax: Axes, extent: tuple[float, float, float, float], **look: Any
) -> AxesImage:
    """Rows of values as an image, the first row at the bottom."""
    look = {"cmap": COLOUR_MAP} | look
    return ax.imshow(values, origin="lower", aspect="auto", interpolation="nearest", extent=extent, **look)


def _line(f0: ArrayLike, ax: Axes, **look: Any) -> None:
    """F0 `(f,)` as a line with gaps."""
    hertz = np.asarray(f0, dtype=np.float64)
    times = np.arange(len(hertz)) / FRAME_RATE
    ax.plot(times, np.where(hertz > 0, hertz, np.nan), **look)


def clock(symbols: Sequence[str], places: ArrayLike, n_tokens: int, ax: Axes) -> None:
    """Draw where symbols `(n,)` stand on the language model's clock, in speech tokens, above the tokens."""
    previous, height = -np.inf, 0.5
    for symbol, place in zip(symbols, np.asarray(places, dtype=np.float64), strict=True):
        height = 0.5 if place - previous > 1 or height > 0.5 else 0.75
        previous = place
        ax.plot([place, place], [0.08, height], color=COLOURS[0], linewidth=1)
        ax.text(place, height + 0.05, symbol.strip() or SPACE, ha="center", color=COLOURS[0])
    ax.plot(np.arange(n_tokens) + 2, np.zeros(n_tokens), "s", color=COLOURS[3], markersize=4)
    ax.set(xlabel="place on the clock, in speech tokens of 40 ms", ylim=(-0.3, 1.15))
    ax.set_yticks([0, 0.6], ["speech", "text"])


def reading(weights: ArrayLike, symbols: Sequence[str], ax: Axes, places: ArrayLike) -> None:
    """Draw how strongly, 0 to 1, each speech token looks at each symbol of the text `(t, n)`.

    A line says where each symbol is expected to sound: its places `(n,)` on the clock, in speech tokens.
    """
    looks = np.asarray(weights, dtype=np.float64)
    image = ax.imshow(looks.T, aspect="auto", cmap=COLOUR_MAP, interpolation="nearest", vmin=0)
    clock = np.asarray(places, dtype=np.float64) - 2
    outline = [Stroke(linewidth=3.5, foreground=INK), Normal()]
    ax.plot(clock, range(len(clock)), color="white", linewidth=1.5, path_effects=outline, label="the clock")
    ax.set_yticks(range(len(symbols)), [symbol.strip() or SPACE for symbol in symbols], fontsize=9)
    ax.set(xlabel="speech token", ylabel="text, from top to bottom", xlim=(-0.5, len(looks) - 0.5))
    ax.legend(loc="lower left", labelcolor="white", frameon=False)
    ax.figure.colorbar(image, ax=ax, label="share of attention")


def bins(
    values: ArrayLike, ax: Axes, label: str, limits: tuple[float, float], colours: str = COLOUR_MAP
) -> None:
    """Draw what each frequency bin from 0 to 8 kHz has in each frame of 20 ms `(k, f)`, such as levels in dB.

    `label` says what it is, with the unit; angles need cyclic colours, such as `twilight`.
    """
    frames = np.asarray(values, dtype=np.float32)
    seconds = frames.shape[1] / FRAME_RATE
    extent = (0.0, seconds, 0.0, SAMPLE_RATE / 2000)
    image = _image(frames, ax, extent, vmin=limits[0], vmax=limits[1], cmap=colours)
    ax.set(xlabel="seconds", ylabel="kHz")
    ax.figure.colorbar(image, ax=ax, label=label)
