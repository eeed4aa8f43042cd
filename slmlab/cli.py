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
COMMANDS: dict[str, tuple[Runner, str, tuple[Option, ...]]] = {}
"""By name, in the order of the help: what runs it, one line of help, its options."""
GOES_ON = ("corpus", "train", "run", "align", "sweep")
"""Those that keep their stages: stopped, they go on where they were."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, or 2 when what was asked cannot be done."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may not know the letters of a language
            os.environ["PYTHONIOENCODING"] = f"{stream.encoding}:replace"  # nor does that of its workers
    arguments = _parser().parse_args(argv)
    code = 2
    try:
        with nullcontext() if arguments.command == "app" else never_silent():  # a server may wait in silence
            after = arguments.run(arguments)
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
        sentence, code = "stopped before its end: run it again", 130
        if arguments.command in GOES_ON:
            sentence = "stopped; what was finished is kept, and the same command goes on from there"
        elif arguments.command == "measure":
            sentence = "stopped before its end; what was measured until then is printed"
    print("slmlab:", *sentence.split(), file=sys.stderr)  # one line, whatever it quotes
    return code


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="slmlab", description="A laboratory for spoken language models.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (run, text, options) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run, command=name)
        for option, settings in options:
            command.add_argument(option, **settings)
    return parser


def _command(text: str, *options: Option) -> Callable[[Runner], Runner]:
    """Make a function a command of its name, with a line of help."""

    def add(run: Runner) -> Runner:
        COMMANDS[run.__name__.removeprefix("_")] = (run, text, options)
        return run

    return add


def _option(name: str, text: str, kind: Callable[[str], Any] = str, **settings: Any) -> Option:
    """An option, or an argument if its name has no dashes, that is read by `kind`; bool makes a flag."""
    how: dict[str, Any] = {"action": "store_true"} if kind is bool else {"type": kind}
    return name, {"help": text, **how, **settings}


def _preset(text: str = "smoke or tiny (tiny)", usual: str = "tiny") -> Option:
    return _option("--preset", text, default=usual)


def _names(text: str) -> list[str]:
    """`a,b` as a list."""
    return [name for name in text.split(",") if name]


def _seed(text: str) -> int:
    """A whole number that every stream of random numbers takes."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise ArgumentTypeError(f"{text!r} is no seed: give a whole number from 0 to {2**32 - 1}")
    return int(text)


def _within(low: float, high: float, kind: type[int] | type[float] = int) -> Callable[[str], float]:
    """A reader of numbers from `low` to `high`."""

    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            what = "whole number" if kind is int else "number"
            raise ArgumentTypeError(f"{text!r} is not possible: give a {what} from {low:g} to {high:g}")
        return number

    return read


def _seeds(text: str) -> list[int]:
    return [_seed(name) for name in _names(text)]


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(name) for name in _names(text)]
    except ValueError:
        numbers = [math.nan]
    if not all(0 <= number < math.inf for number in numbers):
        raise ArgumentTypeError(f"{text!r} is no list of numbers such as 0.5,0.8")
    return numbers


PRESET = _preset("smoke, tiny, human, base or paper (tiny)")
OUT = _option("--out", "the folder of the run (runs/<preset>)", Path)
LM = _option("--lm", "a tuned language model that speaks, such as `align` leaves", Path)
FRESH = _option("--fresh", "make everything anew, whatever the cache holds", bool)
WORKERS = "runs side by side (one a core)"
WEIGHTS = "a folder or a hub id (Systran/faster-whisper-base)"
JUDGE_C = "judge_c"
JUDGE = _option("--judge", "who scores: b, or c, who hears by Whisper's encoder (b)", default="b")
WHISPER = _option("--whisper", f"Whisper's weights: {WEIGHTS}", default="")
INSTRUMENTS = _option(
    "--instruments",
    "networks of other people's that measure too, some of whisper,dnsmos,sim,vad (none): they need "
    "`pip install 'slmlab[instruments]'`",
    _names,
    default=[],
)


def _encoder(arguments: Namespace, instruments: Sequence[str] | None = None) -> Any:
    """What judge C hears by, if it is asked for; LabError for weights that nothing here uses."""
    from slmlab.metrics.instruments import Encoder

    if arguments.judge not in ("b", "c"):
        raise LabError(f"there is no judge {arguments.judge!r} who scores: choose b or c")
    if arguments.judge == "c":
        return Encoder(arguments.whisper)
    if arguments.whisper and "whisper" not in (instruments or ()):
        users = "--judge c" if instruments is None else "--judge c or --instruments whisper"
        raise LabError(f"--whisper names weights that nothing here uses: give {users} as well")
    return None


@_command(
    "speak the corpora of a preset",
    PRESET,
    _option("--filter", "let judge A hear it: what the quality filter takes", bool),
)
def _corpus(arguments: Namespace) -> str:
    from slmlab.study import ground, scaling
    from slmlab.training import shelf

    shelf.corpora(arguments.preset)
    if arguments.filter:
        table = ground.filter_corpora(arguments.preset, scaling.languages(arguments.preset))
        print(table.to_string(float_format="{:.3f}".format))
    return f"slmlab train all --preset {arguments.preset}"


@_command(
    "train one network, or `all`, and whatever it needs",
    PRESET,
    _option(
        "stage", "a stage such as tokenizer or lm.sw, `all`, or a language with a folder under data/languages"
    ),
    _option("--recordings", "corpora that `import` made, to learn from as well", Path, nargs="+", default=[]),
    _option("--ship", "of all, or of judge_c: put the checkpoints under data/checkpoints", bool),
    _option("--whisper", f"of judge_c: the weights whose encoder it hears by, {WEIGHTS}", default=""),
    FRESH,
)
def _train(arguments: Namespace) -> str:
    from slmlab.language import languages
    from slmlab.training import shelf
    from slmlab.training.presets import preset

    if arguments.ship and arguments.stage not in ("all", JUDGE_C):
        raise LabError("only a whole chain is shipped, so that its parts fit: `slmlab train all --ship`")
    if arguments.whisper and arguments.stage != JUDGE_C:
        raise LabError(f"--whisper is what {JUDGE_C} hears by: `slmlab train {JUDGE_C} --whisper …`")
    if arguments.ship:
        shelf.check_shippable(arguments.preset, arguments.recordings)
    if arguments.stage == JUDGE_C:
        if arguments.recordings:
            raise LabError(f"{JUDGE_C} learns from the preset's own recordings: leave --recordings out.")
        made = shelf.teach_judge_c(arguments.preset, arguments.whisper, arguments.ship, arguments.fresh)
        print(f"trained: {made / JUDGE_C}")
        return f"slmlab measure WAV --judge c --preset {arguments.preset}"
    network, _, language = arguments.stage.rpartition(".")
    if language in languages.codes() and (not network or language not in preset(arguments.preset).languages):
        folder = shelf.adopt(arguments.preset, language, arguments.recordings, network, arguments.fresh)
        print(f"trained: {folder}")
        return f"slmlab speak TEXT --language {language} --preset {arguments.preset}"
    folder = shelf.make(arguments.preset, arguments.stage, arguments.fresh, arguments.recordings)
    print(f"trained: {folder}")
    if arguments.ship:
        print(f"shipped: {shelf.ship(folder, arguments.preset)}")
    if arguments.stage != "all":
        return f"slmlab train all --preset {arguments.preset}, which takes this and trains the rest"
    language = preset(arguments.preset).languages[-1]
    return f"slmlab speak TEXT --language {language} --preset {arguments.preset}"


@_command(
    "the whole chain: taken or trained, spoken, scored, the notebooks executed, reported",
    PRESET,
    FRESH,
    JUDGE,
    WHISPER,
    OUT,
    (LM[0], LM[1] | {"help": f"{LM[1]['help']}; no notebook is executed"}),
)
def _run(arguments: Namespace) -> str:
    from slmlab import files
    from slmlab.notebook import series
    from slmlab.study import report
    from slmlab.training import shelf

    name = "-".join(filter(None, (arguments.preset, arguments.lm and arguments.lm.name)))
    folder, books = arguments.out or files.RUNS / name, [] if arguments.lm else series.notebooks()
    takes = shelf.RUN_TAKES.get(arguments.preset, "") if books else ""
    print(f"run: the chain speaks and is scored, then {len(books)} notebooks", end="")
    print(f"; {takes}, with networks at hand" if takes else "", flush=True)
    report.run(arguments.preset, folder, arguments.fresh, _encoder(arguments), arguments.lm)
    if books:
        seconds = series.execute(arguments.preset, books, folder / series.EXECUTED)
        report.add_stages(folder, {f"notebook.{name}": taken for name, taken in seconds.items()})
    print(f"report: {_link(report.write(folder))}")
    return f"slmlab compare RUN {folder}, with RUN the folder of another run (slmlab run --out)"


def _link(page: Path) -> str:
    """What a browser opens."""
    return page.resolve().as_uri()


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
def _report(arguments: Namespace) -> str | None:
    from slmlab import files
    from slmlab.metrics.instruments import open_instruments
    from slmlab.study import report

    if arguments.instruments and (arguments.claims or arguments.ledger or arguments.picture):
        raise LabError(
            "--instruments hear the sounds of a report: leave --claims, --ledger and --picture out."
        )
    if arguments.claims:
        print(report.ledger_page(arguments.preset))
    elif arguments.ledger:
        files.replace_text(arguments.ledger, report.ledger_page(arguments.preset))
        print(f"ledger: {arguments.ledger}")
    elif arguments.picture:
        report.picture(arguments.preset, arguments.picture)
        print(f"drawn: {arguments.picture}")
    else:
        folder = arguments.out or files.RUNS / arguments.preset
        opened = open_instruments(arguments.instruments, arguments.whisper)
        if not report.has_run(folder):
            report.run(arguments.preset, folder)
        if opened:
            report.ask_instruments(folder, opened)
        print(f"report: {_link(report.write(folder))}")
        return "open it in a browser"
    return None


@_command(
    "two runs sentence by sentence: what differs, how surely, and the sounds side by side",
    _option("runs", "the folders of two runs, such as runs/tiny and what `run --out` made", Path, nargs=2),
)
def _compare(arguments: Namespace) -> str:
    from slmlab.study import compare

    text, page = compare.compare(*arguments.runs)
    print(f"{text}\n\nside by side: {_link(page)}")
    return "open it in a browser"


@_command(
    "measure every bar and write bench.json",
    PRESET,
    _option("--only", "only the bars whose id starts so", nargs="+", metavar="ID", default=[]),
)
def _bench(arguments: Namespace) -> str:
    from slmlab import files

    sys.path.append(str(files.ROOT / "tests"))
    from bench import bars

    print(f"bench: {bars.run(arguments.preset, arguments.only)}")
    return "slmlab bench --only ID, to measure one of them again"


@_command(
    "get a public collection of people's recordings, verified; what is here already stays",
    _option("name", "a source under data/sources, such as joshua; a wrong name lists them all"),
    _option("--from", "a folder with NAME.tsv and NAME/, or a clone of the home", Path, dest="place"),
)
def _fetch(arguments: Namespace) -> str:
    from slmlab.corpus import sources

    source = sources.find(arguments.name)
    hours = sum(float(row["seconds"]) for row in source.rows.values()) / 3600
    print(f"{len(source.rows)} recordings, {hours:.1f} h, from {arguments.place or source.home}", flush=True)
    folder = sources.fetch(arguments.name, arguments.place)
    print(f"fetched: {len(source.rows)} recordings into {folder} ({source.licence}, {source.copyright})")
    return f"slmlab import {folder} --language {source.language}"


@_command(
    "make a corpus of recordings; what cannot be used is listed",
    _option("folder", "where the recordings lie, and stay", Path),
    _option(
        "--form",
        "plain (sounds, each with a .txt beside it; a subfolder a speaker), ljspeech, common_voice or "
        "spontaneous (plain)",
        default="plain",
    ),
    _option("--language", "what is spoken, such as sw or vi", required=True),
    _option(
        "--consent",
        "under what terms they may be used: a licence, or who agreed to what (what the Record tab kept "
        "says so itself)",
        default="",
    ),
    _option("--name", "of the corpus (the folder's)"),
    _option("--out", "where the corpus goes (cache/imported/<name>)", Path),
    _option("--replace", "a corpus that is there already is made anew", bool),
)
def _import(arguments: Namespace) -> str:
    from slmlab import files
    from slmlab.corpus.build import SETTINGS
    from slmlab.corpus.collections import read
    from slmlab.corpus.imports import ImportSpec, bring_in

    name = arguments.name or arguments.folder.resolve().name
    spec = ImportSpec(name, arguments.language, arguments.consent)
    target = arguments.out or files.CACHE / "imported" / name
    if target.exists() and not arguments.replace:
        raise LabError(f"{target} is there already: give another --name or --out, or --replace it.")
    clips = read(arguments.folder, arguments.form)
    for clip in [clip for clip in clips if not clip.fault][:2]:
        print(f"read: {clip.path.name}, {clip.speaker}: {clip.text}", flush=True)
    corpus = bring_in(clips, spec, target)
    settings = files.read_json(target / SETTINGS)
    for kind in ("skipped", "remarks"):
        for note in settings[kind]:
            print(f"{kind}: {note['file']}: {note['reason']}")
    print(f"imported: {len(corpus)} recordings, {60 * corpus.hours:.1f} min, into {target}")
    return f"slmlab train {arguments.language} --recordings {target}"


@_command(
    "cut a long reading, by its text, into utterances that `import` takes",
    _option("sound", "the recording, an hour at most", Path),
    _option("text", "a UTF-8 file of what is read there, an utterance a line", Path),
    _option("--language", "what is spoken", required=True),
    _option("--out", "a new folder for the utterances (the sound's name, beside it)", Path),
    _preset("whose judge B listens: smoke, tiny or human (human)", "human"),
)
def _cut(arguments: Namespace) -> str:
    import torch

    from slmlab.corpus import cutting
    from slmlab.language.texts import read_text
    from slmlab.sound import audio
    from slmlab.speech.chain import open_chain

    folder = arguments.out or arguments.sound.with_suffix("")
    texts = [line for line in read_text(arguments.text).splitlines() if line.strip()]
    judge = open_chain(arguments.preset).judge("b", arguments.language)
    wave, info = audio.read(arguments.sound, cutting.LONGEST)
    sound = torch.as_tensor(wave)
    cuts = cutting.cut(sound, texts, judge, judge.config.alphabet, arguments.language)
    doubtful = cutting.save(folder, sound, cuts, info.generated)
    print(
        f"cut: {len(cuts)} utterances into {folder}, {doubtful} of them doubtful (doubtful.tsv): hear these"
    )
    return f"slmlab import {quote(str(folder))} --language {arguments.language}"


@_command(
    "tune a language model by preferences: DGSA, TDSC, baselines, votes",
    _option(
        "method",
        "dgsa, tdsc, people, …; a wrong name lists them all. `core` or `full`: the study, every "
        "method that the core claims need, or all claims, from the study's own starts",
        metavar="METHOD",
    ),
    _preset(),
    _option("--seed", "one run each (0)", _seed, nargs="+", default=[0]),
    _option("--start", "the checkpoint to begin from (the preset's own)", Path),
    _option(
        "--language",
        "vi for DGSA and its like, else sw; for votes it must be given; core, full: this one alone",
        default="",
    ),
    _option("--alpha", "DGSA and its like: share of synthetic speech (0.8)", _within(0, 1, float)),
    _option("--votes", "people: the exported preference table", Path),
    _option("--clips", "people: the folder of the systems' sounds, where votes hold no tokens", Path),
    _option("--recordings", "DGSA and its like: an imported corpus in place of the stand-in speech", Path),
    _option("--only", "core, full: of these methods alone, such as sft,dgsa", _names, default=[]),
    _option("--workers", f"core, full: {WORKERS}", _within(0, 1024), default=0),
)
def _align(arguments: Namespace) -> str:
    from slmlab.preference.methods import Run, align, hear, summary

    if arguments.method in ("core", "full"):
        from slmlab.study import alignment, rows

        names = ("start", "votes", "clips", "recordings", "alpha")
        ignored = [f"--{name}" for name in names if getattr(arguments, name) is not None]
        if ignored:
            raise LabError(f"the study chooses by itself what {', '.join(ignored)} would say: leave it out.")
        choice = (arguments.seed, arguments.language, arguments.only)
        units = alignment.plan(arguments.preset, arguments.method, *choice)
        made = alignment.run(arguments.preset, units, arguments.workers)
        print(f"aligned: {len(made)} of {len(units)} units were missing; rows are in {rows.RESULTS}")
        return f"slmlab report --preset {arguments.preset}"
    if arguments.only:
        raise LabError("--only chooses among the study's methods: it goes with core or full.")
    for seed in arguments.seed:
        fields = ("method", "preset", "language", "start", "alpha", "votes", "clips", "recordings")
        folder = align(Run(seed=seed, **{name: getattr(arguments, name) for name in fields}))
        print(f"aligned: {folder / 'model'}\n{summary(folder)}")
    return hear(folder, arguments.preset)


@_command(
    "try rates of a method on dev, never on test, and print what judge A says",
    _option("method", "dgsa, tdsc, …; `sft` measures the study's start alone", metavar="METHOD"),
    _preset(),
    _option("--language", "the one with recordings for DGSA and its like, else the one without", default=""),
    _option("--seed", "of the start and the method (0)", _seed, default=0),
    _option("--lr", "rates of DPO, such as 1e-5,2e-5,5e-5", _numbers, default=[]),
    _option("--sft-lr", "rates of SFT in a round", _numbers, default=[]),
    _option("--sft-weight", "weights of the SFT term beside DPO", _numbers, default=[]),
    _option("--steps", "steps of DPO and DGSA (the preset's)", _within(0, 10**6), default=0),
    _option("--rounds", "rounds of TDSC (the preset's)", _within(0, 100), default=0),
)
def _settle(arguments: Namespace) -> str:
    from slmlab.study import alignment

    unit = alignment.unit_of(arguments.preset, arguments.method, arguments.language, arguments.seed)
    rates = (arguments.lr, arguments.sft_lr, arguments.sft_weight)
    table = alignment.settle(arguments.preset, unit, *rates, arguments.steps, arguments.rounds)
    print(table.to_string(index=False, float_format="{:.4g}".format))
    return f"write the best into SCALES of slmlab/preference/methods.py, then slmlab align {arguments.method}"


@_command(
    "say a text, or every line of a file",
    _option("text", "", nargs="?", default=""),
    _option("--file", "a UTF-8 file: its lines become 001.wav, …, words and tokens beside them", Path),
    _option("--language", "vi, sw, or one that was taught with `train` (sw)", default="sw"),
    _preset("whose networks speak (tiny)"),
    _option("--voice", "a shipped voice, or a sound file of one (the language's reader, or mid)", default=""),
    _option(
        "--consent", "of a sound file as --voice: whose it is and who agreed, kept in the mark", default=""
    ),
    _option("--style", "a sound file to take the manner of speaking from", Path),
    _option("--out", "where to write (out.wav; of a file, the folder spoken)", Path),
    _option("--seed", "another seed, another reading (0)", _seed, default=0),
    _option("--temperature", "how freely tokens are drawn", float),
    _option("--tries", "how often each text is drawn, to keep the clearest (1)", _within(1, 64), default=1),
    _option("--checkpoints", "a folder of checkpoints (what is shipped, or trained here)", Path),
    LM,
)
def _speak(arguments: Namespace) -> str:
    from slmlab.language import languages
    from slmlab.language.sentences import check_roman, from_file, unlike
    from slmlab.sound import audio
    from slmlab.speech import commands
    from slmlab.speech.chain import open_chain

    if arguments.file and arguments.text:
        raise LabError("give a text or a --file, not both.")
    out: Path = arguments.out or Path("spoken" if arguments.file else "out.wav")
    if bool(arguments.file) == (out.suffix.lower() == ".wav"):
        wanted = "a folder for the lines of a --file" if arguments.file else "a name that ends in .wav"
        raise LabError(f"the sound would be a WAV file, but --out is {out}: give {wanted}")
    if arguments.file and any(out.glob("*.wav")):
        raise LabError(f"{out} holds sounds already, which would join these: give another --out")
    language = arguments.language
    texts = from_file(arguments.file, language) if arguments.file else [arguments.text]
    check_roman(arguments.text)
    commands.check_lengths(texts)
    said = f"said, read as {languages.find(language).name}: {out}"
    chain = open_chain(arguments.preset, arguments.checkpoints, arguments.lm)
    consent = arguments.consent.strip()
    manner = (arguments.style, arguments.seed, arguments.temperature, consent, arguments.tries)
    utterances = commands.speak(chain, texts, language, arguments.voice, *manner)
    if arguments.file:
        commands.write_spoken(out, texts, utterances, arguments.seed, consent)
    else:
        audio.write(out, utterances[0].wave.numpy(), consent=consent)
    print(said)
    for doubt in filter(None, (unlike(text, language) for text in texts)):
        print(doubt, file=sys.stderr)
    print(f"the language model is {chain.place(f'lm.{language}')}", file=sys.stderr)
    own = f" --preset {arguments.preset}" if arguments.preset != "tiny" else ""
    if arguments.file:
        return (
            f"slmlab app TEST --systems {quote(str(out))} OTHER, to let people compare it with another folder"
        )
    return f"slmlab measure {quote(str(out))} --language {language} --text {quote(texts[0])}{own}"


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
def _measure(arguments: Namespace) -> str | None:
    from slmlab.metrics.instruments import open_instruments
    from slmlab.speech import commands
    from slmlab.speech.chain import open_chain

    for name, values in (("--text", arguments.text), ("--reference", arguments.reference)):
        if values and len(values) != len(arguments.sounds):
            raise LabError(
                f"{len(arguments.sounds)} sounds but {len(values)} times {name}: give it once for each "
                f"sound, in their order"
            )
    if "sim" in arguments.instruments and not arguments.reference:
        raise LabError("the instrument 'sim' compares two voices: give --reference once for each sound")
    encoder = _encoder(arguments, arguments.instruments)
    opened = open_instruments(arguments.instruments, arguments.whisper)
    chain = open_chain(arguments.preset, arguments.checkpoints, encoder=encoder)
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    try:
        each = zip_longest(arguments.sounds, arguments.text, arguments.reference)
        for what in bar(each, "measured", len(arguments.sounds)):
            try:
                rows.append(commands.measure(chain, *what, arguments.language, opened))
            except LabError as error:
                faults.append(str(error).rstrip("."))
    finally:  # what was measured is printed, whatever ends it
        if rows:
            as_json = arguments.json
            print(json.dumps(rows, indent=2, ensure_ascii=False) if as_json else commands.as_table(rows))
    if faults:
        n, why = len(arguments.sounds), "; ".join(dict.fromkeys(faults))
        raise LabError(f"{len(faults)} of {n} sounds were not measured: {why}." if n > 1 else f"{why}.")
    if arguments.json:
        return None
    return "notebooks/07_judges.ipynb says what each number means, and what fools it"


@_command(
    "the scaling study: every run that has no rows yet",
    _preset(),
    _option(
        "--arms",
        "of authentic, lively, equal-hours, alone, helped, alone-scratch, helped-scratch, entropy "
        "(authentic)",
        _names,
        default=["authentic"],
    ),
    _option("--seeds", "such as 0,1,2 (0,1,2)", _seeds, default=[0, 1, 2]),
    _option("--alphas", "some of the study's, such as 0.5,0.8 (all)", _numbers, default=[]),
    _option("--workers", WORKERS, _within(0, 1024), default=0),
)
def _sweep(arguments: Namespace) -> str:
    from slmlab.study import rows, scaling

    study = scaling.study_of(arguments.preset)
    cells = scaling.plan(study, arguments.arms, arguments.seeds, arguments.alphas)
    made = rows.run(scaling.CELLS, study, cells, arguments.workers)
    print(f"sweep: {len(made)} of {len(cells)} runs were missing; rows are in {rows.RESULTS}")
    return f"slmlab report --preset {arguments.preset}"


@_command(
    "listen, compare, rate, record and see the results in a browser",
    _option("folder", "of the listening test: its votes, clips, recordings, exports", Path),
    _option(
        "--systems",
        "make a listening test of a folder of systems, or of several systems' folders",
        Path,
        nargs="+",
    ),
    _option("--pairs", "make a listening test of the pairs in a CSV or TSV file", Path),
    _option("--host", "0.0.0.0 lets the room in; needs --password (127.0.0.1)", default="127.0.0.1"),
    _option("--port", "the first free one from 7860 on", _within(1, 65535)),
    _option("--password", "what listeners log in with, under any name", default=""),
    _option("--teacher-password", "of the login 'teacher' (made up and printed)", default=""),
    _option("--share", "through Gradio's tunnel as well; needs --password", bool),
)
def _app(arguments: Namespace) -> str:
    with never_silent():
        from slmlab.people import page, store

        door = page.access(arguments.host, arguments.share, arguments.password, arguments.teacher_password)
        systems = arguments.systems
        if systems or arguments.pairs:
            folders = systems[0] if systems and len(systems) == 1 else systems
            votes = store.make_test(arguments.folder, folders, arguments.pairs)
        else:
            votes = store.open_test(arguments.folder)
    page.serve(votes, arguments.host, arguments.port, arguments.share, door)
    return (
        f"slmlab app {arguments.folder} goes on; with its table from Results, Export: slmlab align people "
        f"--votes {arguments.folder / 'export' / 'preferences.parquet'} --language CODE"
    )


@_command("is everything here that the lab needs?")
def _doctor(arguments: Namespace) -> str:
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
    free = shutil.disk_usage(files.nearest(files.HOME)).free / 2**30
    checks = {
        machine(): True,
        speech: speaks,
        networks: True,
        f"what is made goes into {files.HOME} (SLMLAB_HOME moves it)": True,
        f"{free:.0f} GiB of disk free (2 needed)": free >= 2,
        "a GPU is here" if torch.cuda.is_available() else "no GPU: the tiny preset needs none": True,
    }
    for line, good in checks.items():
        print(f"{'OK' if good else 'X '} {line}")
    if not all(checks.values()):
        raise LabError("something the lab needs is missing: see the lines marked X above")
    return 'make lab, the course; or slmlab speak "Mama anapika chakula."'


if __name__ == "__main__":
    sys.exit(main())
