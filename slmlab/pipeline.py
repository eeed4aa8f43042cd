"""What the commands do: find or make the checkpoints, speak, measure, score, and look after the machine.

What was computed lies in three places, asked in this order: `runs/<preset>/checkpoints` (made here),
`data/checkpoints/<preset>` (shipped), and training on the spot.
"""

import json
import math
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from slmlab import __version__, audio, checkpoints, metrics, recipes, score
from slmlab.checkpoints import Card
from slmlab.corpus import manifest, mixing
from slmlab.corpus.build import Corpus
from slmlab.corpus.engines import check
from slmlab.errors import LabError
from slmlab.presets import preset
from slmlab.sampling import SamplingConfig
from slmlab.stages import Stage, memory_mib, read_done, run_stages, stage_folders
from slmlab.statistics import average
from slmlab.text import LANGUAGE_NAMES, TARGET_LANGUAGES
from slmlab.voice import KINDS, VOICES, Chain, Speech

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"
CACHE = ROOT / "cache"
SHIPPED = ROOT / "data" / "checkpoints"
VOICE_NAMES = ("deep", "low", "mid", "clear", "high", "bright")
NETWORKS = (
    "tokenizer",
    "decoder",
    "vocoder",
    "speaker",
    "judge_a",
    "judge_b",
    "lm.backbone",
    "lm.vi",
    "lm.sw",
)
ORIGIN = "made_from.json"
SHORTEST_REFERENCE = 0.5
"""Seconds of the least sound that a voice or a manner is taken from."""
LONGEST_TEXT = 500
"""Characters of the longest text that is said in one go: the language models learnt single sentences."""
SHORTEST_MEASURED = 0.04
"""Seconds of the shortest sound that is measured: one speech token."""
LONGEST_MEASURED = 120.0
"""Seconds of the longest sound that is measured: aligning two sounds takes the product of their lengths."""


def _stages(preset_name: str) -> dict[str, Stage]:
    return {stage.name: stage for stage in recipes.stages(preset(preset_name))}


def corpora(preset_name: str) -> dict[str, Path]:
    """Speak every corpus of a preset, or find what was spoken; their folders by stage name."""
    wanted = [stage for name, stage in _stages(preset_name).items() if name.startswith("corpus.")]
    return run_stages(wanted, CACHE / preset_name)


def filter_corpora(preset_name: str) -> pd.DataFrame:
    """Let judge A hear what the target languages' models learn from: how much of it the paper's quality
    filter takes.

    The ledgers with judge A's scores are kept as `runs/<preset>/corpora/<corpus>.parquet`.

    Returns:
        By corpus and engine: `n`, `kept`, `acceptance`, the shares lost to each rule, and the `minutes` that
        can be taken equally from every engine.
    """
    chain = Chain(checkpoint_folder(preset_name))
    trusted = recipes.Utterances(held_out_folder(preset_name)).rows()
    target = RUNS / preset_name / "corpora"
    target.mkdir(parents=True, exist_ok=True)
    tables = []
    for group in TARGET_LANGUAGES:
        data = recipes.Utterances(corpus_folder(preset_name, group))
        rows = data.rows()
        rows["heard"] = [chain.read_mel(data.mel(i), "a") for i in range(len(data))]
        pairs = list(zip(rows["text"], rows["heard"], strict=True))
        rows["wer"], rows["cer"] = ([rate(*pair) for pair in pairs] for rate in (metrics.wer, metrics.cer))
        rows["duration_ratio"] = mixing.duration_ratios(rows, trusted)
        for kind, spoken in rows.groupby("kind"):
            passed = mixing.quality_filter(spoken)
            taken = spoken[mixing.balanced(spoken, passed.kept, seed=0)].groupby("engine")["seconds"].sum()
            minutes = taken.reindex(passed.engines["engine"], fill_value=0.0).to_numpy() / 60
            tables.append(passed.engines.assign(corpus=f"{group}, {kind}", minutes=minutes))
        manifest.write(rows, target / f"{group}.parquet")
    return pd.concat(tables, ignore_index=True).set_index("corpus")


def make(preset_name: str, stage: str = "all", fresh: bool = False) -> Path:
    """Train a stage and all it needs, or everything; the folder of the stage, or of all checkpoints
    together.
    """
    known = _stages(preset_name)
    if stage != "all" and stage not in known:
        raise LabError(f"there is no stage {stage!r}: choose one of {', '.join(known)}, or all")
    names = known.keys() if stage == "all" else _needs(known, stage)
    done = run_stages([known[name] for name in known if name in names], CACHE / preset_name, fresh=fresh)
    if stage != "all":
        return done[stage]
    return gather(done, RUNS / preset_name / "checkpoints")


def _needs(known: dict[str, Stage], stage: str) -> set[str]:
    return {stage}.union(*(_needs(known, needed) for needed in known[stage].inputs))


def gather(done: dict[str, Path], folder: Path) -> Path:
    """Copy every network into one folder, stored small, with a card each and six named voices."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VOICES).unlink(missing_ok=True)
    for name in NETWORKS:
        made = done[name]
        model, card = checkpoints.load(made / "model", *KINDS[name.split(".")[0]])
        seconds = read_done(made)["seconds"]
        kept = Card(config=model.config, facts=card.facts, metrics=card.metrics, seconds=seconds)
        checkpoints.save(folder / name, model, kept, small=True)
    _write_json(folder / ORIGIN, {name: path.name for name, path in done.items()})
    timbre = load_file(done["tokenizer"] / "timbre.safetensors")["timbre"]
    voices = recipes.Utterances(done["corpus.parts"]).voices
    means = torch.stack([timbre[voices == voice].mean(0) for voice in range(voices.max() + 1)])
    order = means[:, -1].argsort()
    places = np.linspace(0.1, 0.9, len(VOICE_NAMES)) * (len(order) - 1)
    _write_json(
        folder / VOICES,
        {
            name: means[order[round(float(place))]].tolist()
            for name, place in zip(VOICE_NAMES, places, strict=True)
        },
    )
    return folder


def ship(preset_name: str) -> Path:
    """Copy what was trained here to where it is shipped from; a copy that was cut off does not count."""
    made, target = RUNS / preset_name / "checkpoints", SHIPPED / preset_name
    (target / VOICES).unlink(missing_ok=True)
    shutil.copytree(made, target, ignore=shutil.ignore_patterns(VOICES), dirs_exist_ok=True)
    shutil.copy(made / VOICES, target)
    return target


def checkpoint_folder(preset_name: str = "tiny") -> Path:
    """Where the checkpoints of a preset lie: made here by the code as it is, shipped, or trained now."""
    here, shipped = RUNS / preset_name / "checkpoints", SHIPPED / preset_name
    if (here / VOICES).exists() and (here / ORIGIN).exists():
        wanted = stage_folders(list(_stages(preset_name).values()), CACHE / preset_name)
        if checkpoints.read_json(here / ORIGIN) == {name: path.name for name, path in wanted.items()}:
            return here
    return shipped if (shipped / VOICES).exists() else make(preset_name)


def speak(
    texts: Sequence[str],
    language: str,
    voice: str,
    style: Path | None = None,
    seed: int = 0,
    temperature: float | None = None,
    folder: Path | None = None,
    lm: Path | None = None,
) -> list[Speech]:
    """Say texts, each from the same seed.

    Args:
        voice: a shipped voice's name, or a sound file of a voice never heard before.
        style: a sound file whose manner is taken.
        temperature: None keeps the preset's.
        folder: of checkpoints; what is at hand unless given.
        lm: a tuned language model to speak with, in place of the folder's.

    Raises:
        LabError: a text, the language, voice or style cannot be used.
    """
    if language not in LANGUAGE_NAMES:
        raise LabError(f"language {language!r} is unknown: choose one of {', '.join(TARGET_LANGUAGES)}")
    for text in texts:
        if len(text) > LONGEST_TEXT:
            raise LabError(
                f"the text {text[:30]!r}… has {len(text)} characters, at most {LONGEST_TEXT} are said in one "
                "go: cut it into sentences."
            )
    chain = Chain(folder or checkpoint_folder(), lm)
    timbre = _timbre(chain, voice)
    sampling = SamplingConfig() if temperature is None else replace(SamplingConfig(), temperature=temperature)
    manner = chain.encode(_read(style)) if style else []
    n = len(texts)
    return chain.say(texts, language, timbre.expand(n, -1), sampling, [manner] * n, [seed] * n)


def keep_spoken(folder: Path, texts: Sequence[str], said: Sequence[Speech], seed: int) -> None:
    """Write `001.wav`, marked as generated, `001.txt` and `001.json` (tokens, seed), and so on: a folder of
    one system, as a listening test takes it.
    """
    for i, (text, speech) in enumerate(zip(texts, said, strict=True), start=1):
        audio.write(folder / f"{i:03d}.wav", speech.wave.numpy())
        checkpoints.replace_text(folder / f"{i:03d}.txt", text + "\n")
        _write_json(folder / f"{i:03d}.json", {"tokens": speech.codes, "seed": seed})


def _read(path: Path) -> torch.Tensor:
    wave, info = audio.read(path, max_seconds=30)
    if info.seconds < SHORTEST_REFERENCE:
        raise LabError(
            f"{path} lasts {info.seconds:.2f} s, too short to take a voice or a manner from: give at least "
            f"{SHORTEST_REFERENCE} s, better 3 s or more."
        )
    return torch.as_tensor(wave)


def _timbre(chain: Chain, voice: str) -> torch.Tensor:
    path = Path(voice)
    if voice not in chain.voices and (path.suffix or path.exists()):
        return chain.timbre(_read(path))
    return chain.named_timbre(voice)


def measure(
    sounds: Sequence[Path], texts: Sequence[str], references: Sequence[Path], folder: Path | None = None
) -> list[dict[str, Any]]:
    """Every metric that applies to each sound: judge B reads it, the tokenizer turns it into codes.

    Args:
        sounds: files of 40 ms to two minutes.
        texts: what each says, or none; with them come error rates and the speaking rate.
        references: a recording of each text, or none; with them come SIM and what compares melodies.
        folder: of checkpoints; None takes what `checkpoint_folder` finds.

    Returns:
        For each sound `sound`, `heard`, the figures of `metrics.describe`, of its codes `entropy` (bits, over
        windows of a second), `repetition` and where repeats lie on average, and with a text and a reference
        `calibrated_cer`: what the recogniser does not misread in the recording; None where undefined.
    """
    chain = Chain(folder or checkpoint_folder())
    rows = []
    for i, path in enumerate(sounds):
        wave, reference = _measurable(path), _measurable(references[i]) if references else None
        heard = chain.hear([torch.as_tensor(wave)])[0]
        figures = metrics.describe(
            wave,
            text=texts[i] if texts else None,
            reference=reference,
            heard=heard,
            embed=lambda sound: chain.timbre(torch.as_tensor(sound))[:-1].numpy(),
        )
        codes = chain.encode(torch.as_tensor(wave))
        figures["entropy"] = metrics.window_entropy(codes, score.ENTROPY_WINDOW)
        figures["repetition"] = metrics.repetition_rate(codes)
        repeats = metrics.where_repeats(codes)
        figures["repeats_at"] = float(repeats.mean()) if len(repeats) else math.nan
        if texts and reference is not None:
            recorded = metrics.cer(texts[i], chain.hear([torch.as_tensor(reference)])[0])
            figures["calibrated_cer"] = metrics.calibrated_cer(figures["cer"], recorded)
        rows.append({"sound": str(path), "heard": heard, **checkpoints.plain(figures)})
    return rows


def _measurable(path: Path) -> audio.Wave:
    wave, info = audio.read(path, LONGEST_MEASURED)
    if len(wave) < SHORTEST_MEASURED * audio.SAMPLE_RATE:
        raise LabError(
            f"{path} lasts {info.seconds:.3f} s, too short to be measured: give at least "
            f"{SHORTEST_MEASURED} s."
        )
    return wave


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a metric with what it is counted in, one column a sound."""

    def shown(value: Any) -> str:
        return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    names = list(dict.fromkeys(name for row in rows for name in row))
    titles = {name: f"{name} ({metrics.UNITS[name]})" if name in metrics.UNITS else name for name in names}
    cells = [[titles[name], *(shown(row.get(name)) for row in rows)] for name in names]
    widths = [max(len(line[i]) for line in cells) for i in range(len(rows) + 1)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def corpus_folder(preset_name: str, group: str) -> Path:
    """The folder of one group of corpora, spoken now if they are not there."""
    stage = _stages(preset_name)[f"corpus.{group}"]
    return run_stages([stage], CACHE / preset_name)[stage.name]


def held_out_folder(preset_name: str) -> Path:
    """The folder of the held-out recordings."""
    return corpus_folder(preset_name, "held_out")


def run(preset_name: str, fresh: bool = False) -> None:
    """Have the chain (trained anew if asked), let it say the test sentences, score them, keep rows, figures
    and sounds.
    """
    started = time.monotonic()
    chain = Chain(make(preset_name, fresh=fresh) if fresh else checkpoint_folder(preset_name))
    recordings = held_out_folder(preset_name)
    folder = RUNS / preset_name
    (folder / "sounds").mkdir(parents=True, exist_ok=True)
    stages, rows = {}, []
    for language in TARGET_LANGUAGES:
        began = time.monotonic()
        test = score.held_out(recordings, "test", language)
        said = score.speak_test(chain, language, test, preset(preset_name).n_test)
        rows += score.as_dicts(said)
        figures = score.corpus_rates(said) | {"sim": float(average([row.sim for row in said]))}
        stages[f"speak.{language}"] = {"seconds": time.monotonic() - began, "metrics": figures}
        _keep_sounds(chain, language, test, folder / "sounds")
    for name, card in checkpoints.list_checkpoints(chain.folder).items():
        stages[f"train.{name}"] = {"seconds": card.seconds, "metrics": dict(card.metrics)}
    _write_json(folder / "rows.json", rows)
    summary = {
        "preset": preset_name,
        "seeds": [preset(preset_name).lm.train.seed],
        "machine": machine(),
        "commit": commit(),
        "fresh": fresh,
        "seconds": time.monotonic() - started,
        "peak_memory_gib": peak_memory(),
        "stages": stages,
        "claims": [],
    }
    _write_json(folder / "report.json", summary)


def add_stages(folder: Path, seconds: dict[str, float]) -> None:
    """Put further stages, seconds by name, into the report.json of a run."""
    report = checkpoints.read_json(folder / "report.json")
    report["stages"] |= {name: {"seconds": taken, "metrics": {}} for name, taken in seconds.items()}
    _write_json(folder / "report.json", report)


def _keep_sounds(chain: Chain, language: str, test: Corpus, folder: Path, n: int = 3) -> None:
    texts = list(test.rows["spoken"])[:n]
    timbres = torch.stack([chain.named_timbre(name) for name in VOICE_NAMES[:: len(VOICE_NAMES) // n][:n]])
    for i, speech in enumerate(chain.say(texts, language, timbres[: len(texts)])):
        audio.write(folder / f"{language}-{i + 1}.wav", speech.wave.numpy())


def _write_json(path: Path, value: Any) -> None:
    content = json.dumps(checkpoints.plain(value), indent=1, ensure_ascii=False, allow_nan=False)
    checkpoints.replace_text(path, content + "\n")


def machine() -> str:
    """What this was measured on, in words."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
    )


def commit() -> str:
    """The commit of the code, or the version where there is no git."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return __version__


def peak_memory() -> float:
    """GiB that the largest process of this run has held so far: this one or a worker of it."""
    return memory_mib() / 2**10


def doctor() -> tuple[list[str], bool]:
    """Lines on what works here, and whether all that is needed does."""
    checks: list[tuple[str, bool]] = [(machine(), True)]
    try:
        checks.append((f"{check()} speaks", True))
    except LabError as error:
        checks.append((f"espeak-ng does not speak: {error}", False))
    shipped = (SHIPPED / "tiny" / VOICES).exists()
    checks.append(
        (
            "checkpoints of tiny are shipped"
            if shipped
            else "no checkpoints are shipped: the first use trains",
            True,
        )
    )
    free = shutil.disk_usage(ROOT).free / 2**30
    checks.append((f"{free:.0f} GiB of disk free (2 needed)", free >= 2))
    gpu = "a GPU is here" if torch.cuda.is_available() else "no GPU: the tiny preset needs none"
    checks.append((gpu, True))
    return [f"{'✓' if good else '✗'} {line}" for line, good in checks], all(good for _, good in checks)
