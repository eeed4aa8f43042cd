"""The alignment study: every method of §4 and §5 from one frozen start a language and seed, side by side.

The language with recordings begins at the scaling study's own cell at α = 80 % (at other α for D12) and plays
DGSA. The one without begins at a model of synthetic speech alone and plays TDSC. Judge A watches tuning on
dev. Then every system says the same test sentences, without a style unless its part says otherwise, and judge
B scores the sound.

A unit is one system with one seed. Tuned models lie in the cache as stages: a killed run goes on inside its
round.

Axis legend: n utterances, t speech tokens, s samples, c timbre numbers, d draws.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import load_file

from slmlab import files, metrics
from slmlab.errors import LabError
from slmlab.files import digest
from slmlab.language.sentences import sentences
from slmlab.models.lm import SpeechLM
from slmlab.preference import dgsa, methods, tdsc
from slmlab.preference.jury import CodeJudge
from slmlab.preference.methods import PEOPLE, SCALES, Material, Run
from slmlab.preference.tune import PreferenceConfig
from slmlab.sound import audio
from slmlab.speech import score
from slmlab.speech.chain import Chain
from slmlab.speech.sampling import SamplingConfig
from slmlab.study import rows as store
from slmlab.study import scaling, simulated_votes
from slmlab.study.rows import (
    RESULTS,
    Folders,
    Kind,
    copy_sound,
    read_rows,
    small,
    small_draws,
    write_rows,
)
from slmlab.study.scaling import Cell, Manner, Study, language_with, one_thread
from slmlab.training import checkpoints, shelf
from slmlab.training.cache import DONE, Stage, read_done, run_stages, stage_folders
from slmlab.training.checkpoints import Card
from slmlab.training.loop import STATE
from slmlab.training.presets import preset

FORMAT = 2
"""Counts up when the same settings begin to give other rows."""
ALPHA = 0.8
ALPHAS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Where ΔH_p is taken for D12."""
ALONE = 1.0
"""α of a start without recordings."""
MINUTES = {"smoke": 0.4, "tiny": 20.0}
"""Synthetic speech that such a start learns from."""
STEPS = {"smoke": 3, "tiny": 36}
"""Budget of such a start; the others have the scaling study's: they are trained once for both studies."""
STYLE, FOREIGN, CANDIDATES = "style", "foreign", "candidates"
COUNTS = ["word_errors", "words", "letter_errors", "letters"]
PUBLISHED = [
    *("sentence", *COUNTS, "filter_errors", "repetition", "repetition_spoken", "voiced"),
    *("f0_spread", "f0_range_semitones", "energy_std", "rate_variation", "sim", "sim_strangers"),
]
"""Columns of a sentence that are published."""
SECONDS = ["training_seconds", "tuning_seconds", "speaking_seconds"]


@dataclass(frozen=True)
class Unit:
    """One system with one seed, said and scored."""

    language: str
    """What is spoken."""
    method: str
    """One of `slmlab.preference.methods.METHODS`; `sft` is the start itself."""
    part: str
    """Nothing: the final model, plain. A number: the model after so many rounds. `style`: with a style
    prefix. `foreign`: in voices heard in the other language. `candidates`: the last round's, not a model."""
    alpha: float
    """Share of synthetic speech in the start's training; 1 without recordings."""
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
    def table(self) -> str:
        """All units share their tables."""
        return "aligned"


@dataclass(frozen=True)
class Aligned:
    """All published rows of the alignment study."""

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
    """The units that the `core` claims need, or those of all claims (`full`), seed by seed.

    Each seed is a start trained anew, and all that follows from it. `language` and `only` (methods, `sft` is
    the start) choose among them: some claims need more seeds than others.
    """
    scaling.check_preset(preset_name)
    recorded, alone = (language_with(recordings, preset_name) for recordings in (True, False))
    allowed = extent in ("core", "full") and language in ("", recorded, alone)
    if not allowed or not seeds or min(seeds) < 0:
        raise LabError(
            f"The alignment study knows no extent {extent!r} with seeds {seeds} and language {language!r}: "
            f"expected core or full, seeds from 0 up, and {recorded}, {alone} or none for both."
        )
    rounds = [str(k) for k in range(1, SCALES[preset_name].rounds)]
    real = [("sft", ""), ("sft", STYLE), ("dpo", ""), ("rejection", ""), ("dgsa", ""), ("dgsa", FOREIGN)]
    synthetic = [("tdsc", part) for part in ("", CANDIDATES, FOREIGN, *rounds)]
    synthetic += [(method, "") for method in ("sft", "self-training", "rejection")]
    others: list[tuple[str, float]] = []
    if extent == "full":
        real += [(name, "") for name in (*dgsa.VARIANTS, PEOPLE) if "." in name or name == PEOPLE]
        synthetic += [(name, "") for name in tdsc.VARIANTS if "." in name]
        others = [(name, alpha) for alpha in ALPHAS if alpha != ALPHA for name in ("sft", "dgsa")]
    systems = [(recorded, *system, ALPHA) for system in real]
    systems += [(recorded, name, "", alpha) for name, alpha in others]
    systems += [(alone, *system, ALONE) for system in synthetic]
    systems = [system for system in systems if language in ("", system[0])]
    needed = list(dict.fromkeys(method for _, method, _, _ in systems))
    if unknown := [name for name in only if name not in needed]:
        raise LabError(f"the study's {extent} claims need no {', '.join(unknown)}: {', '.join(needed)}.")
    systems = [system for system in systems if not only or system[1] in only]
    return list(dict.fromkeys(Unit(*system, seed) for seed in seeds for system in systems))


def study_of(preset_name: str, language: str, folder: Path | None = None) -> Study:
    """The numbers of one language's half."""
    study = scaling.study_of(preset_name, folder)
    if language == study.language:
        return study
    return replace(study, language=language, steps=STEPS[preset_name])


def start_of(study: Study, unit: Unit) -> Cell:
    """The cell that a unit begins from."""
    if study.has_recordings:
        return Cell("authentic", unit.alpha, unit.seed)
    return Cell(scaling.SYNTHETIC, MINUTES[study.preset], unit.seed)


def source_of(study: Study, unit: Unit) -> str:
    """The stage that leaves a unit's model."""
    return f"train.{start_of(study, unit).name}" if unit.method == "sft" else f"tune.{unit.tuned}"


def key(study: Study, unit: Unit) -> str:
    """A digest, 12 digits, of all that a unit's rows depend on."""
    settings = SCALES[study.preset].used_by(unit.method)
    how = [settings, (dgsa.VARIANTS | tdsc.VARIANTS).get(unit.method), Manner(), _judge_a(study)]
    return digest([FORMAT, unit, scaling.key(study, start_of(study, unit)), how])[:12]


def _judge_a(study: Study) -> Any:
    return checkpoints.read_header(Path(study.checkpoints) / "judge_a.safetensors")["sha256"]


def stages(study: Study, units: Sequence[Unit]) -> list[Stage]:
    """All stages that units of one language need; what takes longest is begun first."""
    starts = list(dict.fromkeys(start_of(study, unit) for unit in units))
    unused = ("say.", "study.premises")
    needed = [stage for stage in scaling.stages(study, starts) if not stage.name.startswith(unused)]
    judge, scale = _judge_a(study), SCALES[study.preset]
    tunings = {unit.tuned: replace(unit, part="") for unit in units if unit.method != "sft"}
    for unit in sorted(tunings.values(), key=lambda unit: unit.method not in ("tdsc", "dgsa")):
        start = (f"train.{start_of(study, unit).name}", "study.codes")
        how = [judge, scale.used_by(unit.method)]
        needed.append(Stage(f"tune.{unit.tuned}", start, partial(tune, study, unit), how))
    for unit in units:
        inputs = (source_of(study, unit), "study.recordings", "corpus.held_out", "study.codes")
        run = partial(hear_candidates if unit.part == CANDIDATES else say, study, unit)
        needed.append(Stage(f"say.{unit.name}", inputs, run, judge))
    return needed


def tables(study: Study, unit: Unit, folders: Folders) -> dict[str, pd.DataFrame]:
    """Test sentences of a unit or sums of its candidates, and its line: entropies, cost."""
    place = folders[f"say.{unit.name}"]
    rows, done = pd.read_parquet(place / "rows.parquet"), read_done(place)
    line: dict[str, Any] = dict.fromkeys(SECONDS, 0.0) | {"speaking_seconds": done["seconds"]}
    if unit.part == "":  # training and tuning count with the plain final model alone
        name = "training_seconds" if unit.method == "sft" else "tuning_seconds"
        line[name] = read_done(folders[source_of(study, unit)])["seconds"]
    figures = small_draws(done["metrics"])
    if unit.part != CANDIDATES:
        return {"test": small(rows[PUBLISHED]), "runs": pd.DataFrame(line | figures, index=[0])}
    names = [name for name in figures if not name.endswith("_draws")]
    h, draws = ([figures[f"{name}{end}"][0] for name in names] for end in ("", "_draws"))
    sets = pd.DataFrame({"set": names, "h": h, "h_draws": draws})
    return {"candidates": small(rows), "sets": sets, "runs": pd.DataFrame(line, index=[0])}


def share(study: Study, finished: Sequence[Unit], folders: Folders, target: Path) -> None:
    """Publish the language's recordings, the seconds spent before any unit, and the first sentence."""
    path = target / f"{study.preset}-aligned-recordings.parquet"
    recordings = pd.read_parquet(folders["study.recordings"] / "rows.parquet")
    rows = small(recordings[[name for name in PUBLISHED if name in recordings]])
    rows = rows.assign(split=recordings["split"], language=study.language)
    old = pd.read_parquet(path) if path.exists() else rows.iloc[:0]
    write_rows(pd.concat([old[old["language"] != study.language], rows], ignore_index=True), path)
    costs = target / f"{study.preset}-aligned-seconds.json"
    spent = files.read_json(costs) if costs.exists() else {}
    shared = [place for name, place in folders.items() if name.startswith(("corpus.", "study."))]
    spent[study.language] = sum(read_done(place)["seconds"] for place in shared if (place / DONE).exists())
    files.replace_text(costs, json.dumps(spent, indent=1) + "\n")
    for unit in finished:
        main = unit.alpha in (ALPHA, ALONE) and "." not in unit.method and unit.method != PEOPLE
        if main and unit.part == "" and unit.seed == 0:
            name = f"{study.preset}-aligned-{study.language}-{unit.method}.flac"
            copy_sound(folders[f"say.{unit.name}"] / "test.wav", target / name)


UNITS = Kind(Unit, "runs", key, stages, tables, share)


def run(
    preset_name: str,
    wanted: Sequence[Unit],
    workers: int = 0,
    target: Path = RESULTS,
    checkpoint_folder: Path | None = None,
) -> list[Unit]:
    """Compute the units of `plan` that have no rows yet, language by language, as `rows.run` does."""
    computed, problems = list[Unit](), list[str]()
    for language in dict.fromkeys(unit.language for unit in wanted):
        study = study_of(preset_name, language, checkpoint_folder)
        units = [unit for unit in wanted if unit.language == language]
        try:
            computed += store.run(UNITS, study, units, workers, target)
        except LabError as error:
            problems.append(str(error))
    if problems:
        raise LabError(" ".join(problems))
    return computed


def tune(study: Study, unit: Unit, folder: Path, inputs: Folders) -> dict[str, float]:
    """Stage: the start after a method; what dev thinks of it."""
    with one_thread():
        tuned, figures = try_method(study, unit, SCALES[study.preset], folder, inputs)
    # in full: tuning moves most numbers by less than int8 can tell
    checkpoints.save(folder / "model", tuned, Card(tuned.config, asdict(unit)))
    for state in (*folder.rglob(STATE), *folder.rglob("best.safetensors")):
        state.unlink()  # nothing is left to resume; logs, tries and the models of rounds stay
    return figures


def try_method(
    study: Study, unit: Unit, scale: methods.Scale, folder: Path, inputs: Folders
) -> tuple[SpeechLM, dict[str, float]]:
    """A unit's model at any scale, and its dev figures."""
    chain = Chain(Path(study.checkpoints))
    start = start_of(study, unit)
    model = checkpoints.load(inputs[f"train.{start.name}"] / "model", SpeechLM)[0]
    sampling = SamplingConfig(temperature=Manner().temperature)
    jury = methods.jury_of(chain, study.language, scale.watched(unit.method), sampling)
    texts = sentences(study.language, "lm", scale.texts, methods.TEXT_SEED)
    if unit.method == PEOPLE:
        material = Material(
            pairs=simulated_votes.simulated(model, jury, texts[: scale.prompts], unit.seed, folder / "votes")
        )
    elif study.has_recordings:  # all methods learn from the same recordings, or from their texts
        table = pd.read_parquet(inputs["study.codes"] / "codes.parquet")
        real = methods.authentic(table.iloc[scaling.mixture(study, start, table)])
        material = Material([recording.text for recording in real], real)
        scale = replace(scale, prompts=len(real))
    else:
        material = Material(texts)
    run = Run(unit.method, study.preset, unit.seed, study.language, alpha=unit.alpha)
    return methods.apply(run, model, material, scale, folder, jury)


def say(study: Study, unit: Unit, folder: Path, inputs: Folders) -> dict[str, Any]:
    """Stage: a unit says the test sentences; rows of metrics, corpus entropies, a sound."""
    chain = Chain(Path(study.checkpoints))
    place = inputs[source_of(study, unit)]
    if unit.part.isdigit():
        place /= f"round-{int(unit.part) - 1}"
    lm = checkpoints.load(place / "model", SpeechLM)[0]
    timbres = load_file(inputs["study.recordings"] / "test.safetensors")["timbres"]
    prompts, styles = scaling.prompts_of(study, chain, "test", timbres, inputs), list[list[int]]()
    with one_thread():
        if unit.part == STYLE:
            styles = score.other_styles(chain, prompts.recordings, len(timbres))
        elif unit.part == FOREIGN:
            other = language_with(not study.has_recordings, study.preset)
            foreign = score.held_out(inputs["corpus.held_out"], "test", other)
            timbres = score.reference_timbres(chain, foreign, min(study.n_many, len(foreign)))
            prompts = replace(prompts, timbres=timbres, speakers=list(foreign.rows["voice"])[: len(timbres)])
        rows, codes, wave = prompts.say(lm, Manner(), unit.seed * 100, styles)
        hearings = CodeJudge(chain, chain.named_timbre(shelf.VOICE_NAMES[2]))(codes)
    heard = zip(rows, hearings, strict=True)
    errors = [scaling.count_words(row["text"], each.text, unit.language)[0] for row, each in heard]
    pd.DataFrame(rows).assign(filter_errors=errors).to_parquet(folder / "rows.parquet", index=False)
    audio.write(folder / "test.wav", wave.numpy())
    return {} if unit.part == FOREIGN else scaling.entropies({"test": codes}, inputs)


def hear_candidates(study: Study, unit: Unit, folder: Path, inputs: Folders) -> dict[str, Any]:
    """Stage: judge B hears the last round's candidates, from their tokens; sums by text, entropies by set."""
    tries = tdsc.tries(inputs[source_of(study, unit)]).reset_index(drop=True)
    chain = Chain(Path(study.checkpoints))
    last = tries["round"] == tries["round"].max()
    with one_thread():
        judge = CodeJudge(chain, chain.named_timbre(shelf.VOICE_NAMES[2]), "b")
        hearings = judge([list(codes) for codes in tries.loc[last, "tokens"]])
    tries = tries.assign(passed=tries["fate"].isin(tdsc.PASSED), tried=1, errors=0, words=0)
    heard = zip(tries.loc[last, "text"], hearings, strict=True)
    counts = [scaling.count_words(text, each.text, unit.language) for text, each in heard]
    tries.loc[last, ["errors", "words"]] = counts
    for name in ("errors", "words"):
        tries[f"passed_{name}"] = tries[name] * tries["passed"]
    sums = ["tried", "passed", "errors", "words", "passed_errors", "passed_words", "repetition"]
    by_text = tries.groupby(["round", "place", "temperature"], as_index=False)[sums].sum()
    by_text.to_parquet(folder / "rows.parquet", index=False)
    return _set_entropies(tries[last])


def _set_entropies(tries: pd.DataFrame) -> dict[str, Any]:
    """H_p at equal token counts, with draws of texts, by temperature and of the accepted."""
    places = range(int(tries["place"].max()) + 1)
    sets = {f"{t:g}": part for t, part in tries.groupby("temperature")}
    sets["accepted"] = tries[tries["passed"]]
    codes = {
        name: [[code for row in part.loc[part["place"] == i, "tokens"] for code in row] for i in places]
        for name, part in sets.items()
    }
    sizes = [sum(map(len, texts)) for texts in codes.values()]
    n_tokens = int(scaling.COUNTED * min(filter(None, sizes), default=0))
    figures: dict[str, Any] = {}
    for name, texts in codes.items():
        figures[name], figures[f"{name}_draws"] = scaling.corpus_entropy(texts, n_tokens, metrics.NOTHING)
    return figures


def read_results(preset_name: str, folder: Path = RESULTS) -> Aligned | None:
    """All published rows, or None without any."""
    if not (folder / f"{preset_name}-aligned-runs.parquet").exists():
        return None
    names = ("test", "runs", "candidates", "sets", "recordings")
    rows, runs, tries, sets, recordings = (
        read_rows(preset_name, f"aligned-{name}", folder) for name in names
    )
    spent = files.read_json(folder / f"{preset_name}-aligned-seconds.json")
    return Aligned(rows, runs, tries, sets, recordings, spent)


def model_of(preset_name: str, unit: Unit) -> Path | None:
    """The folder in the cache of a unit's model, if it is there: for notebooks, at any preset."""
    if preset_name not in scaling.PRESETS:
        return None
    study = study_of(preset_name, unit.language)
    place = stage_folders(stages(study, [unit]), files.CACHE / preset_name)[source_of(study, unit)]
    return place if (place / DONE).exists() else None


def unit_of(preset_name: str, method: str, language: str = "", seed: int = 0) -> Unit:
    """A method's plain unit, in the language that it plays in unless another is given."""
    language = language or language_with(method in dgsa.VARIANTS, preset_name)
    return Unit(language, method, "", ALPHA if language in _recorded(preset_name) else ALONE, seed)


def _recorded(preset_name: str) -> list[str]:
    """The languages of a preset that have recordings to learn from."""
    chain = preset(preset_name)
    return [language for language in chain.languages if chain.has_recordings(language)]


def settle(
    preset_name: str,
    unit: Unit,
    lrs: Sequence[float] = (),
    sft_lrs: Sequence[float] = (),
    sft_weights: Sequence[float] = (),
    steps: int = 0,
    rounds: int = 0,
) -> pd.DataFrame:
    """Dev figures, by judge A, of a method at every combination of rates: before any test sentence is said.

    Rates `lrs` are of DPO, `sft_lrs` of SFT in a round; `sft_weights` are of the SFT term beside DPO. `steps`
    are DGSA's, or DPO's in a round, `rounds` TDSC's. Of what is empty or 0 the preset's is taken. Trials lie
    in the cache; asked again they are read.
    """
    scaling.check_preset(preset_name)
    if unit.method not in methods.METHODS:
        raise LabError(f"there is no method {unit.method!r}: methods are {', '.join(methods.METHODS)}.")
    real = unit.method in dgsa.VARIANTS
    spoken = _recorded(preset_name) if real else preset(preset_name).languages
    if unit.language not in spoken:
        raise LabError(
            f"the study has nothing of {unit.language!r} for {unit.method} to learn from: it has "
            f"{', '.join(spoken)}; DGSA and its like need recordings."
        )
    if (sft_lrs or rounds) and unit.method not in tdsc.VARIANTS:
        raise LabError(f"{unit.method} has neither rounds nor an SFT of its own, as TDSC has.")
    if min(steps, rounds) < 0:
        raise LabError(f"steps={steps} and rounds={rounds}: expected none below 0.")
    study, usual = study_of(preset_name, unit.language), SCALES[preset_name]
    field = "dgsa" if real else "dpo"
    dpo: PreferenceConfig = getattr(usual, field)
    choices = {
        "sft lr": sft_lrs or [usual.sft.lr],
        "dpo lr": lrs or [dpo.train.lr],
        "sft weight": sft_weights or [dpo.sft],
    }
    rates = list(itertools.product(*choices.values()))
    inputs, trials = (f"train.{start_of(study, unit).name}", "study.codes"), []
    for sft_lr, lr, weight in rates:
        train = replace(dpo.train, lr=lr, steps=steps or dpo.train.steps)
        how: dict[str, Any] = {field: replace(dpo, sft=weight, train=train)}
        sft = replace(usual.sft, lr=sft_lr)
        scale = replace(usual, rounds=rounds or usual.rounds, sft=sft, **how)
        name = f"trial.{unit.tuned}.{digest(scale)[:6]}"
        trials.append(Stage(name, inputs, partial(_trial, study, unit, scale), scale))
    folders = run_stages([*stages_before(study, unit), *trials], files.CACHE / preset_name)
    done = [read_done(folders[trial.name]) for trial in trials]
    figures = [one["metrics"] | {"seconds": one["seconds"]} for one in done]
    return pd.concat([pd.DataFrame(rates, columns=list(choices)), pd.DataFrame(figures)], axis=1)


def stages_before(study: Study, unit: Unit) -> list[Stage]:
    """What must be there before a unit's method can be tried: its start, and recordings as tokens."""
    later = ("say.", "tune.", "study.recordings", "corpus.held_out")
    needed = stages(study, [replace(unit, part="")])
    return [stage for stage in needed if not stage.name.startswith(later)]


def _trial(study: Study, unit: Unit, scale: methods.Scale, folder: Path, inputs: Folders) -> dict[str, float]:
    """Stage: a method at one scale, for its dev figures alone."""
    with one_thread():
        return try_method(study, unit, scale, folder, inputs)[1]
