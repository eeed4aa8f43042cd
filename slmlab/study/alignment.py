"""The alignment study: every method of §4 and §5 from one frozen start a language and seed, side by side.

`vi` begins at the sweep's own cell at α = 80 % (and at other α for D12), `sw` at a model of synthetic speech
alone. What is tuned is watched by judge A on dev; then every system says the same test sentences, without a
style unless its part says otherwise, and judge B scores the sound.

A unit is one system with one seed: what has no rows under `data/results/` is computed, the rest left alone.
Tuned models lie in the cache as stages, so that a killed run goes on inside its round.

Axis legend: n utterances, t speech tokens, s samples, c timbre numbers, d draws.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from slmlab import files, metrics
from slmlab.errors import LabError
from slmlab.files import digest
from slmlab.language.sentences import sentences
from slmlab.language.text import for_scoring
from slmlab.models.lm import LMConfig, SpeechLM
from slmlab.preference import dgsa, methods, tdsc
from slmlab.preference.jury import CodeJudge
from slmlab.preference.methods import PEOPLE, SCALES, Material, Run
from slmlab.preference.tdsc import PASSED
from slmlab.sound import audio
from slmlab.speech import score
from slmlab.speech.chain import Chain
from slmlab.speech.sampling import SamplingConfig
from slmlab.study import rows, scaling, sweep, votes
from slmlab.study.rows import RESULTS, write_rows
from slmlab.study.scaling import Cell, Study
from slmlab.study.sweep import COUNTS
from slmlab.training import checkpoints, shelf
from slmlab.training.cache import DONE, Stage, locked, read_done, run_stages, stage_folders
from slmlab.training.checkpoints import Card
from slmlab.training.loop import STATE

FORMAT = 2
"""Counts up when the same settings begin to give other rows."""
ALPHA = 0.8
ALPHAS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Where ΔH_p is taken for D12."""
MINUTES = {"smoke": 0.4, "tiny": 20.0}
"""Synthetic speech that the start of `sw` learns from."""
STEPS = {"smoke": 3, "tiny": 36}
"""Budget of that start; `vi` has the sweep's, so that its starts are trained once for both studies."""
STYLE, FOREIGN, CANDIDATES = "style", "foreign", "candidates"
KEYS = ["language", "method", "part", "alpha", "seed"]
KEPT = [
    *("sentence", *COUNTS, "filter_errors", "repetition", "repetition_spoken", "voiced"),
    *("f0_spread", "f0_range_semitones", "energy_std", "rate_variation", "sim", "sim_strangers"),
]
"""Columns of a sentence that are published."""


@dataclass(frozen=True)
class Unit:
    """One system with one seed, said and scored."""

    language: str
    """`vi` or `sw`."""
    method: str
    """One of `slmlab.preference.methods.METHODS`; `sft` is the start itself."""
    part: str
    """Nothing: the final model, plain. A number: the model after so many rounds. `style`: with a style
    prefix. `foreign`: in voices heard in the other language. `candidates`: the last round's, not a model."""
    alpha: float
    """Share of synthetic speech in the start's training."""
    seed: int
    """Of start, tuning and sampling."""

    @property
    def tuned(self) -> str:
        """What of it was tuned, for stages: the same for all parts."""
        return f"{self.method}.{self.alpha:g}.{self.seed}"

    @property
    def name(self) -> str:
        """For stages and messages."""
        return f"{self.tuned}.{self.part}".rstrip(".")

    @property
    def start(self) -> Cell:
        """The cell that it begins from; `point` of `sw` is filled in by `start_of`."""
        return Cell("authentic" if self.language == "vi" else scaling.SYNTHETIC, self.alpha, self.seed)


@dataclass(frozen=True)
class Aligned:
    """All that the alignment study has found so far."""

    rows: pd.DataFrame
    """One test sentence of one unit a row."""
    runs: pd.DataFrame
    """One unit a row: corpus entropies with draws, seconds."""
    candidates: pd.DataFrame
    """Candidates of TDSC, summed by round, place (text) and temperature."""
    sets: pd.DataFrame
    """H_p with draws of the last round's candidates by temperature, and of those accepted."""
    recordings: pd.DataFrame
    """The recordings of the same sentences, by language."""
    seconds: dict[str, float]
    """What speech and tokens took, by language, before any unit."""


def plan(
    preset_name: str, extent: str, seeds: Sequence[int], language: str = "", only: Sequence[str] = ()
) -> list[Unit]:
    """The units that the `core` claims need, or those of all claims (`full`).

    Args:
        preset_name: `smoke` or `tiny`.
        extent: `core` or `full`.
        seeds: each is a start trained anew, and all that follows from it.
        language: of `vi` or `sw` alone.
        only: of these methods alone (`sft` is the start): some claims need more seeds than others.
    """
    known = extent in ("core", "full") and preset_name in SCALES and language in ("", "vi", "sw")
    if not known or not seeds or min(seeds) < 0:
        raise LabError(
            f"The alignment study knows no extent {extent!r} at preset {preset_name!r} with seeds {seeds}, "
            f"language {language!r}: expected core or full, one of {', '.join(SCALES)}, seeds from 0 up, "
            "and vi, sw or none for both."
        )
    rounds = [str(k) for k in range(1, SCALES[preset_name].rounds)]
    vi = [("sft", ""), ("sft", STYLE), ("dpo", ""), ("rejection", ""), ("dgsa", ""), ("dgsa", FOREIGN)]
    sw = [("tdsc", part) for part in ("", CANDIDATES, FOREIGN, *rounds)]
    sw += [("sft", ""), ("self-training", ""), ("rejection", "")]
    wanted = [("vi", method, part, ALPHA) for method, part in vi]
    wanted += [("sw", method, part, 1.0) for method, part in sw]
    if extent == "full":
        ablations = [name for name in dgsa.VARIANTS if "." in name]
        wanted += [("vi", method, "", ALPHA) for method in (*ablations, PEOPLE)]
        wanted += [("vi", method, "", a) for a in ALPHAS if a != ALPHA for method in ("sft", "dgsa")]
        wanted += [("sw", name, "", 1.0) for name in tdsc.VARIANTS if "." in name]
    wanted = [what for what in wanted if language in ("", what[0])]
    methods = list(dict.fromkeys(method for _, method, _, _ in wanted))
    if unknown := [name for name in only if name not in methods]:
        raise LabError(f"the study's {extent} claims need no {', '.join(unknown)}: {', '.join(methods)}.")
    wanted = [what for what in wanted if not only or what[1] in only]
    return list(dict.fromkeys(Unit(*what, seed) for seed in seeds for what in wanted))


def study_of(preset_name: str, language: str, folder: Path | None = None) -> Study:
    """The numbers of one language's half."""
    whole = sweep.study_of(preset_name, folder)
    return (
        whole if language == whole.language else replace(whole, language=language, steps=STEPS[preset_name])
    )


def start_of(study: Study, unit: Unit) -> Cell:
    """The cell that a unit begins from."""
    return unit.start if study.language == "vi" else replace(unit.start, point=MINUTES[study.preset])


def key(study: Study, unit: Unit) -> str:
    """What a unit's rows depend on, in 12 digits."""
    variants = dgsa.VARIANTS | tdsc.VARIANTS
    settings = SCALES[study.preset].used_by(unit.method)
    how = [settings, variants.get(unit.method), scaling.Manner(), _judge_a(study)]
    return digest([FORMAT, unit, sweep.key(study, start_of(study, unit)), how])[:12]


def _judge_a(study: Study) -> str:
    sha: str = checkpoints.read_header(Path(study.checkpoints) / "judge_a.safetensors")["sha256"]
    return sha


def stages(study: Study, wanted: Sequence[Unit]) -> list[Stage]:
    """All that has to be made for units of one language: what takes longest is begun first."""
    starts = list(dict.fromkeys(start_of(study, unit) for unit in wanted))
    unused = ("say.", "study.premises")
    made = [stage for stage in sweep.stages(study, starts) if not stage.name.startswith(unused)]
    shas, scale = _judge_a(study), SCALES[study.preset]
    tunings = {unit.tuned: replace(unit, part="") for unit in wanted if unit.method != "sft"}
    for name, unit in sorted(tunings.items(), key=lambda item: item[1].method not in ("tdsc", "dgsa")):
        begun = (f"train.{start_of(study, unit).name}", "study.codes")
        how = [shas, scale.used_by(unit.method)]
        made.append(Stage(f"tune.{name}", begun, partial(tune, study, unit), how))
    for unit in wanted:
        model = f"tune.{unit.tuned}" if unit.method != "sft" else f"train.{start_of(study, unit).name}"
        inputs = (model, "study.recordings", "corpus.held_out", "study.codes")
        run = partial(hear_candidates if unit.part == CANDIDATES else say, study, unit)
        made.append(Stage(f"say.{unit.name}", inputs, run, shas))
    return made


def tune(study: Study, unit: Unit, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """Stage: the start after a method; what dev thinks of it."""
    with scaling.one_thread():
        tuned, figures = try_method(study, unit, SCALES[study.preset], folder, inputs)
    # in full: tuning moves most numbers by less than int8 can tell
    checkpoints.save(folder / "model", tuned, Card(tuned.config, asdict(unit)))
    for state in (*folder.rglob(STATE), *folder.rglob("best.safetensors")):
        state.unlink()  # nothing is left to resume; logs, ledgers and the models of rounds stay
    return figures


def try_method(
    study: Study, unit: Unit, scale: methods.Scale, folder: Path, inputs: dict[str, Path]
) -> tuple[SpeechLM, dict[str, float]]:
    """A unit's model at any scale, and its dev figures."""
    chain = Chain(Path(study.checkpoints))
    model = checkpoints.load(inputs[f"train.{start_of(study, unit).name}"] / "model", SpeechLM, LMConfig)[0]
    sampling = SamplingConfig(temperature=scaling.Manner().temperature)
    jury = methods.jury_of(chain, study.language, scale.watched(unit.method), sampling)
    texts = sentences(study.language, "lm", scale.texts, methods.TEXT_SEED)
    material = Material(texts)
    if study.language == "vi":  # all methods learn from the same recordings, or from their texts
        table = pd.read_parquet(inputs["study.codes"] / "codes.parquet")
        real = methods.authentic(table.iloc[scaling.mixture(study, start_of(study, unit), table)])
        material = Material([recording.text for recording in real], real)
        scale = replace(scale, prompts=len(real))
    if unit.method == PEOPLE:
        pairs = votes.simulated(
            model, jury, texts[: SCALES[study.preset].prompts], unit.seed, folder / "votes"
        )
        material = Material(pairs=pairs)
    run = Run(unit.method, study.preset, unit.seed, study.language, alpha=unit.alpha)
    return methods.apply(run, model, material, scale, folder, jury)


def say(study: Study, unit: Unit, folder: Path, inputs: dict[str, Path]) -> dict[str, Any]:
    """Stage: a unit says the test sentences; rows of metrics, corpus entropies, a sound."""
    chain = Chain(Path(study.checkpoints))
    place = inputs.get(f"tune.{unit.tuned}") or inputs[f"train.{start_of(study, unit).name}"]
    place = place / f"round-{int(unit.part) - 1}" if unit.part.isdigit() else place
    lm = checkpoints.load(place / "model", SpeechLM, LMConfig)[0]
    timbres = load_file(inputs["study.recordings"] / "test.safetensors")["timbres"]
    own, speakers, styles = score.held_out(inputs["corpus.held_out"], "test", study.language), None, []
    with scaling.one_thread():
        if unit.part == STYLE:
            styles = score.other_styles(chain, own, len(timbres))
        elif unit.part == FOREIGN:
            other = "sw" if study.language == "vi" else "vi"
            speakers = score.held_out(inputs["corpus.held_out"], "test", other)
            n = min(study.n_many, len(speakers))
            timbres = score.reference_timbres(chain, speakers, n)
        how = (timbres, scaling.Manner(), unit.seed * 100, inputs, styles, speakers)
        rows, codes, wave = scaling.say_split(study, chain, lm, "test", *how)
        judge = CodeJudge(chain, chain.named_timbre(shelf.VOICE_NAMES[2]))
        heard = [_errors(row["text"], hearing.text) for row, hearing in zip(rows, judge(codes), strict=True)]
    pd.DataFrame(rows).assign(filter_errors=heard).to_parquet(folder / "rows.parquet", index=False)
    audio.write(folder / "test.wav", wave.numpy())
    return {} if unit.part == FOREIGN else scaling.entropies({"test": codes}, inputs)


def _errors(text: str, heard: str) -> int:
    """Wrong words of an utterance."""
    return round(metrics.wer(text, heard) * len(for_scoring(text).split()))


def hear_candidates(study: Study, unit: Unit, folder: Path, inputs: dict[str, Path]) -> dict[str, Any]:
    """Stage: judge B hears the last round's candidates, from their tokens; sums by text, entropies by set."""
    ledger = tdsc.ledger(inputs[f"tune.{unit.tuned}"]).reset_index(drop=True)
    chain = Chain(Path(study.checkpoints))
    last = ledger["round"] == ledger["round"].max()
    with scaling.one_thread():
        judge = CodeJudge(chain, chain.named_timbre(shelf.VOICE_NAMES[2]), "b")
        heard = judge([list(codes) for codes in ledger.loc[last, "tokens"]])
    ledger = ledger.assign(passed=ledger["fate"].isin(PASSED), tried=1, errors=0, words=0)
    ledger.loc[last, "errors"] = [
        _errors(text, hearing.text) for text, hearing in zip(ledger.loc[last, "text"], heard, strict=True)
    ]
    ledger.loc[last, "words"] = [len(for_scoring(text).split()) for text in ledger.loc[last, "text"]]
    for name in ("errors", "words"):
        ledger[f"passed_{name}"] = ledger[name] * ledger["passed"]
    sums = ["tried", "passed", "errors", "words", "passed_errors", "passed_words", "repetition"]
    by_text = ledger.groupby(["round", "place", "temperature"], as_index=False)[sums].sum()
    by_text.to_parquet(folder / "rows.parquet", index=False)
    return _set_entropies(ledger[last])


def _set_entropies(ledger: pd.DataFrame) -> dict[str, Any]:
    """H_p at equal token counts, with draws of texts, by temperature and of the accepted."""
    places = range(int(ledger["place"].max()) + 1)
    sets = {f"{t:g}": part for t, part in ledger.groupby("temperature")}
    sets["accepted"] = ledger[ledger["passed"]]
    said = {
        name: [
            np.concatenate([[], *part.loc[part["place"] == i, "tokens"]]).astype(int).tolist() for i in places
        ]
        for name, part in sets.items()
    }
    sizes = [sum(map(len, texts)) for texts in said.values()]
    n_tokens = int(scaling.COUNTED * min(filter(None, sizes), default=0))
    found: dict[str, Any] = {}
    for name, texts in said.items():
        found[name], found[f"{name}_draws"] = scaling.corpus_entropy(texts, n_tokens, metrics.NOTHING)
    return found


def run(
    preset_name: str,
    wanted: Sequence[Unit],
    workers: int = 0,
    folder: Path = RESULTS,
    checkpoint_folder: Path | None = None,
) -> list[Unit]:
    """Compute the units that have no rows yet and publish what is finished, even when something fails.

    Args:
        preset_name: `smoke` or `tiny`.
        wanted: units, from `plan`.
        workers: processes side by side, a thread each; 0 takes one a core.
        folder: where rows go.
        checkpoint_folder: of the trained parts; those at hand unless given.

    Returns:
        The units that had to be computed.

    Raises:
        LabError: some could not be; the others are published all the same.
    """
    computed, problems = list[Unit](), list[str]()
    for language in ("vi", "sw"):
        study = study_of(preset_name, language, checkpoint_folder)
        done = _published(study, folder)
        missing = [unit for unit in wanted if unit.language == language and key(study, unit) not in done]
        todo = stages(study, missing)
        cache = files.CACHE / preset_name
        made = stage_folders(todo, cache)  # asked for before: whoever edits code meanwhile does not move them
        try:
            run_stages(todo if missing else [], cache, workers or os.cpu_count() or 1)
        except LabError as error:
            problems.append(str(error))
        finally:
            with locked(files.CACHE / "publishing.lock"):  # rows are read, joined and written back
                publish(study, missing, made, folder)
        computed += missing
    if problems:
        raise LabError(" ".join(problems))
    return computed


def publish(study: Study, ready: Sequence[Unit], made: dict[str, Path], folder: Path) -> None:
    """Bring the rows of finished units under `folder`; rows of their language made otherwise go."""
    finished = [unit for unit in ready if (made[f"say.{unit.name}"] / DONE).exists()]
    if not finished:
        return
    # `runs` comes last: who is in it counts as published
    new: dict[str, list[pd.DataFrame]] = {"test": [], "candidates": [], "sets": [], "runs": []}
    for unit in finished:
        labels = {"key": key(study, unit), **asdict(unit)}
        place = made[f"say.{unit.name}"]
        rows, said = pd.read_parquet(place / "rows.parquet"), read_done(place)
        if unit.part == CANDIDATES:
            new["candidates"].append(_small(rows).assign(**labels))
            new["sets"].append(_sets(said["metrics"]).assign(**labels))
            said["metrics"] = {}
        else:
            new["test"].append(_small(rows[KEPT]).assign(**labels))
        new["runs"].append(_run_row(study, unit, said, made).assign(**labels))
    for what, tables in new.items():
        if tables:
            _merge(
                study, pd.concat(tables, ignore_index=True), folder / f"{study.preset}-aligned-{what}.parquet"
            )
    _publish_ground(study, made, folder)
    _publish_sounds(study, finished, made, folder)


def _merge(study: Study, new: pd.DataFrame, path: Path) -> None:
    """Rows new and old in one file; what was made otherwise, in this language, goes."""
    rows = pd.concat([*([pd.read_parquet(path)] if path.exists() else []), new], ignore_index=True)
    units = [Unit(*at) for at in rows[KEYS].drop_duplicates().itertuples(index=False)]
    current = {key(study, unit) for unit in units if unit.language == study.language}
    rows = rows[rows["key"].isin(current) | (rows["language"] != study.language)]
    own = [name for name in ("sentence", "round", "place", "temperature", "set") if name in rows]
    rows = rows.drop_duplicates([*KEYS, *own], keep="last").sort_values([*KEYS, *own], kind="stable")
    write_rows(rows, path)


def _small(rows: pd.DataFrame) -> pd.DataFrame:
    """Counts in two bytes, other figures with three digits; temperatures exactly."""
    kinds = {
        name: np.int16 if np.issubdtype(rows[name].dtype, np.integer) else np.float16
        for name in rows
        if name != "temperature"
    }
    return rows.astype(kinds)


def _moved(found: dict[str, Any], name: str) -> list[Any]:
    """Draws of an entropy as differences from it, small."""
    draws = np.array(found[f"{name}_draws"], dtype=np.float64)  # JSON has null for NaN: float64 takes both
    return [(draws - np.float64(found[name])).astype(np.float16)]


def _sets(found: dict[str, Any]) -> pd.DataFrame:
    names = [name for name in found if not name.endswith("_draws")]
    parts = [
        {"set": [name], "h": [np.float64(found[name])], "h_draws": _moved(found, name)} for name in names
    ]
    return pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)


def _run_row(study: Study, unit: Unit, said: dict[str, Any], made: dict[str, Path]) -> pd.DataFrame:
    """Entropies of a unit and what it cost; tuning is counted with the plain final model alone."""
    seconds = {"speaking_seconds": said["seconds"], "tuning_seconds": 0.0, "training_seconds": 0.0}
    plain = unit.part == ""
    if plain and unit.method == "sft":
        seconds["training_seconds"] = read_done(made[f"train.{start_of(study, unit).name}"])["seconds"]
    elif plain:
        seconds["tuning_seconds"] = read_done(made[f"tune.{unit.tuned}"])["seconds"]
    found = said["metrics"]
    row: dict[str, Any] = {name: [value] for name, value in seconds.items()}
    for name in ("h", "h_spoken"):
        for each in (name, f"{name}_miller_madow"):
            row[each] = [np.float64(found.get(each))]
        row[f"{name}_draws"] = _moved(found, name) if name in found else [np.zeros(0, np.float16)]
    return pd.DataFrame(row)


def _publish_ground(study: Study, made: dict[str, Path], folder: Path) -> None:
    """What all units of a language share: its recordings, and what was spent before any unit."""
    path = folder / f"{study.preset}-aligned-recordings.parquet"
    rows = pd.read_parquet(made["study.recordings"] / "rows.parquet")
    names = [name for name in KEPT if name in rows]
    rows = _small(rows[names]).assign(split=rows["split"], language=study.language)
    old = pd.read_parquet(path) if path.exists() else rows.iloc[:0]
    write_rows(pd.concat([old[old["language"] != study.language], rows], ignore_index=True), path)
    costs = folder / f"{study.preset}-aligned-seconds.json"
    known = files.read_json(costs) if costs.exists() else {}
    ground = [place for name, place in made.items() if not name.startswith(("train.", "tune.", "say."))]
    known[study.language] = sum(read_done(place)["seconds"] for place in ground if (place / DONE).exists())
    files.replace_text(costs, json.dumps(known, indent=1) + "\n")


def _publish_sounds(study: Study, finished: Sequence[Unit], made: dict[str, Path], folder: Path) -> None:
    """The first test sentence of the first seed's main systems."""
    for unit in finished:
        main = unit.alpha in (ALPHA, 1.0) and "." not in unit.method and unit.method != PEOPLE
        if main and unit.part == "" and unit.seed == 0:
            wave = audio.read(made[f"say.{unit.name}"] / "test.wav")[0]
            target = folder / f"{study.preset}-aligned-{study.language}-{unit.method}.flac"
            rows.write_flac(target, wave)


def _published(study: Study, folder: Path) -> set[str]:
    path = folder / f"{study.preset}-aligned-runs.parquet"
    return set(pd.read_parquet(path, columns=["key"])["key"]) if path.exists() else set()


def read_results(preset_name: str, folder: Path = RESULTS) -> Aligned | None:
    """What was found so far, or None where nothing was."""

    def table(what: str) -> pd.DataFrame:
        path = folder / f"{preset_name}-aligned-{what}.parquet"
        rows = pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=[*KEYS, "round", "set"])
        return rows.astype({name: np.float64 for name in rows if rows[name].dtype == np.float16})

    if not (folder / f"{preset_name}-aligned-runs.parquet").exists():
        return None
    seconds = files.read_json(folder / f"{preset_name}-aligned-seconds.json")
    return Aligned(
        table("test"), table("runs"), table("candidates"), table("sets"), table("recordings"), seconds
    )


def seconds(results: Aligned, preset_name: str, extent: str) -> float:
    """Seconds of one core that the units of `core` or `full` took, speech and tokens before them included."""
    seeds = sorted(map(int, results.runs["seed"].unique()))
    wanted = {tuple(asdict(unit)[name] for name in KEYS) for unit in plan(preset_name, extent, seeds)}
    chosen = [tuple(at) in wanted for at in results.runs[KEYS].itertuples(index=False)]
    spent = results.runs.loc[chosen, ["training_seconds", "tuning_seconds", "speaking_seconds"]]
    return float(spent.to_numpy().sum()) + sum(results.seconds.values())


def model_of(preset_name: str, unit: Unit) -> Path | None:
    """The folder in the cache that a unit was tuned (or started) in, if it is there: for notebooks."""
    study = study_of(preset_name, unit.language)
    name = f"tune.{unit.tuned}" if unit.method != "sft" else f"train.{start_of(study, unit).name}"
    place = stage_folders(stages(study, [unit]), files.CACHE / preset_name)[name]
    return place if (place / DONE).exists() else None
