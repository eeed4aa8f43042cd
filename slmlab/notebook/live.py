"""A tuning as one picture, drawn anew whenever dev was measured: what it gains, what it costs."""

from pathlib import Path

import pandas as pd
from IPython.display import DisplayHandle, display

from slmlab.notebook import plots
from slmlab.preference.tune import name_of

PANELS = {
    "margin": "reward margin, nats",
    "accuracy": "pairs told apart",
    "drift": "drift, nats a token",
    "wer": "word error rate",
    "entropy": "H_p, bits",
    "f0_spread": "F0 spread, semitones",
    "length": "length over expected",
    "repetition": "repetition rate",
}
"""Columns of `tune.monitor` and what stands beside them."""


def picture(rows: pd.DataFrame, title: str = "") -> plots.Picture:
    """What was measured while tuning: a panel a measure over steps; a cross where something looks hacked.

    Args:
        rows: of `tune.monitor`; measures that it lacks stay empty.
        title: what the tuning is called.
    """
    figure, panels = plots.sheet(2, 4, height=2.5)
    suspect = rows[rows["signs"] > 0]
    for ax, (name, label) in zip(panels.flat, PANELS.items(), strict=True):
        if name in rows:
            ax.plot(rows.index, rows[name], "o-", color=plots.COLOURS[0], markersize=5)
            ax.plot(suspect.index, suspect[name], "X", color=plots.COLOURS[3], markersize=11)
        ax.set_title(label, fontsize=13)
        ax.margins(y=0.2)
    for ax in panels[1]:
        ax.set_xlabel("step")
    last = "; ".join(f"{label} {rows[name].iloc[-1]:.2f}" for name, label in PANELS.items() if name in rows)
    words, heads = f"{title or 'Tuning'}, at step {rows.index[-1]}: {last}. ", [title] if title else []
    if len(suspect):
        words += f"Signs of reward hacking (crosses) at steps {', '.join(map(str, suspect.index))}."
        heads.append("✕ something looks like reward hacking; such a checkpoint ranks last")
    figure.suptitle(" · ".join(heads), fontsize=13)
    return plots.Picture(figure, words)


class Live:
    """What a `Jury` may be given as `watch`: keeps one picture under a notebook's cell up to date."""

    def __init__(self) -> None:
        self.name = ""
        self.handle: DisplayHandle | None = None

    def __call__(self, name: str, rows: pd.DataFrame) -> None:
        """Show the tuning in the folder `name` as far as it is; another one begins another picture."""
        drawn = picture(rows, name_of(Path(name)))
        if name != self.name:
            self.name, self.handle = name, display(drawn, display_id=True)
        elif self.handle:  # there is none outside a notebook
            self.handle.update(drawn)
