"""The report of a run: one HTML page that plays and shows what was said, and what both studies found.

The page is made from the `report.json`, `rows.json` and `sounds/` of a run, and from the published rows.
"""

import base64
import collections
import html
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from slmlab import __version__, cores, files
from slmlab.corpus.build import Corpus
from slmlab.errors import LabError
from slmlab.files import plain, read_json, replace_text, write_json
from slmlab.language import languages
from slmlab.metrics.instruments import Encoder
from slmlab.metrics.statistics import average
from slmlab.notebook import plots
from slmlab.sound import audio
from slmlab.speech import score
from slmlab.speech.chain import Chain
from slmlab.study import alignment, claims, scaling, tables
from slmlab.study.tables import Section
from slmlab.training import checkpoints, shelf
from slmlab.training.cache import memory_mib
from slmlab.training.presets import preset

STYLE = """
body { font: 18px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 3rem auto; padding: 0 1.5rem;
  color: #1d2733; }
h1, h2 { line-height: 1.2; font-weight: 600; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; } th, td { padding: .4rem .8rem .4rem 0; text-align: left; }
th { border-bottom: 2px solid #1d2733; } td { border-bottom: 1px solid #dde3ea; }
td.n { font-variant-numeric: tabular-nums; } figure { margin: 1.5rem 0; } img { width: 100%; }
audio { width: 100%; }
.note { color: #55626f; }
.wide { overflow-x: auto; font-size: 15px; }
"""


def has_run(folder: Path) -> bool:
    """Whether a run left there what the page is made from."""
    return all((folder / name).exists() for name in ("report.json", "rows.json"))


def write(folder: Path) -> Path:
    """Make `report.html` beside what a run left; the page needs nothing else."""
    if not has_run(folder):
        raise LabError(f"there is no run in {folder}: make one with `slmlab run`")
    plots.use_style()
    summary, rows = _read(folder / "report.json"), read_json(folder / "rows.json")
    results, aligned, ledger = judged(summary["preset"])
    premises = claims.premises(results) if results else []
    whole = plain(summary | {"claims": ledger, "premises": premises})
    replace_text(folder / "report.json", json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    rates, worst, networks = _of_the_run(summary, rows)
    how = (
        "trained anew, spoken and scored"
        if summary["fresh"]
        else "spoken and scored with checkpoints at hand"
    )
    page = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>slmlab report</title>",
        f"<style>{STYLE}</style><h1>What a small spoken language model says</h1>",
        f"<p>Preset {_safe(summary['preset'])}, seed {summary['seeds'][0]}, "
        f"commit {_safe(summary['commit'])}, {_safe(summary['machine'])}. "
        f"Everything was {how} in {summary['seconds'] / 60:.1f} minutes.</p>",
        "<p class='note'>All speech here was generated. The recordings that it is compared with are a "
        "stand-in for recordings of people: lively speech of a formant synthesiser, with noise and room "
        "added.</p>",
        _section(rates),
        "<h2>Listen and look</h2>",
        *(_sound(path) for path in sorted((folder / "sounds").glob("*.wav"))),
        _section(worst),
        "<h2>The notebooks, executed</h2>",
        _notebooks(_stages(summary, "notebook.")),
        _section(networks),
    ]
    parts = [tables.ledger(ledger)] if aligned else []
    if results:
        sounds = tables.sounds_of(summary["preset"], "authentic.")
        parts = tables.scaling_sections(results, ledger, premises, sounds)
    if aligned:
        parts += tables.alignment_sections(aligned, tables.sounds_of(summary["preset"], "aligned-"))
    page += map(_section, parts)
    missing = {"scaling": (results, "sweep"), "alignment": (aligned, "align core --seed 0 1 2")}
    page += [
        f"<h2>The {study} study</h2><p>It has not been run at this preset: <code>slmlab {command}</code>.</p>"
        for study, (rows_of, command) in missing.items()
        if rows_of is None
    ]
    replace_text(folder / "report.html", "\n".join([*page, "</html>"]))
    return folder / "report.html"


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
    verdicts = collections.Counter(row["verdict"] for row in rows)
    counts = ", ".join(f"{verdicts[name]} are {name}" for name in ("reproduced", "refuted", "inconclusive"))
    table = tables.ledger(rows)
    lines = [table.head, ["---"] * len(table.head), *table.lines]
    shown = ("| " + " | ".join(line[i] for i in (0, 1, 3, 5, 7)) + " |" for line in lines)
    return LEDGER.format(counts=f"Of {len(rows)} claims {counts}.", table="\n".join(shown))


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


def _safe(value: Any) -> str:
    return html.escape(str(value))


def _data(kind: str, content: bytes) -> str:
    """Content inside the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _stages(summary: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """The stages of a run whose names begin alike, by the rest of their names."""
    stages = summary["stages"].items()
    return {name.removeprefix(kind): stage for name, stage in stages if name.startswith(kind)}


def _of_the_run(summary: dict[str, Any], rows: list[dict[str, Any]]) -> list[Section]:
    """How well it is understood, where it went wrong, and what was trained."""
    rates = []
    for language, stage in _stages(summary, "speak.").items():
        cer, wer, sim = (stage["metrics"][name] for name in ("cer", "wer", "sim"))
        percents = [f"{100 * rate:.1f} %" for rate in (cer, wer)]
        rates.append([languages.find(language).name, *percents, "–" if sim is None else f"{sim:.2f}"])
    worst = sorted(rows, key=lambda row: -row["cer"])[:6]
    judges = sorted({row.get("judge", "b").upper() for row in rows}) or ["B"]
    judge = f"judge {' and '.join(judges)}"
    trained = _stages(summary, "train.").items()
    tables_of = {
        "How well it is understood": (
            ["Language", f"CER ({judge})", f"WER ({judge})", "SIM to the wanted voice"],
            rates,
        ),
        "Where it went wrong": (
            ["To be said", "Understood", "CER"],
            [[row["text"], row["heard"], f"{100 * row['cer']:.0f} %"] for row in worst],
        ),
        "What was trained": (
            ["Network", "Minutes of training"],
            [[name, f"{stage['seconds'] / 60:.1f}"] for name, stage in trained],
        ),
    }
    return [Section(title, head=head, lines=lines) for title, (head, lines) in tables_of.items()]


def _notebooks(stages: dict[str, dict[str, Any]]) -> str:
    """Links to the executed series, with the time that each took."""
    if not stages:
        return "<p class='note'>None was executed in this run.</p>"
    lines = "".join(
        f"<li><a href='notebooks/{_safe(name)}.html'>{_safe(name)}</a>, {stage['seconds']:.0f} s</li>"
        for name, stage in stages.items()
    )
    return f"<ul>{lines}</ul>"


def _section(part: Section) -> str:
    """A part of a study."""
    parts = [f"<h2>{_safe(part.title)}</h2>", f"<p>{_safe(part.text)}</p>" if part.text else ""]
    if part.picture:
        parts.append(f"<img alt='{_safe(part.picture.alt)}' src='{_data('image/png', part.picture.png())}'>")
    if part.lines:
        top = "".join(f"<th>{_safe(cell)}</th>" for cell in part.head)
        rows = ("".join(f"<td class='n'>{_safe(cell)}</td>" for cell in line) for line in part.lines)
        table = f"<tr>{top}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows)
        parts.append(f"<div class='wide'><table>{table}</table></div>")
    for name, path in part.sounds:
        player = f"<audio controls src='{_data('audio/flac', path.read_bytes())}'></audio>"
        parts.append(f"<figure><figcaption>{_safe(name)}</figcaption>{player}</figure>")
    return "\n".join(parts)


def _sound(path: Path) -> str:
    """A player and the picture of one sound."""
    name, picture = _safe(path.stem), plots.as_png(plots.speech(audio.read(path)[0]))
    return (
        f"<figure><figcaption>{name}</figcaption><audio controls "
        f"src='{_data('audio/wav', path.read_bytes())}'></audio>"
        f"<img alt='waveform, mel spectrogram and F0 of {name}' src='{_data('image/png', picture)}'></figure>"
    )


def run(preset_name: str, fresh: bool = False, encoder: Encoder | None = None) -> None:
    """Let the chain, trained anew if asked, say the test sentences; leave rows, figures and sounds.

    Judge B scores; with an `encoder` judge C, who hears by it.
    """
    started = time.monotonic()
    networks = shelf.make(preset_name, fresh=fresh) if fresh else shelf.checkpoint_folder(preset_name)
    chain = Chain(networks, None, shelf.adopted_folder(preset_name) if encoder else None, encoder)
    recordings = shelf.make(preset_name, "corpus.held_out")
    folder = files.RUNS / preset_name
    (folder / "sounds").mkdir(parents=True, exist_ok=True)
    stages, rows = {}, []
    for language in scaling.languages(preset_name):
        began = time.monotonic()
        test = score.held_out(recordings, "test", language)
        spoken = score.speak_test(chain, language, test, preset(preset_name).n_test)
        rows += spoken
        figures = score.corpus_rates(spoken) | {"sim": float(average([row.sim for row in spoken]))}
        stages[f"speak.{language}"] = {"seconds": time.monotonic() - began, "metrics": figures}
        _speak_samples(chain, language, test, folder / "sounds")
    for name, card in checkpoints.list_checkpoints(chain.folder).items():
        stages[f"train.{name}"] = {"seconds": card.seconds, "metrics": dict(card.metrics)}
    write_json(folder / "rows.json", rows)
    summary = {
        "preset": preset_name,
        "seeds": [preset(preset_name).lm.train.seed],
        "machine": machine(),
        "commit": commit(),
        "fresh": fresh,
        "seconds": time.monotonic() - started,
        "peak_memory_gib": memory_mib() / 2**10,
        "stages": stages,
        "claims": [],
    }
    write_json(folder / "report.json", summary)


def add_stages(folder: Path, seconds: dict[str, float]) -> None:
    """Put further stages, seconds by name, into the report.json of a run."""
    report = _read(folder / "report.json")
    report["stages"] |= {name: {"seconds": taken, "metrics": {}} for name, taken in seconds.items()}
    write_json(folder / "report.json", report)


def _read(file: Path) -> dict[str, Any]:
    """What a run said of itself; LabError where that is no report."""
    report = read_json(file)
    needed = ("preset", "seeds", "commit", "machine", "seconds", "fresh", "stages")
    if not isinstance(report, dict) or any(name not in report for name in needed):
        raise LabError(f"{file} is no report of a run: delete its folder and run again.")
    return report


def _speak_samples(chain: Chain, language: str, test: Corpus, folder: Path, n: int = 3) -> None:
    texts, names = list(test.rows["spoken"])[:n], shelf.VOICE_NAMES[:: len(shelf.VOICE_NAMES) // n][:n]
    timbres = torch.stack([chain.named_timbre(name) for name in names])
    for i, speech in enumerate(chain.say(texts, language, timbres[: len(texts)])):
        audio.write(folder / f"{language}-{i + 1}.wav", speech.wave.numpy())


def machine() -> str:
    """What this was measured on, in words."""
    usable, here = cores.usable(), os.cpu_count()
    ours = f"{usable} cores" if usable == here else f"{usable} of {here} cores"
    return (
        f"{platform.machine()}, {ours}, {platform.system()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}"
    )


def commit() -> str:
    """The commit of the code, or the version where there is no git."""
    command = ["git", "-C", str(files.ROOT), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return __version__
