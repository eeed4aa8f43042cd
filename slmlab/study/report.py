"""The report of a run: one HTML page that plays and shows what was said, and what both studies found.

The page is made from what a run left in its folder (`report.json`, `rows.json`, `sounds/`, and
`instruments.json` if outside instruments heard it), and from the published rows.
"""

import collections
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slmlab import __version__, files, metrics, places
from slmlab.corpus.imports import ImportSpec
from slmlab.errors import LabError
from slmlab.files import plain, read_json, replace_text, write_json
from slmlab.language import languages
from slmlab.metrics import instruments
from slmlab.metrics.instruments import INSTRUMENTS, Encoder, Opened
from slmlab.metrics.statistics import average, draws_of, estimated
from slmlab.notebook import plots
from slmlab.sound import audio
from slmlab.speech import score
from slmlab.speech.chain import Chain
from slmlab.speech.sampling import usual
from slmlab.study import alignment, claims, conclusion, scaling, tables
from slmlab.study.page import page
from slmlab.study.tables import Section, section
from slmlab.training import checkpoints, shelf
from slmlab.training.cache import memory_mib
from slmlab.training.presets import preset

KEPT, PLAYED, WORST = 12, 3, 6
"""Sentences of each language whose sound is kept, and is played in the report; and the worst it lists."""
HEARD_OUTSIDE = "instruments.json"
PAPER = "The paper whose claims are tried here is Geng et al. 2026 (arXiv 2605.27383)."


def has_run(folder: Path) -> bool:
    """Whether a run left there what the page is made from."""
    return all((folder / name).exists() for name in ("report.json", "rows.json"))


def write(folder: Path) -> Path:
    """Make `report.html` beside what a run left; the page needs nothing else."""
    summary, rows = read_run(folder)
    plots.use_style()
    results, aligned, ledger = judged(summary["preset"])
    premises = claims.premises(results) if results else []
    whole = plain(summary | {"claims": ledger, "premises": premises})
    replace_text(folder / "report.json", json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    mixed, tuned = (tables.sounds_of(summary["preset"], study) for study in ("authentic.", "aligned-"))
    groups = {
        "This run": _of_the_run(folder, summary, rows),
        "More and more synthetic speech": tables.scaling_sections(results, premises, mixed)
        if results
        else _not_run(summary["preset"], "sweep"),
        "Tuning by preferences": tables.alignment_sections(aligned, tuned)
        if aligned
        else _not_run(summary["preset"], "align core --seed 0 1 2"),
    }
    if results or aligned:
        groups["The paper's claims"] = [tables.verdicts(ledger), tables.ledger(ledger)]
    first = _conclusion(summary, (results, aligned, ledger)) + _origin(summary)
    replace_text(folder / "report.html", page("What a small spoken language model says", first, groups))
    return folder / "report.html"


def _conclusion(summary: dict[str, Any], found: tuple[Any, Any, list[dict[str, Any]]]) -> str:
    """Three sentences, and how the paper's claims fared."""
    results, aligned, ledger = found
    speech = _stages(summary, "speak.").items()
    rates = {languages.find(code).name: stage["metrics"]["wer"] for code, stage in speech}
    said = [conclusion.of_the_run(rates), conclusion.of_scaling(results), conclusion.of_alignment(aligned)]
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in said)
    counts = f"<p class='note'>{PAPER} {verdicts(ledger)}</p>" if results or aligned else ""
    return f"<div class='first'>{sentences}{counts}</div>"


def _origin(summary: dict[str, Any]) -> str:
    """Where all this comes from: speech of whom, on what machine, for how long."""
    people = any(isinstance(spec, ImportSpec) for spec in preset(summary["preset"]).corpora["held_out"])
    stand_in = (
        "The recordings that it is compared with stand in for recordings of people: expressive speech of a "
        "synthesiser, with noise and room added."
    )
    compared = "The recordings that it is compared with are of people." if people else stand_in
    how = "with networks trained anew" if summary["fresh"] else "with checkpoints at hand"
    minutes = f"{summary['seconds'] / 60:.1f} minutes on {summary['machine']}"
    return (
        f"<p class='note'>All speech here was generated. {compared} Preset {escape(summary['preset'])}, seed "
        f"{summary['seeds'][0]}, commit {escape(str(summary['commit']))}: spoken and scored {how} in "
        f"{escape(minutes)}.</p>"
    )


def _not_run(preset_name: str, command: str) -> list[Section]:
    """What stands in place of a study without rows."""
    makes = f"`slmlab {command} --preset {preset_name}` runs it."
    elsewhere = f"It is made for {' and '.join(scaling.PRESETS)}: see `slmlab report --preset tiny`."
    remedy = makes if preset_name in scaling.PRESETS else elsewhere
    return [section("not_run", preset=preset_name, remedy=remedy)]


def judged(
    preset_name: str,
) -> tuple[scaling.Results | None, alignment.Aligned | None, list[dict[str, Any]]]:
    """The rows of both studies, and every claim with its verdict."""
    results, aligned = scaling.read_results(preset_name), alignment.read_results(preset_name)
    return results, aligned, claims.ledger(results, aligned)


LEDGER = """\
# The ledger of claims

Made by `slmlab report --ledger docs/ledger.md` from the rows under `data/results/`: do not edit it by hand.
[findings.md](findings.md) says in sentences what came out, defines every word, and tells how to read a row.

{counts}

{table}
"""


def ledger_page(preset_name: str) -> str:
    """The claims that have a verdict, as a page in Markdown: `docs/ledger.md`."""
    rows = [row for row in judged(preset_name)[2] if "estimate" in row]
    table = tables.ledger(rows)
    lines = [table.head, ["---"] * len(table.head), *table.lines]
    shown = ("| " + " | ".join(line[i] for i in (0, 1, 3, 5, 7)) + " |" for line in lines)
    return LEDGER.format(counts=verdicts(rows), table="\n".join(shown))


def verdicts(ledger: Sequence[dict[str, Any]]) -> str:
    """How many claims of a ledger have which verdict, of those that have one."""
    counted = collections.Counter(row["verdict"] for row in ledger if "estimate" in row)
    counts = ", ".join(f"{counted[name]} are {name}" for name in ("reproduced", "refuted", "inconclusive"))
    return f"Of {counted.total()} claims {counts}."


def picture(preset_name: str, file: Path) -> None:
    """Draw stability against expressivity, what the README shows, as a PNG; LabError if no arm was run."""
    results = scaling.read_results(preset_name)
    arms = claims.arms_of(results) if results else []
    if not arms:
        raise LabError(
            f"no arm of the scaling study is there at preset {preset_name}: `slmlab sweep` runs it"
        )
    plots.use_style()
    drawn = tables.gap(arms).picture
    assert drawn
    file.write_bytes(drawn.png())


def _stages(summary: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """The stages of a run whose names begin alike, by the rest of their names."""
    stages = summary["stages"].items()
    return {name.removeprefix(kind): stage for name, stage in stages if name.startswith(kind)}


def _of_the_run(folder: Path, summary: dict[str, Any], rows: list[dict[str, Any]]) -> list[Section]:
    """How well it is understood, how it sounds, where it went wrong, and what was trained."""
    judge = " and ".join(f"judge {name}" for name in sorted({row.get("judge", "b").upper() for row in rows}))
    rates = []
    for code, stage in _stages(summary, "speak.").items():
        cer, wer, sim = (stage["metrics"][name] for name in ("cer", "wer", "sim"))
        n = sum(row["language"] == code for row in rows)
        percents = [f"{100 * rate:.1f} %" for rate in (cer, wer)]
        rates.append([tables.spoken(code), f"{n}", *percents, "–" if sim is None else f"{sim:.2f}"])
    worst = []
    for row in sorted(rows, key=lambda row: -row["cer"])[:WORST]:
        meaning = languages.meaning(row["text"], row["language"]) or "–"
        worst.append([row["text"], meaning, row["heard"], f"{100 * row['cer']:.0f} %"])
    heard = folder / HEARD_OUTSIDE
    books, trained = (_stages(summary, kind) for kind in ("notebook.", "train."))
    executed = [[name, f"{stage['seconds']:.0f}"] for name, stage in books.items()]
    links = {name: f"notebooks/{name}.html" for name in books}
    lacking = partial(section, text="absent", preset=summary["preset"])
    return [
        section("rates", rates, judge=judge),
        *_sounds(folder, rows, judge),
        *(outside(read_json(heard)) if heard.exists() else [lacking("instruments")]),
        section("worst", worst, judge=judge),
        section("notebooks", executed, links=links) if executed else lacking("notebooks"),
        section("networks", [[name, f"{stage['seconds'] / 60:.1f}"] for name, stage in trained.items()]),
    ]


def _sounds(folder: Path, rows: list[dict[str, Any]], judge: str) -> list[Section]:
    """The first sounds of each language with what they say and what was understood; and their pictures."""
    played, count = list[tuple[str, Path]](), collections.Counter[str]()
    for row in rows:
        path = folder / "sounds" / row.get("sound", "")
        count[row["language"]] += 1
        if path.is_file() and count[row["language"]] <= PLAYED:
            said = tables.sentence(row["text"], row["language"])
            played.append((f"{tables.spoken(row['language'])}: {said}\nheard: {row['heard']}", path))
    if not played:
        return [section("listen", text="absent")]
    said, path = played[0]
    look = section("look", figure=plots.speech(audio.read(path)[0]), said=said)
    return [section("listen", sounds=played, judge=judge), look]


def outside(heard: list[dict[str, Any]]) -> list[Section]:
    """What instruments of other people's said of kept sounds, and of the recordings, beside the judge."""
    lines = []
    for code in dict.fromkeys(row["language"] for row in heard):
        own = [row for row in heard if row["language"] == code]
        lines.append(
            [tables.spoken(code), f"{len(own)}", *(_interval(own, name) for name in OUTSIDE.values())]
        )
    asked = [name for name in INSTRUMENTS.index if any(name in key for row in heard for key in row)]
    fooled = [[name, *INSTRUMENTS.loc[name, ["measures", "what fools it"]]] for name in asked]
    judge = next(row["judge"] for row in heard).upper()
    fools = "Whom it has not heard: it was trained in this lab, on few voices, and misreads many others."
    fooled.append([f"judge {judge}", "Words: the share of letters that it misreads.", fools])
    return [section("instruments", lines, list(OUTSIDE)), section("fooled", fooled)]


OUTSIDE = {
    "CER, judge": "cer",
    "CER, Whisper": "whisper_cer",
    "less the recordings'": "whisper_added",
    "DNSMOS": "dnsmos",
    "recordings' DNSMOS": "recording_dnsmos",
    "SIM, resemblyzer": "sim",
    "speech, Silero": "vad",
}
"""Columns of the table of instruments, and the figure in each."""


def _interval(rows: list[dict[str, Any]], name: str) -> str:
    """The mean of a figure over sentences with its interval, or a dash where nobody measured it."""
    values = np.array([row[name] for row in rows if row.get(name) is not None], dtype=np.float64)
    if len(values) < 2:
        return "–"
    mean = estimated(values.mean(), values[draws_of(len(values))].mean(1))
    return tables.bracketed(mean.value, *mean.interval(), ".2f")


def ask_instruments(folder: Path, opened: Opened) -> None:
    """Let opened instruments hear the kept sounds of a run and the recordings of the same sentences.

    `instruments.json` in its folder has a row a sound: what `instruments.figures` says, and the judge's CER.
    """
    summary, rows = read_run(folder)
    recordings = shelf.make(summary["preset"], "corpus.held_out")
    alone: Opened = {name: opened[name] for name in ("dnsmos", "vad") if name in opened}
    heard = []
    for code in dict.fromkeys(row["language"] for row in rows):
        test = score.held_out(recordings, "test", code)
        texts = list(test.rows["spoken"])
        for row in (row for row in rows if row["language"] == code and "sound" in row):
            wave = audio.read(folder / "sounds" / row["sound"])[0]
            if row["text"] not in texts:
                raise LabError(
                    f"the run in {folder} said other sentences than are recorded here: run it again."
                )
            recording = test.wave(texts.index(row["text"]))
            own = instruments.figures(opened, wave, row["text"], recording, code)
            theirs = instruments.figures(alone, recording)
            own |= {f"recording_{name}": value for name, value in theirs.items()}
            heard.append({name: row[name] for name in ("language", "text", "sound", "judge", "cer")} | own)
    if not heard:
        raise LabError(f"the run in {folder} kept no sounds: run it again.")
    write_json(folder / HEARD_OUTSIDE, heard)


def run(
    preset_name: str,
    folder: Path,
    fresh: bool = False,
    encoder: Encoder | None = None,
    lm: Path | None = None,
) -> None:
    """Let the chain, trained anew if asked, say the test sentences; leave rows, figures and sounds.

    Judge B scores; with an `encoder` judge C, who hears by it. `lm` speaks in place of the chain's own
    language models, in the languages that it knows.
    """
    started, spoken = time.monotonic(), _taught(preset_name, lm)
    networks = shelf.make(preset_name, fresh=fresh) if fresh else shelf.checkpoint_folder(preset_name)
    chain = Chain(networks, lm, shelf.adopted_folder(preset_name) if encoder else None, encoder)
    recordings = shelf.make(preset_name, "corpus.held_out")
    before = read_run(folder)[1] if has_run(folder) else []
    stages, rows, drawn = {}, [], {}
    for language in spoken:
        began = time.monotonic()
        test = score.held_out(recordings, "test", language)
        texts, waves, timbres = score.say_test(chain, language, test, preset(preset_name).n_test)
        said = score.score_sounds(chain, "chain", language, texts, waves, timbres)
        for i, (row, wave) in enumerate(zip(said, waves, strict=True), start=1):
            rows.append(_figures(wave.numpy(), row) | asdict(row))
            if i <= KEPT:
                rows[-1]["sound"] = f"{language}-{i}.wav"
                audio.write(folder / "sounds" / rows[-1]["sound"], wave.numpy())
        rates = score.corpus_rates(said) | {"sim": float(average([row.sim for row in said]))}
        stages[f"speak.{language}"] = {"seconds": time.monotonic() - began, "metrics": rates}
        drawn[language] = asdict(usual(chain.lm(language)))
    for name, card in checkpoints.list_checkpoints(chain.folder).items():
        stages[f"train.{name}"] = {"seconds": card.seconds, "metrics": dict(card.metrics)}
    write_json(folder / "rows.json", rows)
    gone = {row["sound"] for row in before if "sound" in row} - {row.get("sound") for row in rows}
    for old in (*(folder / "sounds" / name for name in gone), folder / HEARD_OUTSIDE):
        old.unlink(missing_ok=True)
    summary = {
        "preset": preset_name,
        "seeds": [preset(preset_name).lm.train.seed],
        "machine": machine(),
        "commit": commit(),
        "fresh": fresh,
        "lm": str(lm or ""),
        "sampling": drawn,
        "seconds": time.monotonic() - started,
        "peak_memory_gib": memory_mib() / 2**10,
        "stages": stages,
        "claims": [],
    }
    write_json(folder / "report.json", summary)


def _figures(wave: audio.Wave, row: score.Row) -> dict[str, float]:
    """Every metric of what was said; none of a sound that is silent or too short to be measured."""
    try:
        return metrics.describe(wave, row.text, heard=row.heard, language=row.language)
    except LabError:
        return {}


def _taught(preset_name: str, lm: Path | None) -> list[str]:
    """The languages of a preset that are said: all, or those that a given language model was tuned to."""
    facts = checkpoints.read_header(lm.with_name(lm.name + checkpoints.SUFFIX))["facts"] if lm else {}
    return [facts["language"]] if "language" in facts else list(preset(preset_name).languages)


def add_stages(folder: Path, seconds: dict[str, float]) -> None:
    """Put further stages, seconds by name, into the report.json of a run."""
    report = read_run(folder)[0]
    report["stages"] |= {name: {"seconds": taken, "metrics": {}} for name, taken in seconds.items()}
    write_json(folder / "report.json", report)


def read_run(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a run said of itself, and its rows; LabError where there is none."""
    if not has_run(folder):
        raise LabError(f"there is no run in {folder}: make one with `slmlab run`")
    file = folder / "report.json"
    summary, rows = read_json(file), read_json(folder / "rows.json")
    needed = ("preset", "seeds", "commit", "machine", "seconds", "fresh", "stages")
    if not isinstance(summary, dict) or any(name not in summary for name in needed):
        raise LabError(f"{file} is no report of a run: delete its folder and run again.")
    said = ("language", "text", "heard", "cer", "wer")
    if not isinstance(rows, list) or any(name not in row for row in rows for name in said):
        raise LabError(f"{folder / 'rows.json'} has no rows of a run: delete its folder and run again.")
    if leading := [row["sound"] for row in rows if Path(row.get("sound", "")).name != row.get("sound", "")]:
        raise LabError(
            f"{folder / 'rows.json'} names {leading[0]!r}, which is no sound of its own: it is not ours."
        )
    return summary, rows


def machine() -> str:
    """What this was measured on, in words."""
    usable, here = places.usable_cores(), os.cpu_count()
    ours = f"{usable} cores" if usable == here else f"{usable} of {here} cores"
    return (
        f"{platform.machine()}, {ours}, {platform.system()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}"
    )


def commit() -> str:
    """The commit of the code, or the version where there is no git."""
    command = ["git", "-C", str(files.ROOT), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return __version__
