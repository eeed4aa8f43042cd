"""The commands: `slmlab corpus | import | train | align | settle | speak | measure | sweep | app | …`.

A mistake of the person's ends in one sentence and exit code 2. Nothing here knows how things are done, only
what was asked; what a command needs is imported when it runs.
"""

import json
import math
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from io import TextIOWrapper
from itertools import zip_longest
from pathlib import Path
from shlex import quote
from typing import Any

from slmlab import __version__
from slmlab.errors import LabError
from slmlab.progress import bar, never_silent

Runner = Callable[[Namespace], str | None]
"""Runs a command and returns what to do next, which `main` prints; nothing where a program reads on."""
Option = tuple[str, dict[str, Any]]  # its name and settings, as `argparse` takes them
PARSER = ArgumentParser(prog="slmlab", description="A laboratory for spoken language models.")
PARSER.add_argument("--version", action="version", version=__version__)
COMMANDS = PARSER.add_subparsers(required=True, metavar="COMMAND", dest="command")
GOES_ON = "stopped; what was finished is kept, and the same command goes on from there"
STOPPED = dict.fromkeys(("corpus", "train", "run", "align", "sweep"), GOES_ON)
STOPPED["measure"] = "stopped before its end; what was measured until then is printed"
"""What is left of commands that somebody stops."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, or 2 when what was asked cannot be done."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may not know the letters of a language
            os.environ["PYTHONIOENCODING"] = f"{stream.encoding}:replace"  # nor does that of its workers
    asked = PARSER.parse_args(argv)
    code = 2
    try:
        with nullcontext() if asked.command == "app" else never_silent():  # a server may wait in silence
            after = asked.run(asked)
        if after:
            print(f"next: {after}")
        return 0
    except LabError as error:
        sentence = str(error)
    except ModuleNotFoundError as error:
        sentence = (
            f"{error.name} is not installed: `make test` installs it, and so does "
            "`pip install --constraint constraints.txt --editable '.[dev]'`"
        )
    except OSError as error:
        sentence = f"{error.strerror or error}: {error.filename or 'a file of this command'}"
    except KeyboardInterrupt:
        sentence, code = STOPPED.get(asked.command, "stopped before its end: run it again"), 130
    print("slmlab:", *sentence.split(), file=sys.stderr)  # one line, whatever it quotes
    return code


def _command(text: str, *options: Option) -> Callable[[Runner], Runner]:
    """Make a function a command of its name, with a line of help."""

    def add(run: Runner) -> Runner:
        command = COMMANDS.add_parser(run.__name__.removeprefix("_"), help=text, description=text)
        command.set_defaults(run=run)
        for name, settings in options:
            command.add_argument(name, **settings)
        return run

    return add


def _option(name: str, text: str, kind: Callable[[str], Any] = str, **settings: Any) -> Option:
    """An option, or an argument if its name has no dashes, that is read by `kind`; bool makes a flag."""
    how: dict[str, Any] = {"action": "store_true"} if kind is bool else {"type": kind}
    return name, {"help": text, **how, **settings}


def _preset(text: str = "smoke or tiny (tiny)", usual: str = "tiny") -> Option:
    return _option("--preset", text, default=usual)


def _within(low: float, high: float, kind: type[int] | type[float] = int) -> Callable[[str], float]:
    """A reader of numbers from `low` to `high`."""

    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            what = "whole number" if kind is int else "number"
            raise ArgumentTypeError(f"{text!r} is not possible: give a {what} from {low} to {high}")
        return number

    return read


def _list(kind: Callable[[str], Any] = str) -> Callable[[str], list[Any]]:
    """A reader of `a,b`."""
    return lambda text: [kind(part) for part in text.split(",") if part]


SEED = _within(0, 2**32 - 1)
"""What every stream of random numbers takes."""
NUMBERS = _list(_within(0, 1000, float))
PRESET = _preset("smoke, tiny, human, base or paper (tiny)")
OUT = _option("--out", "the folder of the run (runs/<preset>)", Path)
SPEAKER = "a tuned language model that speaks, such as `align` leaves"
FRESH = _option("--fresh", "make everything anew, whatever the cache holds", bool)
WORKERS = "runs side by side (one a core)"
WEIGHTS = "a folder or a hub id (Systran/faster-whisper-base)"
JUDGE_C = "judge_c"
JUDGE = _option("--judge", "who scores: b, or c, who hears by Whisper's encoder (b)", default="b")
WHISPER = _option("--whisper", f"Whisper's weights: {WEIGHTS}", default="")
OTHERS = (
    "other people's networks measure too, some of whisper,dnsmos,sim,vad: `pip install 'slmlab[instruments]'`"
)
INSTRUMENTS = _option("--instruments", OTHERS, _list(), default=[])


def _ears(asked: Namespace) -> tuple[Any, dict[str, Any]]:
    """What judge C hears by and the opened instruments, where they are asked for.

    LabError for weights that nothing here uses.
    """
    from slmlab.metrics.instruments import Encoder, open_instruments

    judge, names = getattr(asked, "judge", "b"), getattr(asked, "instruments", [])
    if judge not in ("b", "c"):
        raise LabError(f"there is no judge {judge!r} who scores: choose b or c")
    if asked.whisper and judge == "b" and "whisper" not in names:
        users = {"judge": "--judge c", "instruments": "--instruments whisper"}
        here = " or ".join(user for name, user in users.items() if name in asked)
        raise LabError(f"--whisper names weights that nothing here uses: give {here} as well")
    return Encoder(asked.whisper) if judge == "c" else None, open_instruments(names, asked.whisper)


@_command(
    "speak the corpora of a preset",
    PRESET,
    _option("--filter", "let judge A hear it: what the quality filter takes", bool),
)
def _corpus(asked: Namespace) -> str:
    from slmlab.study import ground
    from slmlab.training import shelf
    from slmlab.training.presets import preset

    shelf.corpora(asked.preset)
    if asked.filter:
        table = ground.filter_corpora(asked.preset, preset(asked.preset).languages)
        print(table.to_string(float_format="{:.3f}".format))
    return f"slmlab train all --preset {asked.preset}"


@_command(
    "train one network, or `all`, and whatever it needs",
    PRESET,
    _option("stage", "a stage such as tokenizer or lm.sw, `all`, or a language of data/languages"),
    _option("--recordings", "corpora that `import` made, to learn from as well", Path, nargs="+", default=[]),
    _option("--ship", "of all, or of judge_c: put the checkpoints under data/checkpoints", bool),
    _option("--whisper", f"of judge_c: the weights whose encoder it hears by, {WEIGHTS}", default=""),
    FRESH,
)
def _train(asked: Namespace) -> str:
    from slmlab import files
    from slmlab.language import languages
    from slmlab.training import shelf
    from slmlab.training.presets import preset

    stage, own = asked.stage, f"--preset {asked.preset}"
    if asked.ship and stage not in ("all", JUDGE_C):
        raise LabError("only a whole chain is shipped, so that its parts fit: `slmlab train all --ship`")
    if asked.whisper and stage != JUDGE_C:
        raise LabError(f"--whisper is what {JUDGE_C} hears by: `slmlab train {JUDGE_C} --whisper …`")
    if asked.recordings and stage == JUDGE_C:
        raise LabError(f"{JUDGE_C} learns from the preset's own recordings: leave --recordings out.")
    if asked.ship:
        files.need_checkout("What is shipped lies")
        shelf.check_shippable(asked.preset, asked.recordings)
    taught = preset(asked.preset).languages
    network, _, language = stage.rpartition(".")
    if stage == JUDGE_C:
        made = shelf.teach_judge_c(asked.preset, asked.whisper, asked.ship, asked.fresh) / JUDGE_C
        after = f"slmlab measure WAV --judge c {own}"
    elif language in languages.codes() and (not network or language not in taught):
        made = shelf.adopt(asked.preset, language, asked.recordings, network, asked.fresh)
        after = f"slmlab speak TEXT --language {language} {own}"
    else:
        made = shelf.make(asked.preset, stage, asked.fresh, asked.recordings)
        after = f"slmlab train all {own}, which takes this and trains the rest"
    print(f"trained: {made}")
    if stage != "all":
        return after
    if asked.ship:
        print(f"shipped: {shelf.ship(made, asked.preset)}")
    return f"slmlab speak TEXT --language {taught[-1]} {own}"


@_command(
    "the whole chain: taken or trained, spoken, scored, the notebooks executed, reported",
    PRESET,
    FRESH,
    JUDGE,
    WHISPER,
    OUT,
    _option("--lm", f"{SPEAKER}; no notebook is executed", Path),
)
def _run(asked: Namespace) -> str:
    from slmlab import files, places
    from slmlab.notebook import series
    from slmlab.study import report
    from slmlab.training import shelf

    name = "-".join(filter(None, (asked.preset, asked.lm and asked.lm.name)))
    folder = asked.out or files.RUNS / name
    books = series.notebooks() if places.IS_CHECKOUT and not asked.lm else []
    takes = shelf.RUN_TAKES.get(asked.preset, "") if books else ""
    print(f"run: the chain speaks and is scored, then {len(books)} notebooks", end="")
    print(f"; {takes}, with networks at hand" if takes else "", flush=True)
    report.run(asked.preset, folder, asked.fresh, _ears(asked)[0], asked.lm)
    if books:
        seconds = series.execute(asked.preset, books, folder / series.EXECUTED)
        report.add_stages(folder, {f"notebook.{name}": taken for name, taken in seconds.items()})
    print(f"report: {report.write(folder).resolve().as_uri()}")
    return f"slmlab compare RUN {folder}, with RUN the folder of another run (slmlab run --out)"


@_command(
    "the report of the last run, or of one made now, and of the studies",
    PRESET,
    _option("--claims", "only print the ledger of claims", bool),
    _option("--ledger", "only write the ledger of claims to a Markdown file", Path),
    _option("--picture", "only draw stability against expressivity, a PNG", Path),
    OUT,
    INSTRUMENTS,
    WHISPER,
)
def _report(asked: Namespace) -> str | None:
    from slmlab import files
    from slmlab.study import report

    only = asked.claims or asked.ledger or asked.picture
    if only and asked.instruments:
        raise LabError(
            "--instruments hear the sounds of a report: leave --claims, --ledger and --picture out."
        )
    if asked.claims:
        print(report.ledger_page(asked.preset))
    if asked.ledger:
        files.replace_text(asked.ledger, report.ledger_page(asked.preset))
        print(f"ledger: {asked.ledger}")
    if asked.picture:
        report.picture(asked.preset, asked.picture)
        print(f"drawn: {asked.picture}")
    if only:
        return None
    folder, opened = asked.out or files.RUNS / asked.preset, _ears(asked)[1]
    if not report.has_run(folder):
        print(f"{folder} holds no run yet: one is made first, some minutes on two quiet cores", flush=True)
        report.run(asked.preset, folder)
    if opened:
        report.ask_instruments(folder, opened)
    print(f"report: {report.write(folder).resolve().as_uri()}")
    return "open it in a browser"


@_command(
    "two runs sentence by sentence: what differs, how surely, and the sounds side by side",
    _option("runs", "the folders of two runs, such as runs/tiny and what `run --out` made", Path, nargs=2),
)
def _compare(asked: Namespace) -> str:
    from slmlab.study import compare

    text, page = compare.compare(*asked.runs)
    print(f"{text}\n\nside by side: {page.resolve().as_uri()}")
    return "open it in a browser"


@_command(
    "measure every bar and write bench.json",
    PRESET,
    _option("--only", "only the bars whose id starts so", nargs="+", metavar="ID", default=[]),
)
def _bench(asked: Namespace) -> str:
    from slmlab import files

    files.need_checkout("The bench is part of the tests, which are")
    sys.path.append(str(files.ROOT / "tests"))
    from bench import bars

    print(f"bench: {bars.run(asked.preset, asked.only)}")
    return "slmlab bench --only ID, to measure one of them again"


@_command(
    "get a public collection of people's recordings, verified; what is here already stays",
    _option("name", "a source under data/sources, such as joshua; a wrong name lists them all"),
    _option("--from", "a folder with NAME.tsv and NAME/, or a clone of the home", Path, dest="place"),
)
def _fetch(asked: Namespace) -> str:
    from slmlab.corpus import sources

    source = sources.find(asked.name)
    n, hours = len(source.rows), sum(float(row["seconds"]) for row in source.rows.values()) / 3600
    print(f"{n} recordings, {hours:.1f} h, from {asked.place or source.home}", flush=True)
    folder = sources.fetch(asked.name, asked.place)
    print(f"fetched: {n} recordings into {folder} ({source.licence}, {source.copyright})")
    return f"slmlab import {folder} --language {source.language}"


IMPORTED = (
    _option(
        "--form",
        "plain (a .txt a sound), table (a .csv or .tsv of sounds and texts), ljspeech (metadata.csv, wavs/), "
        "common_voice, spontaneous, source (what `fetch` brought) (what the folder looks like)",
        default="",
    ),
    _option(
        "--consent", "a licence, or who agreed to what (the Record tab's sounds bring theirs)", default=""
    ),
    _option("--name", "of the corpus (the folder's)"),
    _option("--out", "where the corpus goes (cache/imported/<name>)", Path),
    _option("--replace", "a corpus that is there already is made anew", bool),
)


@_command(
    "make a corpus of recordings; what cannot be used is listed",
    _option("folder", "where the recordings lie, and stay", Path),
    _option("--language", "what is spoken, such as sw or vi", required=True),
    *IMPORTED,
)
def _import(asked: Namespace) -> str:
    from slmlab import files
    from slmlab.corpus import fitness
    from slmlab.corpus.build import SETTINGS
    from slmlab.corpus.collections import read
    from slmlab.corpus.imports import ImportSpec, bring_in

    name = asked.name or asked.folder.resolve().name
    target = asked.out or files.CACHE / "imported" / name
    if target.exists() and not asked.replace:
        raise LabError(f"{target} is there already: give another --name or --out, or --replace it.")
    clips = read(asked.folder, asked.form)
    for clip in [clip for clip in clips if not clip.fault][:2]:
        print(f"read: {clip.path.name}, {clip.speaker}: {clip.text}", flush=True)
    corpus = bring_in(clips, ImportSpec(name, asked.language, asked.consent), target)
    settings = files.read_json(target / SETTINGS)
    for kind in ("skipped", "remarks"):
        for note in settings[kind]:
            print(f"{kind}: {note['file']}: {note['reason']}")
    for what, found, look in fitness.card(corpus).itertuples(index=False):
        print(f"{what}: {found}{look and f' ({look})'}")
    print(f"imported: {len(corpus)} recordings, {60 * corpus.hours:.1f} min, into {target}")
    return f"slmlab train {asked.language} --recordings {target}"


@_command(
    "make the folder of a new language from recordings and their texts, and import them",
    _option("action", "new", choices=["new"]),
    _option("language", "its code, two or three letters of ISO 639"),
    _option("--called", "what people call the language (its code)", default=""),
    _option("--recordings", "where the recordings lie, and stay", Path, dest="folder", required=True),
    _option("--texts", "a UTF-8 file of more sentences, one a line, for a synthesiser to read", Path),
    *IMPORTED,
)
def _language(asked: Namespace) -> str:
    from slmlab.corpus.collections import read
    from slmlab.corpus.engines import espeak
    from slmlab.language import draft

    clips = [clip for clip in read(asked.folder, asked.form) if clip.text and not clip.fault]
    texts = asked.texts and asked.texts.resolve()
    folder, decided = draft.found(
        asked.language,
        asked.called,
        [clip.text for clip in clips],
        texts,
        asked.consent,
        asked.language if espeak().has(asked.language) else "",
    )
    for sentence in decided:
        print(sentence)
    print(f"language: {folder}; mend what was decided amiss in its file, before you train", flush=True)
    return f"{_import(asked)} --preset human"


@_command(
    "cut a long reading, by its text, into utterances that `import` takes",
    _option("sound", "the recording, an hour at most", Path),
    _option("text", "a UTF-8 file of what is read there, an utterance a line", Path),
    _option("--language", "what is spoken", required=True),
    _option("--out", "a new folder for the utterances (the sound's name, beside it)", Path),
    _preset("whose judge B listens: smoke, tiny or human (human)", "human"),
)
def _cut(asked: Namespace) -> str:
    import torch

    from slmlab import files
    from slmlab.corpus import cutting
    from slmlab.language.texts import lines_of, read_text
    from slmlab.sound import audio
    from slmlab.speech.chain import open_chain

    folder = asked.out or asked.sound.with_suffix("")
    files.need_empty(folder)
    texts = [line for line in lines_of(read_text(asked.text)) if line.strip()]
    judge = open_chain(asked.preset).judge("b", asked.language)
    wave, info = audio.read(asked.sound, cutting.LONGEST)
    sound = torch.as_tensor(wave)
    cuts = cutting.cut(sound, texts, judge, judge.config.alphabet, asked.language)
    n, doubtful = len(cuts), cutting.save(folder, sound, cuts, info.generated)
    print(f"cut: {n} utterances into {folder}, {doubtful} of them doubtful (doubtful.tsv): hear these")
    return f"slmlab import {quote(str(folder))} --language {asked.language}"


@_command(
    "tune a language model by preferences: DGSA, TDSC, baselines, votes",
    _option(
        "method", "dgsa, tdsc, people, …, a wrong name lists them; core, full: the study for so many claims"
    ),
    _preset(),
    _option("--seed", "one run each (0)", SEED, nargs="+", default=[0]),
    _option("--start", "the checkpoint to begin from (the preset's own)", Path),
    _option(
        "--language", "vi for DGSA and its like, else sw; votes need it; core, full: this alone", default=""
    ),
    _option("--alpha", "DGSA and its like: share of synthetic speech (0.8)", _within(0, 1, float)),
    _option("--votes", "people: the exported preference table", Path),
    _option("--clips", "people: the folder of the systems' sounds, where votes hold no tokens", Path),
    _option("--recordings", "DGSA and its like: an imported corpus in place of the stand-in speech", Path),
    _option("--only", "core, full: of these methods alone, such as sft,dgsa", _list(), default=[]),
    _option("--workers", f"core, full: {WORKERS}", _within(0, 1024), default=0),
)
def _align(asked: Namespace) -> str:
    from slmlab.preference.methods import Run, align, hear, summary

    chosen = ("start", "votes", "clips", "recordings", "alpha")
    if asked.method in ("core", "full"):
        from slmlab import files
        from slmlab.study import alignment, rows

        files.need_checkout("The studies keep their rows")
        if ignored := [f"--{name}" for name in chosen if getattr(asked, name) is not None]:
            raise LabError(f"the study chooses by itself what {', '.join(ignored)} would say: leave it out.")
        units = alignment.plan(asked.preset, asked.method, asked.seed, asked.language, asked.only)
        made = alignment.run(asked.preset, units, asked.workers)
        print(f"aligned: {len(made)} of {len(units)} units were missing; rows are in {rows.RESULTS}")
        return f"slmlab report --preset {asked.preset}"
    if asked.only:
        raise LabError("--only chooses among the study's methods: it goes with core or full.")
    settings = {name: getattr(asked, name) for name in chosen}
    for seed in asked.seed:
        folder = align(Run(asked.method, asked.preset, seed, asked.language, **settings))
        print(f"aligned: {folder / 'model'}\n{summary(folder)}")
    return hear(folder, asked.preset)


@_command(
    "try rates of a method on dev, never on test, and print what judge A says",
    _option("method", "dgsa, tdsc, …; `sft` measures the study's start alone"),
    _preset(),
    _option("--language", "the one with recordings for DGSA and its like, else the one without", default=""),
    _option("--seed", "of the start and the method (0)", SEED, default=0),
    _option("--lr", "rates of DPO, such as 1e-5,2e-5,5e-5", NUMBERS, default=[]),
    _option("--sft-lr", "rates of SFT in a round", NUMBERS, default=[]),
    _option("--sft-weight", "weights of the SFT term beside DPO", NUMBERS, default=[]),
    _option("--steps", "steps of DPO and DGSA (the preset's)", _within(0, 10**6), default=0),
    _option("--rounds", "rounds of TDSC (the preset's)", _within(0, 100), default=0),
)
def _settle(asked: Namespace) -> str:
    from slmlab.study import alignment

    unit = alignment.unit_of(asked.preset, asked.method, asked.language, asked.seed)
    rates = (asked.lr, asked.sft_lr, asked.sft_weight)
    table = alignment.settle(asked.preset, unit, *rates, asked.steps, asked.rounds)
    print(table.to_string(index=False, float_format="{:.4g}".format))
    return f"write the best into SCALES of slmlab/preference/methods.py, then slmlab align {asked.method}"


@_command(
    "say a text, or every line of a file",
    _option("text", "", nargs="?", default=""),
    _option("--file", "a UTF-8 file: its lines become 001.wav, …, words and tokens beside them", Path),
    _option("--language", "vi, sw, or one that was taught with `train` (sw)", default="sw"),
    _preset("whose networks speak (tiny)"),
    _option("--voice", "a shipped voice, or a sound file of one (the language's reader, or mid)", default=""),
    _option("--consent", "of a sound file as --voice: whose it is and who agreed; it is kept", default=""),
    _option("--style", "a sound file to take the manner of speaking from", Path),
    _option("--out", "where to write (out.wav; of a file, the folder spoken)", Path),
    _option("--seed", "another seed, another reading (0)", SEED, default=0),
    _option("--temperature", "how freely tokens are drawn", float),
    _option("--tries", "how often each text is drawn, to keep the clearest (1)", _within(1, 64), default=1),
    _option("--checkpoints", "a folder of checkpoints (what is shipped, or trained here)", Path),
    _option("--lm", SPEAKER, Path),
)
def _speak(asked: Namespace) -> str:
    from slmlab.language import languages
    from slmlab.language.sentences import check_roman, from_file, unlike
    from slmlab.sound import audio
    from slmlab.speech import commands
    from slmlab.speech.chain import open_chain

    if asked.file and asked.text:
        raise LabError("give a text or a --file, not both.")
    out: Path = asked.out or Path("spoken" if asked.file else "out.wav")
    if bool(asked.file) == (out.suffix.lower() == ".wav"):
        wanted = "a folder for the lines of a --file" if asked.file else "a name that ends in .wav"
        raise LabError(f"the sound would be a WAV file, but --out is {out}: give {wanted}")
    if asked.file and any(out.glob("*.wav")):
        raise LabError(f"{out} holds sounds already, which would join these: give another --out")
    language, consent = asked.language, asked.consent.strip()
    texts = from_file(asked.file, language) if asked.file else [asked.text]
    check_roman(asked.text)
    commands.check_lengths(texts)
    name = languages.find(language).name
    chain = open_chain(asked.preset, asked.checkpoints, asked.lm)
    manner = (asked.style, asked.seed, asked.temperature, consent, asked.tries)
    utterances = commands.speak(chain, texts, language, asked.voice, *manner)
    if asked.file:
        commands.write_spoken(out, texts, utterances, asked.seed, consent)
    else:
        audio.write(out, utterances[0].wave.numpy(), consent=consent)
    print(f"said, read as {name}: {out}")
    for doubt in filter(None, (unlike(text, language) for text in texts)):
        print(doubt, file=sys.stderr)
    print(f"the language model is {chain.place(f'lm.{language}')}", file=sys.stderr)
    place, own = quote(str(out)), f" --preset {asked.preset}" if asked.preset != "tiny" else ""
    if asked.file:
        return f"slmlab app TEST --systems {place} OTHER, to let people compare it with another folder"
    return f"slmlab measure {place} --language {language} --text {quote(texts[0])}{own}"


@_command(
    "measure any sound files, of any system",
    _option("sounds", "", Path, nargs="+", metavar="WAV"),
    _option("--text", "what each sound says, in their order", default=[], action="append"),
    _option("--reference", "a recording to compare each with", Path, default=[], action="append"),
    _option("--language", "that is spoken, for its judge and its cut into words", default=""),
    _preset("whose networks listen (tiny)"),
    _option("--json", "print JSON, not a table", bool),
    _option("--checkpoints", "a folder of checkpoints, for the judge and the speaker encoder", Path),
    JUDGE,
    INSTRUMENTS,
    WHISPER,
)
def _measure(asked: Namespace) -> str | None:
    from slmlab.speech import commands
    from slmlab.speech.chain import open_chain

    n = len(asked.sounds)
    for name, values in (("--text", asked.text), ("--reference", asked.reference)):
        if len(values) not in (0, n):
            each = "give it once for each sound, in their order"
            raise LabError(f"{n} sounds but {len(values)} times {name}: {each}")
    if "sim" in asked.instruments and not asked.reference:
        raise LabError("the instrument 'sim' compares two voices: give --reference once for each sound")
    encoder, opened = _ears(asked)
    chain = open_chain(asked.preset, asked.checkpoints, encoder=encoder)
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    try:
        for what in bar(zip_longest(asked.sounds, asked.text, asked.reference), "measured", n):
            try:
                rows.append(commands.measure(chain, *what, asked.language, opened))
            except LabError as error:
                faults.append(str(error).rstrip("."))
    finally:  # what was measured is printed, whatever ends it
        if rows:
            print(json.dumps(rows, indent=2, ensure_ascii=False) if asked.json else commands.as_table(rows))
    if faults:
        why = "; ".join(dict.fromkeys(faults))
        raise LabError(f"{len(faults)} of {n} sounds were not measured: {why}." if n > 1 else f"{why}.")
    return None if asked.json else "notebooks/07_judges.ipynb says what each number means, and what fools it"


@_command(
    "the scaling study: every run that has no rows yet",
    _preset(),
    _option("--arms", "a,b; a wrong name lists them all (authentic)", _list(), default=["authentic"]),
    _option("--seeds", "such as 0,1,2 (0,1,2)", _list(SEED), default=[0, 1, 2]),
    _option("--alphas", "some of the study's, such as 0.5,0.8 (all)", NUMBERS, default=[]),
    _option("--workers", WORKERS, _within(0, 1024), default=0),
)
def _sweep(asked: Namespace) -> str:
    from slmlab import files
    from slmlab.study import rows, scaling

    files.need_checkout("The studies keep their rows")
    study = scaling.study_of(asked.preset)
    cells = scaling.plan(study, asked.arms, asked.seeds, asked.alphas)
    made = rows.run(scaling.CELLS, study, cells, asked.workers)
    print(f"sweep: {len(made)} of {len(cells)} runs were missing; rows are in {rows.RESULTS}")
    return f"slmlab report --preset {asked.preset}"


@_command(
    "listen, compare, rate, record and see the results in a browser",
    _option("folder", "of the listening test: its votes, clips, recordings, exports", Path),
    _option("--systems", "make a test of a folder of systems, or of their folders", Path, nargs="+"),
    _option("--pairs", "make a listening test of the pairs in a CSV or TSV file", Path),
    _option("--host", "0.0.0.0 lets the room in; needs --password (127.0.0.1)", default="127.0.0.1"),
    _option("--port", "the first free one from 7860 on", _within(1, 65535)),
    _option("--password", "what listeners log in with, under any name", default=""),
    _option("--teacher-password", "of the login 'teacher' (made up and printed)", default=""),
    _option("--share", "through Gradio's tunnel as well; needs --password", bool),
)
def _app(asked: Namespace) -> str:
    with never_silent():
        from slmlab.people import page, store

        door = page.access(asked.host, asked.share, asked.password, asked.teacher_password)
        systems = asked.systems
        if systems or asked.pairs:
            folders = systems[0] if systems and len(systems) == 1 else systems
            votes = store.make_test(asked.folder, folders, asked.pairs)
        else:
            votes = store.open_test(asked.folder)
    page.serve(votes, asked.host, asked.port, asked.share, door)
    return (
        f"slmlab app {asked.folder} goes on; with its table from Results, Export: slmlab align people "
        f"--votes {asked.folder / 'export' / 'preferences.parquet'} --language CODE"
    )


@_command("is everything here that the lab needs?")
def _doctor(asked: Namespace) -> str:
    import shutil

    import torch

    from slmlab import files
    from slmlab.corpus.engines import check
    from slmlab.study.report import machine
    from slmlab.training.shelf import VOICES

    try:
        speech, speaks = f"{check()} speaks", True
    except LabError as error:
        speech, speaks = f"espeak-ng does not speak: {error}", False
    networks = "no checkpoints are shipped: the first use trains"
    if (files.SHIPPED / "tiny" / VOICES).exists():
        networks = "checkpoints of tiny are shipped"
    gpu = "a GPU is here" if torch.cuda.is_available() else "no GPU: the tiny preset needs none"
    if torch.backends.mps.is_available():
        gpu = "Apple's GPU (MPS) is here and stays unused, for nobody has tried it yet: the CPU does all"
    free = shutil.disk_usage(files.nearest(files.HOME)).free / 2**30
    checks = {
        machine(): True,
        speech: speaks,
        networks: True,
        f"what is made goes into {files.HOME} (SLMLAB_HOME moves it)": True,
        f"{free:.0f} GiB of disk free (2 needed)": free >= 2,
        gpu: True,
    }
    for line, good in checks.items():
        print(f"{'OK' if good else 'X '} {line}")
    if not all(checks.values()):
        raise LabError("something the lab needs is missing: see the lines marked X above")
    return 'make lab, the course; or slmlab speak "Mama anapika chakula."'


if __name__ == "__main__":
    sys.exit(main())
