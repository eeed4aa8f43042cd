"""Every bar of the project measured: `runs/<preset>/bench.json`, one row a bar.

A row is `{id, value, unit, bar, better, ok, how}`. Bars are what was asked for; a row that misses its bar
says so.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from bench import browser, hostile, kills, listeners, load, peers, people, studies
from slmlab import files, metrics
from slmlab.corpus import utterances
from slmlab.corpus.build import Corpus, CorpusSpec, build
from slmlab.corpus.groups import TARGETS
from slmlab.errors import LabError
from slmlab.files import read_json, replace_text
from slmlab.models.lm import SpeechLM
from slmlab.notebook import series
from slmlab.sound import SAMPLE_RATE
from slmlab.speech import score
from slmlab.speech.chain import Chain
from slmlab.speech.sampling import SamplingConfig, generate
from slmlab.study import ground
from slmlab.training import recipes, shelf
from slmlab.training.presets import preset

CANDIDATES = 12  # that TDSC draws of a text
TOKENS_A_SECOND = 25


@dataclass(frozen=True)
class Row:
    """One bar."""

    id: str
    """Its fixed name."""
    value: float
    """What was measured."""
    unit: str
    """Of the value."""
    bar: float
    """What was asked for."""
    better: str
    """`lower`, `higher` or `within` (of ± the bar)."""
    how: str
    """In which way it was measured."""
    sure: bool = True
    """Whether chance is ruled out, where that is part of the bar."""

    @property
    def ok(self) -> bool:
        """Whether the bar is reached."""
        if not self.sure:
            return False
        if self.better == "within":
            return abs(self.value) <= self.bar
        return self.value <= self.bar if self.better == "lower" else self.value >= self.bar


class Bench:
    """What several bars share: the chain and the held-out recordings."""

    def __init__(self, preset_name: str) -> None:
        self.preset = preset_name
        self.n = preset(preset_name).n_test

    @cached_property
    def chain(self) -> Chain:
        """The trained parts."""
        return Chain(shelf.checkpoint_folder(self.preset))

    @cached_property
    def test(self) -> dict[str, Corpus]:
        """Held-out recordings of each language."""
        return self._held_out("test")

    @cached_property
    def unseen(self) -> dict[str, Corpus]:
        """Held-out recordings whose sentences have words that no language model was trained on."""
        return self._held_out("unseen")

    def _held_out(self, split: str) -> dict[str, Corpus]:
        folder = shelf.make(self.preset, "corpus.held_out")
        return {language: score.held_out(folder, split, language) for language in TARGETS}

    def spoken(self) -> list[Row]:
        """The test split said by the whole chain, judge B."""
        bars = {"speak.sw.cer": 10, "speak.sw.wer": 25, "speak.vi.cer": 15}
        rows = []
        for language in TARGETS:
            rates = score.corpus_rates(score.speak_test(self.chain, language, self.test[language], self.n))
            for name, value in rates.items():
                if (key := f"speak.{language}.{name}") in bars:
                    how = f"{self.n} test sentences, test voices, judge B, one sample each"
                    rows.append(Row(key, 100 * value, "%", bars[key], "lower", how))
        return rows

    def resynthesis(self) -> list[Row]:
        """Authentic stand-in test speech through tokenizer, decoder and vocoder, against itself."""
        gaps, n = [], min(self.n, 150)
        for language in TARGETS:
            recording, again = ground.resynthesise(self.chain, language, self.test[language], n)
            gaps.append(score.corpus_rates(again)["cer"] - score.corpus_rates(recording)["cer"])
        how = f"mean over languages, {n} recordings each, own timbre, judge B"
        return [Row("resynth.cer_gap", 100 * statistics.mean(gaps), "points", 5, "lower", how)]

    def vocoder(self) -> list[Row]:
        """The vocoder against Griffin-Lim, its baseline, on the recordings' own mels."""
        n = min(self.n, 40)
        found = [ground.vocoders(self.chain, self.test[lang], n) for lang in TARGETS]
        mean = {name: statistics.mean(each[name] for each in found) for name in found[0]}
        how = f"{n} test recordings a language, from their own mels; the bar is Griffin-Lim's"
        return [
            Row(
                "vocoder.distance",
                mean["vocoder.distance"],
                "STFT",
                mean["griffin_lim.distance"],
                "lower",
                how,
            ),
            Row("vocoder.cer", 100 * mean["vocoder.cer"], "%", 100 * mean["griffin_lim.cer"], "lower", how),
        ]

    def probes(self) -> list[Row]:
        """What the codes hold of the speaker and of the melody."""
        recordings = list(self.test.values())
        speaker = ground.speaker_probe(self.chain, recordings)
        how = (
            f"ridge probe on level histogram and covariance of codes {speaker['codes']:.3f}, on mel "
            f"{speaker['mel']:.3f}, "
            f"chance {speaker['chance']:.3f}, {speaker['voices']:.0f} unseen voices"
        )
        melody = ground.f0_probe(self.chain, recordings)
        return [
            Row("probe.speaker", speaker["share"], "share", 0.3, "lower", how),
            Row(
                "probe.f0",
                melody,
                "correlation",
                0.85,
                "higher",
                "test recordings, read from codes, voiced frames",
            ),
        ]

    def style(self) -> list[Row]:
        """The style prefix on against off, vi."""
        n = min(self.n, 100)
        effect = ground.style_effect(self.chain, "vi", self.test["vi"], n)
        how = (
            f"vi, {n} sentences, F0 of the sound; CER on {effect['cer_on']:.3f}, off {effect['cer_off']:.3f}"
        )
        return [
            Row("style.spread", effect["spread"], "ratio", 1.15, "higher", how),
            Row("style.sim", effect["sim"], "cosine", 0.03, "within", how),
        ]

    def cloning(self) -> list[Row]:
        """Unseen voices, both languages."""
        n = min(self.n, 100)
        shares = [_cloning(self.chain, lang, self.test[lang], n) for lang in TARGETS]
        return [
            Row(
                "clone.sim",
                100 * statistics.mean(shares),
                "%",
                90,
                "higher",
                f"{n} trials a language, unseen voices",
            )
        ]

    def speed(self) -> list[Row]:
        """One sentence at a time, models loaded."""
        texts = list(self.test["sw"].rows["spoken"])[:6]
        timbre = self.chain.named_timbre("mid")[None]
        self.chain.say(texts[:1], "sw", timbre)
        factors = []
        for seed, text in enumerate(texts):
            started = time.perf_counter()
            speech = self.chain.say([text], "sw", timbre, seeds=[seed])[0]
            factors.append((time.perf_counter() - started) * SAMPLE_RATE / len(speech.wave))
        how = f"median of 6 sw sentences, {torch.get_num_threads()} threads"
        return [Row("speak.rtf", statistics.median(factors), "x real time", 0.1, "lower", how)]

    def sampling(self) -> list[Row]:
        """Candidates of test sentences, as many tokens as each needs, drawn side by side."""
        lm, texts = self.chain.lm("sw"), list(self.test["sw"].rows["spoken"])[:32]
        prompts = [lm.prompt(text, "sw") for text in texts for _ in range(CANDIDATES)]
        how = SamplingConfig(batch=64)
        speeds = []
        for trial in range(3):
            seeds = range(trial * len(prompts), (trial + 1) * len(prompts))
            started = time.perf_counter()
            codes = generate(lm, prompts, how, seeds)
            speeds.append(sum(map(len, codes)) / TOKENS_A_SECOND / (time.perf_counter() - started))
        said = (
            f"median of 3, {CANDIDATES} candidates of {len(texts)} sw test sentences, batch {how.batch}, "
            f"{torch.get_num_threads()} threads"
        )
        return [Row("sample.speed", statistics.median(speeds), "s of tokens/s", 300, "higher", said)]

    def corpus(self) -> list[Row]:
        """Speech made, resampled, and its features taken, two processes."""
        spec = CorpusSpec("bench", "sw", "lively", "parts", 20, "lm", minutes=20.0, seed=991)
        with TemporaryDirectory() as folder:
            started = time.perf_counter()
            made = build(spec, Path(folder) / "bench", workers=2)
            took = time.perf_counter() - started
        speed = float(made.rows["seconds"].sum()) / took
        how = "20 min of lively sw, 2 processes, their start and the writing included"
        return [Row("corpus.speed", speed, "x real time", 250, "higher", how)]

    def first_sound(self) -> list[Row]:
        """A new process says an unseen sentence with what is shipped."""
        text = self.unseen["sw"].rows["spoken"].iloc[0]
        with TemporaryDirectory() as folder:
            where = ("--out", f"{folder}/a.wav", "--checkpoints", str(self.chain.folder))
            took = _seconds_of("speak", text, *where)
        return [
            Row(
                "first_sound.seconds",
                took,
                "s",
                20,
                "lower",
                f"a new process, checkpoints of {self.chain.folder}, unseen sentence",
            )
        ]

    def smoke(self) -> list[Row]:
        """The whole chain at `smoke`, nothing cached."""
        minutes = _seconds_of("run", "--preset", "smoke", "--fresh") / 60
        return [Row("smoke.minutes", minutes, "min", 3, "lower", "run --preset smoke --fresh")]

    def fresh(self) -> list[Row]:
        """What the last `FRESH=1 make run` took; it is not run again here."""
        path = files.RUNS / self.preset / "report.json"
        summary = read_json(path) if path.exists() else {}
        if not summary.get("fresh"):
            return []
        how = f"FRESH=1 make run at commit {summary['commit']}"
        return [
            Row("fresh.minutes", summary["seconds"] / 60, "min", 45, "lower", how),
            Row("memory.peak", summary["peak_memory_gib"], "GiB", 4, "lower", f"largest process of {how}"),
        ]

    def lm_time(self) -> list[Row]:
        """How much longer a Qwen2 with AdamW takes to a dev loss that ours reaches."""
        part = preset(self.preset).backbone
        data = utterances.Utterances(shelf.make(self.preset, "corpus.backbone"))
        race = peers.race_on(part, data, recipes.encode(self.chain.tokenizer, data))
        how = (
            f"to {race.loss:.3f} nats in {race.steps[0]} steps of ours and {race.steps[1]} of AdamW at "
            f"{race.rate:g} (best on dev of {', '.join(f'{rate:g}' for rate in peers.PEER_RATES)}), in turn"
        )
        if not race.arrived:
            how += "; the peer had not arrived: a lower bound"
        return [Row("lm.time_ratio", race.ratio, "x", 2, "higher", how)]

    def lm_train(self) -> list[Row]:
        """Training steps of the LM, the peer's, and the machine's own limit, in turn."""
        part = preset(self.preset).lm
        tokens = min(part.batch, 4096)  # a step of a batch meant for a GPU would take minutes
        speed = peers.training_speed(part.config, tokens)
        how = (
            f"median of 7 in turn, {speed.tokens} places, {speed.step:.3f} s a step of ours, CPU, float32, "
            f"fused AdamW, sdpa, {torch.get_num_threads()} threads"
        )
        return [
            Row("lm.train_ratio", speed.ratio, "x", 1.1, "higher", how),
            Row("lm.train_limit", speed.limit, "share", 0.6, "higher", f"{how}; useful operations only"),
        ]

    def busy(self) -> list[Row]:
        """One sentence, and one training step of the LM, beside another program that keeps a core busy."""
        part, timbre = preset(self.preset).lm, self.chain.named_timbre("mid")[None]
        text = self.test["sw"].rows["spoken"].iloc[0]
        learner = peers.Contender(SpeechLM(part.config), peers.our_loss, 1e-4)
        batch = peers.sample_batch(part.config, min(part.batch, 4096))
        jobs: dict[str, Callable[[], object]] = {
            "speak": lambda: self.chain.say([text], "sw", timbre),
            "lm.train": lambda: learner.step(batch),
        }
        rows = []
        for name, job in jobs.items():
            ratio, quiet = load.slowdown(job)
            how = f"median of 5 in turn, {quiet:.2f} s when quiet, {torch.get_num_threads()} threads"
            rows.append(Row(f"busy.ratio.{name}", ratio, "x", 2.2, "lower", how))
        return rows

    def lm_generate(self) -> list[Row]:
        """Generation alone and in a batch of 32, against `generate` with a static cache."""
        rows = []
        for batch in (1, 32):
            ratio, rate = peers.generation_ratio(preset(self.preset).lm.config, batch)
            threads = torch.get_num_threads()
            how = f"median of 5 in turn, 100 tokens each, {rate:.0f} tokens/s of ours, {threads} threads"
            rows.append(Row(f"lm.generate_ratio.{batch}", ratio, "x", 3, "higher", how))
        return rows

    def notebooks(self) -> list[Row]:
        """Notebooks 00 to 07 executed one after the other."""
        course = [path for path in series.notebooks() if path.name < "08"]
        with TemporaryDirectory() as folder:
            minutes = sum(series.execute(self.preset, course, Path(folder), workers=1).values()) / 60
        how = f"{len(course)} notebooks at {self.preset}, what is shipped or cached is used"
        return [Row("notebooks.minutes", minutes, "min", 25, "lower", how)]

    def lab(self) -> list[Row]:
        """A browser opened on `make lab`, everything installed."""
        how = "make lab, Chromium, four times Shift + Enter in notebook 00, Space in its player"
        return [Row("notebooks.first_sound", browser.first_sound(), "s", 30, "lower", how)]

    def widgets(self) -> list[Row]:
        """Every control of notebooks 00 to 07, moved in JupyterLab."""
        visits = list(browser.course([f"{n:02d}" for n in range(8)]))
        moves = [move for visit in visits for move in visit.moves]
        last = browser.slowest(moves)
        p95 = float(np.quantile([move.seconds for move in moves], 0.95))
        how = (
            f"slowest of {len({move.control for move in moves})} controls ({last.control}), {browser.MOVES} "
        )
        how += f"moves each in Chromium, to the picture drawn or the sound loaded; of all moves {p95:.2f} s"
        return [Row("widgets.p95", last.seconds, "s", 1, "lower", how)]

    def dpo(self) -> list[Row]:
        """DPO against TRL's trainer."""
        from bench import dpo

        return [Row(*row) for row in dpo.rows(self.preset)]

    def alignment(self) -> list[Row]:
        """What the rows of the studies say; nothing is run here."""
        return [Row(*row) for row in studies.rows(self.preset)]

    def scaling(self) -> list[Row]:
        """The same of the scaling study."""
        return [Row(*row) for row in studies.of_scaling(self.preset)]

    def people(self) -> list[Row]:
        """People's speech, at a preset that has heard some."""
        folder = shelf.make(self.preset, "corpus.held_out")
        return [Row(*row) for row in people.rows(folder, min(self.n, 40))]

    def parts(self) -> dict[str, Callable[[], list[Row]]]:
        """What measures which ids, by the beginning of the id."""
        if self.preset == "human":
            return {"human.": self.people, "peer.": self.people}
        return {
            "speak.": self.spoken,
            "speak.rtf": self.speed,
            "sample.speed": self.sampling,
            "resynth": self.resynthesis,
            "probe": self.probes,
            "style": self.style,
            "clone": self.cloning,
            "corpus": self.corpus,
            "vocoder": self.vocoder,
            "dpo.": self.dpo,
            "dgsa.": self.alignment,
            "tdsc.": self.alignment,
            "tdsc.minutes": lambda: [Row(*row) for row in studies.alone(self.preset)],
            "claims.": self.alignment,
            "claims.scaling": self.scaling,
            "sweep.": self.scaling,
            "extended": self.scaling,
            "sweep.repeat": lambda: [Row(*row) for row in studies.repeated()],
            "sweep.resume": lambda: [Row(*row) for row in studies.resumed()],
            "paper.": self.alignment,
            "lm.train": self.lm_train,
            "lm.generate_ratio": self.lm_generate,
            "lm.time_ratio": self.lm_time,
            "busy.ratio": self.busy,
            "first_sound": self.first_sound,
            "smoke": self.smoke,
            "fresh": self.fresh,
            "memory": self.fresh,
            "notebooks.minutes": self.notebooks,
            "notebooks.first_sound": self.lab,
            "widgets": self.widgets,
            "votes.": partial(_listening, _killed),
            "votes.p95": partial(_listening, load.served, load.waiting),
            "votes.resume": partial(_listening, load.served, load.resuming),
            "rank": partial(_listening, listeners.ranks),
            "listeners": partial(_listening, listeners.flags),
            "hostile": partial(_listening, hostile.rows),
            "kills": partial(_listening, kills.measured),
        }


def _listening(measure: Callable[..., list[listeners.Row]], *what: Any) -> list[Row]:
    """Rows of the listening tests, which know nothing of this file."""
    return [Row(*row) for row in measure(*what)]


def _killed() -> list[listeners.Row]:
    """What 180 killed writers and 20 killed servers cost; minutes, most of them spent starting servers."""
    return listeners.total(listeners.killed_writers(), load.served(load.killed_servers))


def _seconds_of(*arguments: str) -> float:
    """What a command of the lab took in a process of its own, its start included."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "slmlab", *arguments]
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise LabError(f"`slmlab {' '.join(arguments)}` ended with code {ended.returncode}: {last}")
    return time.perf_counter() - started


def _parts_of(asked: str, parts: Collection[str]) -> set[str]:
    """Which parts measure an id, or what ids may begin with: all that begin so, or the longest beginning."""
    if begun := {name for name in parts if name.startswith(asked)}:
        return begun
    beginnings = [name for name in parts if asked.startswith(name)]
    if not beginnings:
        raise LabError(f"no bar is called {asked!r}: ids begin with {', '.join(sorted(parts))}")
    return {max(beginnings, key=len)}


def run(preset_name: str, only: Sequence[str] = ()) -> Path:
    """Measure all bars, or those whose part is named in `only`; rows measured earlier are kept beside
    them.
    """
    path = files.RUNS / preset_name / "bench.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {row["id"]: row for row in read_json(path)} if path.exists() else {}
    bench = Bench(preset_name)
    wanted = {name for begun in only for name in _parts_of(begun, bench.parts())}
    asked = [part for name, part in bench.parts().items() if not only or name in wanted]
    for part in dict.fromkeys(asked):
        for row in part():
            kept[row.id] = {name: value for name, value in asdict(row).items() if name != "sure"}
            kept[row.id]["ok"] = bool(row.ok)
            sign = {"lower": "≤", "higher": "≥", "within": "±"}[row.better]
            print(
                f"{'✓' if row.ok else '✗'} {row.id}: {row.value:.3g} {row.unit} (bar {sign} {row.bar:g}); "
                f"{row.how}"
            )
        replace_text(path, json.dumps(list(kept.values()), indent=1, ensure_ascii=False) + "\n")
    return path


def _cloning(chain: Chain, language: str, recordings: Corpus, n: int) -> float:
    """Share of trials in which speech made in an unseen voice is nearer to that voice than to another one."""
    n = min(n, len(recordings))
    voices = list(recordings.rows["voice"])
    timbres = score.reference_timbres(chain, recordings, n)
    speech = chain.say(list(recordings.rows["spoken"])[:n], language, timbres)
    draw = np.random.default_rng(0)
    won = 0
    for i in range(n):
        other = int(draw.choice([j for j in range(len(voices)) if voices[j] != voices[i]]))
        waves = [speech[i].wave, *(torch.as_tensor(recordings.wave(j)) for j in (i, other))]
        clone, own, foreign = (chain.timbre(wave)[:-1] for wave in waves)
        won += metrics.similarity(clone, own) > metrics.similarity(clone, foreign)
    return won / n
