"""What the faces show, as HTML and pictures: functions of votes and listening tests, without Gradio.

Whatever a person typed passes through `html.escape`: it is read, never run.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from slmlab.errors import LabError
from slmlab.people import export, ranking
from slmlab.people.design import BOTH_BAD, DISTORTED, LEFT, RIGHT, SCORES, SKIP, TIE, ListeningTest
from slmlab.people.schedule import GOLD, MAIN, PRACTICE, REPEAT, candidates, schedule
from slmlab.people.store import Place, Store
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
PLAYERS = {"pair": ("A", "B"), "nmos": ("the clip",), "smos": ("the voice", "the clip")}


def trial_page(store: Store, place: Place, message: str = "") -> str:
    """One trial: the question, the words, a player for each clip; or thanks when all are done."""
    trial, n = place.current, len(place.trials)
    if trial is None:
        thanks = "<h2>That was all. Thank you!</h2><p class='text'>Every answer is saved. You may close this "
        thanks += "page, or start another round.</p><p class='message'></p>"
        return _section(place, "trial done", {"u": "undo"}, f"{n} of {n}", thanks)
    keys = PAIR_KEYS if place.task == "pair" else {**RATE_KEYS, "p": len(trial.shown) - 1}
    by_clip = {number: key for key, number in keys.items() if isinstance(number, int)}
    players = "".join(
        f"<audio preload='auto' src='{_address(store, clip)}'></audio><button type='button' "
        f"data-clip='{i}'>▶ {PLAYERS[place.task][i]}<kbd>{by_clip[i].upper()}</kbd></button>"
        for i, clip in enumerate(trial.shown)
    )
    content = (
        f"<h2>{escape(store.test.questions[place.task])}</h2>"
        f"<p class='text'>{escape(store.test.by_name[trial.shown[-1]].text)}</p>"
        f"<div class='players'>{players}</div><p class='message' role='status'>{escape(message)}</p>"
        "<button type='button' class='override' hidden>Vote without hearing <kbd>O</kbd></button>"
    )
    kind = "practice, does not count · " if trial.kind == PRACTICE else ""
    return _section(place, "trial", keys, f"{kind}{place.trial + 1} of {n}", content)


def _address(store: Store, clip: str) -> str:
    """Of a clip's sound on the page."""
    return escape(f"/gradio_api/file={quote(str(store.clips / clip))}.wav")


def _section(place: Place, kind: str, keys: Mapping[str, str | int], far: str, content: str) -> str:
    """What page.js reads, around what people see."""
    face = "pair" if place.task == "pair" else "rate"
    return (
        f"<div class='lab'><section class='{kind}' data-face='{face}' data-keys='{escape(json.dumps(keys))}' "
        f"data-trial='{place.trial}' data-attempt='{place.attempt}'><div class='progress'>"
        f"<progress value='{place.trial}' max='{len(place.trials)}'></progress>{far}</div>"
        f"{content}</section></div>"
    )


def listen_page(store: Store, sentence: str) -> str:
    """One sentence by every system, side by side: sound, spectrogram with F0, words."""
    clips = [c for c in store.test.clips if c.sentence == sentence and c.system != DISTORTED]
    cards = "".join(
        f"<figure><h3>{escape(c.system)}</h3><audio controls src='{_address(store, c.name)}'></audio>"
        f"<img alt='spectrogram and F0' src='{spectrogram(str(store.clips / f'{c.name}.wav'))}'></figure>"
        for c in sorted(clips, key=lambda c: c.system)
    )
    text = next((c.text for c in clips if c.text), "")
    return f"<div class='lab'><p class='text'>{escape(text)}</p><div class='cards'>{cards}</div></div>"


@lru_cache(maxsize=512)
def spectrogram(path: str) -> str:
    """A sound file's log-mel spectrogram with its F0 drawn over it, as a data address."""
    mel, f0, _ = map(np.asarray, features.extract(audio.read(path)[0]))
    figure = Figure(figsize=(5, 2.6), layout="constrained")
    axes = figure.subplots()
    extent = (0, len(mel) / FRAME_RATE, 0, mel.shape[1])
    axes.imshow(mel.T, origin="lower", aspect="auto", cmap="Greys", extent=extent)
    axes.set(xlabel="seconds", yticks=[])
    pitch, hertz = axes.twinx(), np.where(f0 > 0, f0, np.nan)
    pitch.plot(np.arange(len(hertz)) / FRAME_RATE, hertz, color="#d1495b", linewidth=2.5)
    pitch.set(ylim=(50, 450), ylabel="F0 in Hz")
    return _picture(figure)


def results_page(store: Store, task: str) -> str:
    """Leaderboard, agreement, progress, whose votes count and why not, and notes."""
    test, votes = store.test, ranking.votes_of(store, task)
    excluded = ranking.exclusions(votes, test.rules, task)
    valid = ranking.counting(votes, excluded)
    scale = ", ".join(f"{score} {word}" for score, word in zip(SCORES, test.words, strict=True))
    scale = "A, B, no difference, both bad, skip" if task == "pair" else scale
    notes = "".join(f"<li>{escape(note)}</li>" for note in votes["note"] if note)
    parts = [
        f"<p>Asked: <b>{escape(test.questions[task])}</b> {escape(scale)}</p>",
        _progress(store, votes, task),
        "<p class='text'>No vote that counts yet.</p>" if valid.empty else _ranking(valid, test, task),
        _listeners(votes, excluded, test, task),
        f"<p class='quiet'>Told beforehand: {escape(test.instructions)}</p>",
        f"<h3>Notes</h3><ul>{notes}</ul>" if notes else "",
    ]
    return f"<div class='lab'>{''.join(parts)}</div>"


def _progress(store: Store, votes: pd.DataFrame, task: str) -> str:
    sessions = store.sessions().query("task == @task")
    done = (sessions["done"] == sessions["trials"]).sum()
    main = votes[votes["kind"] == MAIN]
    enough = (main.groupby("item").size() >= store.test.overlap).sum()
    return (
        f"<p>{len(main)} votes · {done} of {len(sessions)} sessions done · {enough} of "
        f"{len(candidates(store.test, task))} items judged by {store.test.overlap} or more</p>"
    )


def _ranking(valid: pd.DataFrame, test: ListeningTest, task: str) -> str:
    """The systems in order, and how far the listeners agree."""
    if task == "pair":
        board, n = ranking.leaderboard(valid, test.systems), valid["listener"].nunique()
        interval = f"95% interval over {n} listeners" if n > 1 else "no interval: one listener"
        page = interval_plot(board, "strength", f"Bradley-Terry strength (log-odds), {interval}")
        legend = "best: how often a system comes first when listeners are drawn again."
        page += f"{as_table(board)}<p class='quiet'>{legend}</p>"
    else:
        table = ranking.mean_scores(valid)
        page = interval_plot(table, "mean", "mean score", limits=(0.9, 5.1))
        table = table.rename(columns={"half": "± over all scores", "low": "low, listeners", "high": "high"})
        page += as_table(table) + as_table(ranking.paired_tests(valid))
    found = ranking.agreement(valid, task)
    words = "Agreement: not yet; two listeners must judge the same items, and not all in one way."
    if not np.isnan(found["alpha"]):
        interval = f"({found['low']:.2f} to {found['high']:.2f}) over {found['units']:.0f} items"
        words = f"Agreement of listeners, Krippendorff's α: <b>{found['alpha']:.2f}</b> {interval}; "
        words += "1 is perfect, 0 is what clicking anywhere reaches."
    return f"{page}<p>{words}</p>"


def _listeners(votes: pd.DataFrame, excluded: Mapping[str, str], test: ListeningTest, task: str) -> str:
    """How each listener did, whether their votes count, and the rule for that."""
    head = f"<h3>Listeners</h3><p>{escape(ranking.conditions(test.rules, task))}</p>"
    if votes.empty:
        return head
    table = ranking.listeners(votes)
    shares = {"checks right": ["gold_right", "gold"], "repeats alike": ["repeats_same", "repeats"]}
    alike = "the scores are at most 1 apart"
    if task == "pair":
        shares["took the left"] = ["left", "decided"]
        alike = "the same sound won again, from the other side, or neither did"
    columns = table[["listener", "trials"]].copy()
    for name, of in shares.items():
        columns[name] = [f"{part} of {whole}" for part, whole in table[of].to_numpy()]
    columns["counts?"] = [excluded.get(name, "yes") for name in table["listener"]]
    legend = f"Checks have a known answer; a repeat is alike if {alike}."
    return f"{head}{as_table(columns)}<p class='quiet'>{legend}</p>"


def interval_plot(
    table: pd.DataFrame, middle: str, label: str, limits: tuple[float, float] | None = None
) -> str:
    """Systems with a value and its interval (low, high), one line a system, as a picture."""
    figure = Figure(figsize=(9, 1.2 + 0.55 * len(table)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(table))[::-1]
    axes.hlines(places, table["low"], table["high"], color=BLUE, linewidth=4, alpha=0.5)
    axes.plot(table[middle], places, "o", color=BLUE, markersize=11)
    axes.set_yticks(places, table["system"], fontsize=14)
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.set_xlabel(label, fontsize=13)
    axes.set_xlim(limits)
    axes.tick_params(axis="x", labelsize=12)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return f"<img alt='{middle} of each system' src='{_picture(figure)}'>"


def round_length(test: ListeningTest) -> str:
    """How many judgements a round of pairs has, in words for those who will give them."""
    kinds = [trial.kind for trial in schedule(test, "pair", 0, {})]
    purposes = {PRACTICE: "to warm up", GOLD: "whose answer is known, to see who listens carefully"}
    purposes |= {REPEAT: "asked twice"}
    extra = [f"{kinds.count(kind)} {purpose}" for kind, purpose in purposes.items() if kind in kinds]
    among = f", {', '.join(extra)} among them" if extra else ""
    return f"A round has {len(kinds)} judgements{among}."


def export_page(store: Store, files: Sequence[Path]) -> str:
    """What was exported, where to, and which votes did not become preferences."""
    table = export.preferences(store)
    votes = ranking.votes_of(store)
    excluded = ranking.exclusions(votes, store.test.rules)
    words = [
        f"Written into {files[0].parent}: {', '.join(path.name for path in files)}.",
        f"{len(table)} of {len(votes)} votes on pairs are preferences for training; ties, skips, practice, "
        f"checks and repeats are not, nor what {len(excluded)} excluded listeners said.",
    ]
    if any(table[side].str.startswith("sha256:").any() for side in ("chosen", "rejected")):
        words.append("Their sounds came without tokens: training needs the folder of sounds (--clips).")
    return f"<div class='lab'>{''.join(f'<p class=text>{escape(line)}</p>' for line in words)}</div>"


def as_table(rows: pd.DataFrame) -> str:
    """A data frame as an escaped HTML table, numbers with two digits."""
    return str(rows.to_html(index=False, border=0, float_format="{:.2f}".format, na_rep="–", escape=True))


def _picture(figure: Figure) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def error_page(error: LabError) -> str:
    """A mistake, in a sentence."""
    return f"<div class='lab'><p class='message' role='status'>{escape(str(error))}</p></div>"
