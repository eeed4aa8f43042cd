"""What the faces show, as HTML and pictures: functions of tables and studies, without Gradio.

Whatever a person typed passes through `html.escape`: it is read, never run.
"""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from slmlab.errors import LabError
from slmlab.people import export, ranking
from slmlab.people.design import DISTORTED, Study
from slmlab.people.ranking import Leaderboard
from slmlab.people.schedule import GOLD, PRACTICE, REPEAT, schedule
from slmlab.people.store import BOTH_BAD, LEFT, RIGHT, SCORES, SKIP, TIE, Place, Store
from slmlab.sound import audio, features
from slmlab.sound.mel import FRAME_RATE

BLUE = "#2f5d8a"
PAIR_KEYS: Mapping[str, str | int] = {
    **{"1": 0, "2": 1, "a": LEFT, "ArrowLeft": LEFT, "b": RIGHT, "ArrowRight": RIGHT},
    **{"t": TIE, "x": BOTH_BAD, "s": SKIP, "u": "undo", "o": "override"},
}
RATE_KEYS: Mapping[str, str | int] = {
    **{score: score for score in SCORES},
    **{"r": 0, "p": -1, "s": SKIP, "u": "undo", "o": "override"},
}


def trial_page(study: Study, place: Place, address: Callable[[str], str], message: str = "") -> str:
    """One trial: the question, the words, a player for each clip; or thanks when all are done."""
    clips, names = study.by_name, _names(place.task)
    trial, n = place.current, len(place.trials)
    if trial is None:
        thanks = (
            "<h2>That was all. Thank you!</h2><p class='text'>Every answer is saved. You may close this "
            "page, or start another round.</p><p class='message'></p>"
        )
        return _section(place, "trial done", {"u": "undo"}, f"{n} of {n}", thanks)
    keys = PAIR_KEYS if place.task == "pair" else {**RATE_KEYS, "p": len(trial.shown) - 1}
    by_clip = {number: key for key, number in keys.items() if isinstance(number, int)}
    players = "".join(
        f"<audio preload='auto' src='{escape(address(clip))}'></audio>"
        f"<button type='button' data-clip='{i}'>▶ {names[i]}<kbd>{by_clip[i].upper()}</kbd></button>"
        for i, clip in enumerate(trial.shown)
    )
    content = (
        f"<h2>{escape(_question(study, place.task))}</h2>"
        f"<p class='text'>{escape(clips[trial.shown[-1]].text)}</p>"
        f"<div class='players'>{players}</div><p class='message' role='status'>{escape(message)}</p>"
        "<button type='button' class='override' hidden>Vote without hearing <kbd>O</kbd></button>"
    )
    kind = "practice, does not count · " if trial.kind == PRACTICE else ""
    return _section(place, "trial", keys, f"{kind}{place.trial + 1} of {n}", content)


def _section(place: Place, kind: str, keys: Mapping[str, str | int], far: str, content: str) -> str:
    """What page.js reads, around what people see."""
    bar = f"<progress value='{place.trial}' max='{len(place.trials)}'></progress>"
    return (
        f"<div class='lab'><section class='{kind}' data-face='{_face(place)}' "
        f"data-keys='{escape(json.dumps(keys))}' data-trial='{place.trial}' data-attempt='{place.attempt}'>"
        f"<div class='progress'>{bar}{far}</div>"
        f"{content}</section></div>"
    )


def _face(place: Place) -> str:
    return "pair" if place.task == "pair" else "rate"


def _names(task: str) -> tuple[str, ...]:
    return {"pair": ("A", "B"), "nmos": ("the clip",), "smos": ("the voice", "the clip")}[task]


def _question(study: Study, task: str) -> str:
    return {"pair": study.question, "nmos": study.nmos, "smos": study.smos}[task]


def _scale(study: Study, task: str) -> str:
    """The words of the answers."""
    if task == "pair":
        return "A, B, no difference, both bad, skip"
    return ", ".join(f"{score} {word}" for score, word in zip(SCORES, study.words, strict=True))


def listen_page(study: Study, sentence: str, folder: Path, address: Callable[[str], str]) -> str:
    """One sentence by every system, side by side: sound, spectrogram with F0, words."""
    said = [c for c in study.clips if c.sentence == sentence and c.system != DISTORTED]
    cards = "".join(
        f"<figure><h3>{escape(c.system)}</h3><audio controls src='{escape(address(c.name))}'></audio>"
        f"<img alt='spectrogram and F0' src='{spectrogram(str(folder / f'{c.name}.wav'))}'></figure>"
        for c in sorted(said, key=lambda c: c.system)
    )
    text = next((c.text for c in said if c.text), "")
    return f"<div class='lab'><p class='text'>{escape(text)}</p><div class='cards'>{cards}</div></div>"


@lru_cache(maxsize=512)
def spectrogram(path: str) -> str:
    """A sound file's log-mel spectrogram with its F0 drawn over it, as a data address."""
    mel, f0, _ = features.extract(audio.read(path)[0])
    figure = Figure(figsize=(5, 2.6), layout="constrained")
    axes = figure.subplots()
    seconds = len(mel) / FRAME_RATE
    axes.imshow(mel.T, origin="lower", aspect="auto", cmap="Greys", extent=(0, seconds, 0, mel.shape[1]))
    axes.set(xlabel="seconds", yticks=[])
    pitch = axes.twinx()
    hertz = np.where(f0.numpy() > 0, f0.numpy(), np.nan)
    pitch.plot(np.arange(len(hertz)) / FRAME_RATE, hertz, color="#d1495b", linewidth=2.5)
    pitch.set(ylim=(50, 450), ylabel="F0 in Hz")
    return _picture(figure)


def results_page(store: Store, task: str) -> str:
    """Leaderboard, agreement, progress, exclusions with their reasons, and notes."""
    study, votes = store.study, ranking.votes_of(store, task)
    excluded = ranking.exclusions(votes, study.rules, task)
    kept = ranking.counting(votes, excluded)
    far = ranking.progress(store, task)
    parts = [
        f"<p>Asked: <b>{escape(_question(study, task))}</b> {escape(_scale(study, task))}</p>",
        f"<p>{far['votes']:.0f} votes · {far['done']:.0f} of {far['sessions']:.0f} sessions done · "
        f"{far['enough']:.0f} of {far['items']:.0f} items judged by {study.overlap} or more</p>",
    ]
    if kept.empty:
        parts.append("<p class='text'>No vote that counts yet.</p>")
    else:
        parts += [*_ranking_parts(kept, study, task), _agreement_line(kept, task)]
    parts.append(_exclusion_part(votes, excluded, task))
    parts.append(f"<p class='quiet'>Told beforehand: {escape(study.instructions)}</p>")
    notes = votes.loc[votes["note"] != "", "note"]
    if len(notes):
        parts.append("<h3>Notes</h3><ul>" + "".join(f"<li>{escape(n)}</li>" for n in notes) + "</ul>")
    return f"<div class='lab'>{''.join(parts)}</div>"


def _ranking_parts(kept: pd.DataFrame, study: Study, task: str) -> list[str]:
    if task != "pair":
        table = ranking.mean_scores(kept)
        system, mean, low, high = (table[name] for name in ("system", "mean", "low", "high"))
        picture = interval_plot(system, mean, low, high, "mean score", limits=(0.9, 5.1))
        table = table.rename(columns={"half": "± over all scores", "low": "low, listeners", "high": "high"})
        tests = ranking.paired_tests(kept)
        return [f"<img alt='mean scores' src='{picture}'>", as_table(table), as_table(tests)]
    board = ranking.leaderboard(kept, study.systems)
    legend = "best: how often a system comes first when listeners are drawn again."
    picture = f"<img alt='leaderboard' src='{leaderboard_plot(board)}'>"
    return [picture, as_table(board.table), f"<p class='quiet'>{legend}</p>"]


def _agreement_line(kept: pd.DataFrame, task: str) -> str:
    found = ranking.agreement(kept, task)
    if np.isnan(found["alpha"]):
        return "<p>Agreement: not yet; two listeners must judge the same items, and not all in one way.</p>"
    return (
        f"<p>Agreement of listeners, Krippendorff's α: <b>{found['alpha']:.2f}</b> "
        f"({found['low']:.2f} to {found['high']:.2f}) over {found['units']:.0f} items; "
        "1 is perfect, 0 is what clicking anywhere reaches.</p>"
    )


def _exclusion_part(votes: pd.DataFrame, excluded: Mapping[str, str], task: str) -> str:
    if votes.empty:
        return ""
    table = ranking.listeners(votes)
    shown = pd.DataFrame(
        {
            "listener": table["listener"],
            "trials": table["trials"],
            "checks right": [f"{a} of {b}" for a, b in zip(table["gold_right"], table["gold"], strict=True)],
            "repeats alike": [
                f"{a} of {b}" for a, b in zip(table["repeats_same"], table["repeats"], strict=True)
            ],
            "took the left": [f"{a} of {b}" for a, b in zip(table["left"], table["decided"], strict=True)],
            "counts?": [excluded.get(name, "yes") for name in table["listener"]],
        }
    )
    alike = "the same sound won again, from the other side, or neither did"
    if task != "pair":
        shown, alike = shown.drop(columns="took the left"), "the scores are at most 1 apart"
    legend = f"Checks have a known answer; a repeat is alike if {alike}."
    return f"<h3>Listeners</h3>{as_table(shown)}<p class='quiet'>{legend}</p>"


def leaderboard_plot(board: Leaderboard) -> str:
    """Strengths with their intervals, the best on top, as a data address."""
    t = board.table
    interval = f"{board.level:.0%} interval over {board.listeners} listeners"
    interval = interval if board.listeners > 1 else "no interval: one listener"
    label = f"Bradley-Terry strength (log-odds), {interval}"
    return interval_plot(t["system"], t["strength"], t["low"], t["high"], label)


def interval_plot(
    names: Sequence[str],
    middle: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    label: str,
    limits: tuple[float, float] | None = None,
) -> str:
    """Points with intervals, one line a name, as a data address."""
    figure = Figure(figsize=(9, 1.2 + 0.55 * len(names)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(names))[::-1]
    axes.hlines(places, low, high, color=BLUE, linewidth=4, alpha=0.5)
    axes.plot(middle, places, "o", color=BLUE, markersize=11)
    axes.set_yticks(places, names, fontsize=14)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(label, fontsize=13)
    axes.set_xlim(limits)
    axes.tick_params(axis="x", labelsize=12)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return _picture(figure)


def round_length(study: Study) -> str:
    """How many judgements a round of pairs has, in words for those who will give them."""
    kinds = [trial.kind for trial in schedule(study, "pair", 0, {})]
    extra = [
        f"{n} {what}"
        for n, what in (
            (kinds.count(PRACTICE), "to warm up"),
            (kinds.count(GOLD), "with a known answer, which show who listens"),
            (kinds.count(REPEAT), "asked twice"),
        )
        if n
    ]
    among = f", {', '.join(extra)} among them" if extra else ""
    return f"A round has {len(kinds)} judgements{among}."


def export_page(store: Store, written: Sequence[Path]) -> str:
    """What was exported, where to, and which votes did not become preferences."""
    table = export.preferences(store)
    votes = ranking.votes_of(store)
    excluded = ranking.exclusions(votes, store.study.rules)
    words = [
        f"Written into {written[0].parent}: {', '.join(path.name for path in written)}.",
        f"{len(table)} of {len(votes)} votes on pairs are preferences for training; ties, skips, practice, "
        f"checks and repeats are not, nor what {len(excluded)} excluded listeners said.",
    ]
    if any(table[side].str.startswith("sha256:").any() for side in ("chosen", "rejected")):
        words.append("Their sounds came without tokens: training needs the folder of sounds (--clips).")
    return f"<div class='lab'>{''.join(f'<p class=text>{escape(line)}</p>' for line in words)}</div>"


def as_table(rows: pd.DataFrame) -> str:
    """A data frame as an escaped HTML table, numbers with two digits."""
    return str(
        rows.to_html(index=False, border=0, float_format=lambda x: f"{x:.2f}", na_rep="–", escape=True)
    )


def _picture(figure: Figure) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def error_page(error: LabError) -> str:
    """A mistake, in a sentence."""
    return f"<div class='lab'><p class='message' role='status'>{escape(str(error))}</p></div>"
