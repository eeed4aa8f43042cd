"""`slmlab sweep`: every cell of the scaling study that has no rows yet, side by side, and the rows it leaves.

Rows lie under `data/results/`: for each arm a file of sentences and a file of cells. A cell is known by a
digest of its settings and of the checkpoints it was made with; a cell whose rows are there is not run again.
What a cell made on its way lies in the cache: a run that was killed goes on there, mid-training.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from slmlab import files
from slmlab.corpus.build import CorpusSpec
from slmlab.errors import LabError
from slmlab.files import digest
from slmlab.language.text import for_scoring
from slmlab.metrics import corpus_cer
from slmlab.sound import audio
from slmlab.speech import score
from slmlab.speech.chain import Chain
from slmlab.speech.sampling import SamplingConfig
from slmlab.study import ground, scaling
from slmlab.study.rows import RESULTS, write_flac, write_rows
from slmlab.study.scaling import BUDGET, ENTROPY, LANGUAGE, REAL, Cell, Study
from slmlab.training import checkpoints, recipes, shelf
from slmlab.training.cache import DONE, Stage, locked, read_done, run_stages, stage_folders
from slmlab.training.presets import preset

FORMAT = 2
"""Counts up when the same settings begin to give other rows."""
PARTS = ("tokenizer", "decoder", "vocoder", "speaker", "judge_b", "lm.backbone")
ARMS = (*REAL, *BUDGET, ENTROPY)
ENTROPY_AT = 0.5
PRESETS = ("smoke", "tiny")
KEYS = ["arm", "point", "seed"]
SENTENCE = ["split", "sentence", "temperature", "noise", "sample"]
COUNTS = ["word_errors", "words", "letter_errors", "letters"]
SMOKE = {
    "steps": 3,
    "minutes": (0.1, 0.2),
    "authentic_minutes": 0.2,
    "helping_minutes": 0.8,
    "n_test": 8,
    "n_dev": 8,
    "n_many": 3,
}


@dataclass(frozen=True)
class Results:
    """All that the study has found so far."""

    rows: pd.DataFrame
    """One sentence of one cell a row: `arm`, `point`, `seed`, `split`, `sentence`, … and its metrics."""
    cells: pd.DataFrame
    """One cell a row: its mixture, corpus entropies with draws, and what it cost."""
    recordings: pd.DataFrame
    """The recordings of the same sentences, measured alike."""
    mixture: pd.DataFrame
    """`kind`, `codes`: training speech as tokens, equally long of each kind."""
    premises: dict[str, float]
    """Does the ground hold? Figures by name."""


def study_of(preset_name: str, folder: Path | None = None) -> Study:
    """The study at a preset, with the checkpoints at hand or those of a folder.

    Raises:
        LabError: the study was not made for that preset.
    """
    if preset_name not in PRESETS:
        raise LabError(f"The studies run at {' or '.join(PRESETS)}, not at preset {preset_name!r}.")
    study = Study(preset_name, str(folder or shelf.checkpoint_folder(preset_name)))
    return replace(study, **SMOKE) if preset_name == "smoke" else study  # type: ignore[arg-type]


def plan(study: Study, arms: Sequence[str], seeds: Sequence[int], alphas: Sequence[float] = ()) -> list[Cell]:
    """The cells asked for, seed by seed.

    Args:
        study: whose points.
        arms: names out of `ARMS`.
        seeds: any numbers from 0 up.
        alphas: some of the study's α instead of all; the data-budget arms have points of their own.
    """
    foreign = [arm for arm in arms if arm not in ARMS] + [a for a in alphas if a not in study.alphas]
    if foreign or not arms or not seeds or min(seeds) < 0:
        raise LabError(
            f"The sweep knows no {', '.join(map(str, foreign)) or 'run without arm and seed'}: arms are "
            f"{', '.join(ARMS)}, α {', '.join(f'{a:g}' for a in study.alphas)}, seeds from 0 up."
        )
    points = {arm: alphas or study.alphas for arm in REAL} | dict.fromkeys(BUDGET, study.minutes)
    points[ENTROPY] = (ENTROPY_AT,)
    wanted = (Cell(arm, float(point), seed) for seed in seeds for arm in arms for point in points[arm])
    return list(dict.fromkeys(wanted))


def key(study: Study, cell: Cell) -> str:
    """What a cell's rows depend on, in 12 digits."""
    chain = preset(study.preset)
    settings = {
        name: value
        for name, value in files.plain(study).items()
        if name not in ("checkpoints", "alphas", "minutes")
    }
    lively = [scaling.lively_corpus(study)] if study.language == LANGUAGE else []
    corpora = [*chain.corpora[study.language], *chain.corpora["held_out"], *lively]
    manners = scaling.MANY if cell.arm == ENTROPY else scaling.PLAIN
    spoken = [spec.digest() if isinstance(spec, CorpusSpec) else digest(spec) for spec in corpora]
    how = [chain.lm, SamplingConfig(temperature=1.0), manners, study.alphas[-2], spoken]
    return digest([FORMAT, settings, how, cell, _made_with(study)])[:12]


def stages(study: Study, wanted: Sequence[Cell]) -> list[Stage]:
    """All that has to be made for these cells, corpora included."""
    known = {stage.name: stage for stage in recipes.stages(preset(study.preset))}
    shas, how = _made_with(study), preset(study.preset).lm

    def stage(name: str, run: Any, inputs: tuple[str, ...], config: Any = shas) -> Stage:
        return Stage(name, inputs, run, config)

    corpus, spoken = f"corpus.{study.language}", "corpus.held_out"
    heard = (spoken, "study.codes")
    made = [known[corpus], known[spoken]]
    learned: tuple[str, ...] = (corpus,)
    if study.language == LANGUAGE:
        speak, manner = partial(scaling.speak_lively, study), scaling.lively_corpus(study).digest()
        made.append(stage("study.lively", speak, (corpus,), config=manner))
        made.append(stage("study.premises", partial(probe, study), (spoken,)))
        learned = (corpus, "study.lively")
    made.append(stage("study.codes", partial(scaling.code_corpora, study), learned))
    made.append(stage("study.recordings", partial(scaling.hear_recordings, study), heard))
    for cell in wanted:
        if f"train.{cell.model.name}" not in {stage.name for stage in made}:
            run = partial(scaling.train_cell, study, cell.model)
            made.append(stage(f"train.{cell.model.name}", run, ("study.codes",), config=[shas, how]))
        inputs = (f"train.{cell.model.name}", "study.recordings", *heard)
        made.append(stage(f"say.{cell.name}", partial(scaling.say_cell, study, cell), inputs))
    return made


def run(study: Study, wanted: Sequence[Cell], workers: int = 0, folder: Path = RESULTS) -> list[Cell]:
    """Run the cells that have no rows yet and publish what is finished, even when something fails.

    Args:
        study: its numbers.
        wanted: cells.
        workers: processes side by side, a thread each; 0 takes one a core.
        folder: where rows go.

    Returns:
        The cells that had to be run.
    """
    missing = [cell for cell in wanted if key(study, cell) not in _published(study, cell.arm, folder)]
    todo = stages(study, missing)
    cache = files.CACHE / study.preset
    made = stage_folders(todo, cache)  # asked for before: whoever edits code meanwhile does not move them
    try:
        run_stages(todo if missing else [], cache, workers or os.cpu_count() or 1)
    finally:
        with locked(files.CACHE / "publishing.lock"):  # rows are read, joined and written back
            publish(study, missing, made, folder)
    return missing


def publish(study: Study, ready: Sequence[Cell], made: dict[str, Path], folder: Path) -> None:
    """Bring the rows of finished cells under `folder`; rows made with other settings or checkpoints go.

    Rows of two chains are never mixed, so that who has trained anew begins the arm anew.
    """
    finished = [cell for cell in ready if (made[f"say.{cell.name}"] / DONE).exists()]
    for arm in dict.fromkeys(cell.arm for cell in finished):
        for what, collect in (("sentences", _sentences), ("cells", _cell_rows)):
            path = folder / f"{study.preset}-{arm}-{what}.parquet"
            new = [collect(study, cell, made) for cell in finished if cell.arm == arm]
            rows = pd.concat([*([pd.read_parquet(path)] if path.exists() else []), *new], ignore_index=True)
            order = [name for name in (*KEYS, *SENTENCE) if name in rows]
            current = {key(study, Cell(*at)) for at in rows[KEYS].drop_duplicates().itertuples(index=False)}
            rows = rows[rows["key"].isin(current)]
            write_rows(rows.drop_duplicates(order, keep="last").sort_values(order, kind="stable"), path)
    if finished:
        _publish_ground(study, made, folder)
    for cell in finished:
        if cell.arm == "authentic" and cell.seed == 0:
            wave = audio.read(made[f"say.{cell.name}"] / f"test-{scaling.Manner().temperature:g}-0.wav")[0]
            write_flac(folder / f"{study.preset}-{cell.name}.flac", wave)


def read_results(preset_name: str, folder: Path = RESULTS) -> Results | None:
    """What was found so far, or None where nothing was."""

    def table(pattern: str) -> pd.DataFrame:
        found = [pd.read_parquet(path) for path in sorted(folder.glob(f"{preset_name}-{pattern}.parquet"))]
        rows = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
        return rows.astype({name: np.float64 for name in rows if rows[name].dtype == np.float16})

    if not (folder / f"{preset_name}-premises.json").exists():
        return None
    premises = json.loads((folder / f"{preset_name}-premises.json").read_text(encoding="utf-8"))
    return Results(table("*-sentences"), table("*-cells"), table("recordings"), table("mixture"), premises)


def probe(study: Study, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """Stage: what tokens hold, how well both judges hear recordings, and what a style changes."""
    chain = Chain(Path(study.checkpoints))
    dev, test = (
        score.held_out(inputs["corpus.held_out"], split, study.language) for split in ("dev", "test")
    )
    with scaling.one_thread():
        recorded, again = ground.resynthesise(chain, study.language, dev, study.n_dev)
        texts = [row.text for row in recorded]
        waves = [torch.as_tensor(dev.wave(i)) for i in range(len(texts))]
        heard = {which: chain.hear(waves, which) for which in ("a", "b")}
        found = {f"cer_judge_{which}": corpus_cer(texts, words) for which, words in heard.items()}
        both = [(b, a) for b, a in zip(heard["b"], heard["a"], strict=True) if for_scoring(b)]
        found["judges_disagree"] = (
            corpus_cer([b for b, _ in both], [a for _, a in both]) if both else float("nan")
        )
        found["cer_resynthesis"] = score.corpus_rates(again)["cer"]
        found["f0_in_tokens"] = ground.f0_probe(chain, [dev])
        found["speaker_in_tokens"] = ground.speaker_probe(chain, [test])["share"]
        if study.language in chain.languages:
            effect = ground.style_effect(chain, study.language, dev, study.n_dev)
            found |= {"style_spread": effect["spread"], "style_sim": effect["sim"]}
    return found


def _made_with(study: Study) -> dict[str, str]:
    """Digests of the checkpoints that a cell's rows depend on."""
    folder = Path(study.checkpoints)
    return {name: checkpoints.read_header(folder / f"{name}.safetensors")["sha256"] for name in PARTS}


def _published(study: Study, arm: str, folder: Path) -> set[str]:
    path = folder / f"{study.preset}-{arm}-cells.parquet"
    return set(pd.read_parquet(path, columns=["key"])["key"]) if path.exists() else set()


def _labels(study: Study, cell: Cell) -> dict[str, Any]:
    return {"key": key(study, cell), **dataclasses.asdict(cell)}


def _small(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows as they are kept: no transcripts, counts in two bytes, other figures with three digits."""
    rows = rows.drop(columns=["text", "heard", "sim_strangers"])
    whole = [name for name in (*COUNTS, "sentence", "sample") if name in rows]
    exact = ("key", "arm", "point", "split", "seed", "temperature", "noise", *whole)
    kinds = dict.fromkeys(whole, np.int16) | {name: np.float16 for name in rows if name not in exact}
    return rows.astype(kinds)


def _sentences(study: Study, cell: Cell, made: dict[str, Path]) -> pd.DataFrame:
    return _small(pd.read_parquet(made[f"say.{cell.name}"] / "rows.parquet").assign(**_labels(study, cell)))


def _cell_rows(study: Study, cell: Cell, made: dict[str, Path]) -> pd.DataFrame:
    said, trained = (
        read_done(made[f"{what}.{of.name}"]) for what, of in (("say", cell), ("train", cell.model))
    )
    found = {name: value for name, value in said["metrics"].items() if not name.endswith("_draws")}
    moved = {
        name: np.array(draws, dtype=np.float64) - np.float64(said["metrics"][name.removesuffix("_draws")])
        for name, draws in said["metrics"].items()
        if name.endswith("_draws")
    }
    row = _labels(study, cell) | trained["metrics"] | {"speaking_seconds": said["seconds"]} | found
    if cell.model != cell:
        row["training_seconds"] = 0.0  # the model is another cell's, and so is its cost
    draws = {name: [values.astype(np.float16)] for name, values in moved.items()}
    return pd.DataFrame({name: [value] for name, value in row.items()} | draws)


def _publish_ground(study: Study, made: dict[str, Path], folder: Path) -> None:
    """What all cells share: recordings, premises, and as many minutes of each kind of training speech."""
    recordings = _small(pd.read_parquet(made["study.recordings"] / "rows.parquet"))
    write_rows(recordings, folder / f"{study.preset}-recordings.parquet")
    coded = pd.read_parquet(made["study.codes"] / "codes.parquet")
    reached = coded.groupby("kind")["seconds"].cumsum() <= 60 * study.authentic_minutes
    write_rows(coded.loc[reached, ["kind", "codes"]], folder / f"{study.preset}-mixture.parquet")
    if (made["study.premises"] / DONE).exists():
        text = json.dumps(read_done(made["study.premises"])["metrics"], indent=1) + "\n"
        files.replace_text(folder / f"{study.preset}-premises.json", text)
