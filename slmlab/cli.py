"""The commands: `slmlab corpus | import | train | align | settle | speak | measure | sweep | app | …`.

A mistake of the person's ends in one sentence and exit code 2; nothing here knows how things are done, only
what was asked.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from slmlab import __version__
from slmlab.errors import LabError

Runner = Callable[[argparse.Namespace], None]
"""What a command does with what was asked."""
Command = Callable[[str, Runner, str], argparse.ArgumentParser]
"""Adds a command: its name, what runs it, one line of help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, or 2 when what was asked cannot be done."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except LabError as error:
        print(f"slmlab: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(
            f"slmlab: {error.name} is not installed: `make test` installs it, and so does "
            "`pip install --constraint constraints.txt --editable '.[dev]'`",
            file=sys.stderr,
        )
        return 2
    except OSError as error:
        print(
            f"slmlab: {error.strerror or error}: {error.filename or 'a file of this command'}",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(
            "slmlab: stopped; what was finished is kept, and the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="slmlab", description="A laboratory for spoken language models.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Runner, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        return made

    for add in (
        _chain_commands,
        _import_command,
        _align_command,
        _speak_command,
        _measure_command,
        _sweep_command,
        _app_command,
    ):
        add(command)
    command("doctor", _doctor, "is everything here that the lab needs?")
    return parser


def _chain_commands(command: Command) -> None:
    """Commands that take a preset and little else."""

    def with_preset(name: str, run: Runner, text: str) -> argparse.ArgumentParser:
        made = command(name, run, text)
        made.add_argument("--preset", default="tiny", help="smoke, tiny, base or paper (tiny)")
        return made

    corpus = with_preset("corpus", _corpus, "speak the corpora of a preset")
    corpus.add_argument(
        "--filter", action="store_true", help="let judge A hear it: what the quality filter takes"
    )
    train = with_preset("train", _train, "train one network, or `all`, and whatever it needs")
    train.add_argument(
        "stage",
        help="a stage such as tokenizer or lm.sw, `all`, or a language with a folder under data/languages",
    )
    train.add_argument(
        "--recordings",
        type=Path,
        nargs="+",
        default=[],
        help="corpora that `import` made, to learn from as well",
    )
    train.add_argument(
        "--ship", action="store_true", help="of all: put the checkpoints under data/checkpoints"
    )
    run = with_preset(
        "run", _run, "the whole chain: taken or trained, spoken, scored, the notebooks executed, reported"
    )
    for parser in (train, run):
        parser.add_argument(
            "--fresh", action="store_true", help="make everything anew, whatever the cache holds"
        )
    report = with_preset(
        "report", _report, "the report of the last run, or of one made now, and of the studies"
    )
    report.add_argument("--claims", action="store_true", help="only print the ledger of claims")
    report.add_argument("--ledger", type=Path, help="only write the ledger of claims to a Markdown file")
    report.add_argument("--picture", type=Path, help="only draw stability against expressivity, a PNG")
    bars = with_preset("bench", _bench, "measure every bar and write bench.json")
    bars.add_argument("--only", nargs="+", metavar="ID", default=[], help="only the bars whose id starts so")


def _import_command(command: Command) -> None:
    """People's recordings to a corpus."""
    brought = command("import", _import, "make a corpus of recordings; what cannot be used is listed")
    brought.add_argument("folder", type=Path, help="where the recordings lie, and stay")
    brought.add_argument(
        "--form",
        default="plain",
        help="plain (sounds, each with a .txt beside it; a subfolder a speaker), ljspeech or common_voice "
        "(plain)",
    )
    brought.add_argument("--language", required=True, help="what is spoken, such as sw or vi")
    brought.add_argument(
        "--consent",
        default="",
        help="under what terms they may be used: a licence, or who agreed to what (what the Record tab kept "
        "says so itself)",
    )
    brought.add_argument("--name", help="of the corpus (the folder's)")
    brought.add_argument("--out", type=Path, help="where the corpus goes (cache/imported/<name>)")
    brought.add_argument("--replace", action="store_true", help="a corpus that is there already is made anew")


def _align_command(command: Command) -> None:
    """Preference tuning."""
    align = command("align", _align, "tune a language model by preferences: DGSA, TDSC, baselines, votes")
    align.add_argument(
        "method",
        metavar="METHOD",
        help="dgsa, tdsc, people, …; a wrong name lists them all. `core` or `full`: the study, every "
        "method that the core claims need, or all claims, from the study's own starts",
    )
    align.add_argument("--preset", default="tiny", help="smoke or tiny (tiny)")
    align.add_argument("--seed", type=_seed, nargs="+", default=[0], help="one run each (0)")
    align.add_argument("--start", type=Path, help="the checkpoint to begin from (the preset's own)")
    align.add_argument(
        "--language",
        default="",
        help="vi for DGSA and its like, else sw; for votes it must be given; core, full: this one alone",
    )
    align.add_argument(
        "--alpha", type=float, help="DGSA and its like: share of synthetic speech in its training (0.8)"
    )
    align.add_argument("--votes", type=Path, help="people: the exported preference table")
    align.add_argument(
        "--clips", type=Path, help="people: the folder of the systems' sounds, where votes hold no tokens"
    )
    align.add_argument(
        "--recordings",
        type=Path,
        help="DGSA and its like: an imported corpus in place of the stand-in speech",
    )
    align.add_argument(
        "--only", type=_names, default=[], help="core, full: of these methods alone, such as sft,dgsa"
    )
    align.add_argument("--workers", type=int, default=0, help="core, full: runs side by side (one a core)")
    settle = command(
        "settle", _settle, "try rates of a method on dev, never on test, and print what judge A says"
    )
    settle.add_argument(
        "method", metavar="METHOD", help="dgsa, tdsc, …; `sft` measures the study's start alone"
    )
    settle.add_argument("--preset", default="tiny", help="smoke or tiny (tiny)")
    settle.add_argument(
        "--language", default="", help="the one with recordings for DGSA and its like, else the one without"
    )
    settle.add_argument("--seed", type=_seed, default=0, help="of the start and the method (0)")
    settle.add_argument("--lr", type=_numbers, default=[], help="rates of DPO, such as 1e-5,2e-5,5e-5")
    settle.add_argument("--sft-lr", type=_numbers, default=[], help="rates of SFT in a round")
    settle.add_argument("--sft-weight", type=_numbers, default=[], help="weights of the SFT term beside DPO")
    settle.add_argument("--steps", type=int, default=0, help="steps of DPO and DGSA (the preset's)")
    settle.add_argument("--rounds", type=int, default=0, help="rounds of TDSC (the preset's)")


def _speak_command(command: Command) -> None:
    """Text to a sound."""
    speak = command("speak", _speak, "say a text, or every line of a file")
    speak.add_argument("text", nargs="?", default="")
    speak.add_argument(
        "--file",
        type=Path,
        help="a UTF-8 file: its lines become 001.wav, …, words and tokens beside them",
    )
    speak.add_argument("--language", default="sw", help="vi, sw, or one that was taught with `train` (sw)")
    speak.add_argument("--preset", default="tiny", help="whose networks speak (tiny)")
    speak.add_argument(
        "--voice", default="mid", help="a shipped voice, or a sound file of the voice to speak in"
    )
    speak.add_argument("--style", type=Path, help="a sound file to take the manner of speaking from")
    speak.add_argument("--out", type=Path, help="where to write (out.wav; of a file, the folder spoken)")
    speak.add_argument("--seed", type=_seed, default=0, help="another seed, another reading (0)")
    speak.add_argument("--temperature", type=float, help="how freely tokens are drawn")
    speak.add_argument(
        "--checkpoints", type=Path, help="a folder of checkpoints (what is shipped, or trained here)"
    )
    speak.add_argument("--lm", type=Path, help="a tuned language model, such as `align` leaves")


def _measure_command(command: Command) -> None:
    """Sounds to figures."""
    measure = command("measure", _measure, "measure any sound files, of any system")
    measure.add_argument("sounds", nargs="+", type=Path, metavar="WAV")
    measure.add_argument("--text", action="append", default=[], help="what each sound says, in their order")
    measure.add_argument(
        "--reference", action="append", type=Path, default=[], help="a recording to compare each with"
    )
    measure.add_argument(
        "--language", default="", help="that is spoken, for its judge and its cut into words"
    )
    measure.add_argument("--preset", default="tiny", help="whose networks listen (tiny)")
    measure.add_argument("--json", action="store_true", help="print JSON, not a table")
    measure.add_argument(
        "--checkpoints", type=Path, help="a folder of checkpoints, for the judge and the speaker encoder"
    )


def _sweep_command(command: Command) -> None:
    """The scaling study."""
    sweep = command("sweep", _sweep, "the scaling study: every run that has no rows yet")
    sweep.add_argument("--preset", default="tiny", help="smoke or tiny (tiny)")
    sweep.add_argument(
        "--arms",
        type=_names,
        default=["authentic"],
        help="of authentic, lively, equal-hours, alone, helped, alone-scratch, helped-scratch, entropy "
        "(authentic)",
    )
    sweep.add_argument("--seeds", type=_seeds, default=[0, 1, 2], help="such as 0,1,2 (0,1,2)")
    sweep.add_argument(
        "--alphas", type=_numbers, default=[], help="some of the study's, such as 0.5,0.8 (all)"
    )
    sweep.add_argument("--workers", type=int, default=0, help="runs side by side (one a core)")


def _app_command(command: Command) -> None:
    """People as judges."""
    page = command("app", _app, "listen, compare, rate, record and see the results in a browser")
    page.add_argument(
        "folder", type=Path, help="of the listening test: its votes, clips, recordings, exports"
    )
    page.add_argument(
        "--systems",
        type=Path,
        nargs="+",
        help="make a listening test of a folder of systems, or of several systems' folders",
    )
    page.add_argument("--pairs", type=Path, help="make a listening test of the pairs in a CSV or TSV file")
    page.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 lets the room in; needs --password (127.0.0.1)"
    )
    page.add_argument("--port", type=int, help="the first free one from 7860 on")
    page.add_argument("--password", default="", help="what listeners log in with, under any name")
    page.add_argument("--teacher-password", default="", help="of the login 'teacher' (made up and printed)")
    page.add_argument(
        "--share", action="store_true", help="through Gradio's tunnel as well; needs --password"
    )


def _corpus(arguments: argparse.Namespace) -> None:
    from slmlab.study import ground, scaling
    from slmlab.training import shelf

    shelf.corpora(arguments.preset)
    if arguments.filter:
        table = ground.filter_corpora(arguments.preset, scaling.languages(arguments.preset))
        print(table.to_string(float_format="{:.3f}".format))


def _import(arguments: argparse.Namespace) -> None:
    from slmlab import files
    from slmlab.corpus.imports import FORMS, ImportSpec, bring_in

    name, form = arguments.name or arguments.folder.resolve().name, arguments.form
    if form not in FORMS:
        raise LabError(f"there is no form {form!r}: choose one of {', '.join(FORMS)}.")
    spec = ImportSpec(name, arguments.language, arguments.consent)
    target = arguments.out or files.CACHE / "imported" / name
    if target.exists() and not arguments.replace:
        raise LabError(f"{target} is there already: give another --name or --out, or --replace it.")
    made = bring_in(FORMS[form](arguments.folder), spec, target)
    for path, reason in made.skipped:
        print(f"skipped: {path}: {reason}")
    print(f"imported: {len(made.corpus)} recordings, {60 * made.corpus.hours:.1f} min, into {target}")
    print(f"next: slmlab train {arguments.language} --recordings {target}")


def _train(arguments: argparse.Namespace) -> None:
    from slmlab.corpus.shares import TARGETS
    from slmlab.language import languages
    from slmlab.training import shelf

    if arguments.ship and arguments.stage != "all":
        raise LabError("only a whole chain is shipped, so that its parts fit: `slmlab train all --ship`")
    network, _, language = arguments.stage.rpartition(".")
    if language in languages.codes() and (not network or language not in TARGETS):
        folder = shelf.adopt(arguments.preset, language, arguments.recordings, network, arguments.fresh)
        print(f"trained: {folder}")
        print(f"next: slmlab speak TEXT --language {language} --preset {arguments.preset}")
        return
    folder = shelf.make(arguments.preset, arguments.stage, arguments.fresh, arguments.recordings)
    print(f"trained: {folder}")
    if arguments.ship:
        print(f"shipped: {shelf.ship(arguments.preset)}")


def _align(arguments: argparse.Namespace) -> None:
    from slmlab.preference.methods import Run, align, summary

    if arguments.method in ("core", "full"):
        from slmlab.study import alignment, rows

        names = ("start", "votes", "clips", "recordings", "alpha")
        ignored = [f"--{name}" for name in names if getattr(arguments, name) is not None]
        if ignored:
            raise LabError(f"the study chooses by itself what {', '.join(ignored)} would say: leave it out.")

        chosen = (arguments.seed, arguments.language, arguments.only)
        units = alignment.plan(arguments.preset, arguments.method, *chosen)
        made = alignment.run(arguments.preset, units, arguments.workers)
        print(f"aligned: {len(made)} of {len(units)} units were missing; rows are in {rows.RESULTS}")
        return
    if arguments.only:
        raise LabError("--only chooses among the study's methods: it goes with core or full.")
    for seed in arguments.seed:
        fields = ("method", "preset", "language", "start", "alpha", "votes", "clips", "recordings")
        folder = align(Run(seed=seed, **{name: getattr(arguments, name) for name in fields}))
        print(f"aligned: {folder / 'model'}\n{summary(folder)}")


def _settle(arguments: argparse.Namespace) -> None:
    from slmlab.study import alignment

    unit = alignment.unit_of(arguments.preset, arguments.method, arguments.language, arguments.seed)
    rates = (arguments.lr, arguments.sft_lr, arguments.sft_weight)
    table = alignment.settle(arguments.preset, unit, *rates, arguments.steps, arguments.rounds)
    print(table.to_string(index=False, float_format="{:.4g}".format))


def _run(arguments: argparse.Namespace) -> None:
    from slmlab import files
    from slmlab.notebook import series
    from slmlab.study import report

    report.run(arguments.preset, arguments.fresh)
    folder = files.RUNS / arguments.preset
    seconds = series.execute(arguments.preset, series.notebooks(), folder / series.EXECUTED)
    report.add_stages(folder, {f"notebook.{name}": taken for name, taken in seconds.items()})
    print(f"report: {report.write(folder)}")


def _report(arguments: argparse.Namespace) -> None:
    from slmlab import files
    from slmlab.files import replace_text
    from slmlab.study import report

    if arguments.claims:
        print(report.ledger_page(arguments.preset))
        return
    if arguments.ledger:
        replace_text(arguments.ledger, report.ledger_page(arguments.preset))
        print(f"ledger: {arguments.ledger}")
        return
    if arguments.picture:
        report.picture(arguments.preset, arguments.picture)
        print(f"drawn: {arguments.picture}")
        return
    folder = files.RUNS / arguments.preset
    if not report.has_run(folder):
        report.run(arguments.preset)
    print(f"report: {report.write(folder)}")


def _bench(arguments: argparse.Namespace) -> None:
    from slmlab import files

    sys.path.append(str(files.ROOT / "tests"))
    from bench import bars

    print(f"bench: {bars.run(arguments.preset, arguments.only)}")


def _sweep(arguments: argparse.Namespace) -> None:
    from slmlab.study import rows, scaling

    study = scaling.study_of(arguments.preset)
    cells = scaling.plan(study, arguments.arms, arguments.seeds, arguments.alphas)
    made = rows.run(scaling.CELLS, study, cells, arguments.workers)
    print(f"sweep: {len(made)} of {len(cells)} runs were missing; rows are in {rows.RESULTS}")


def _names(text: str) -> list[str]:
    """`a,b` as a list."""
    return [name for name in text.split(",") if name]


def _seed(text: str) -> int:
    """A whole number that every stream of random numbers takes."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: give a whole number from 0 to {2**32 - 1}")
    return int(text)


def _seeds(text: str) -> list[int]:
    """`0,1` as seeds."""
    return [_seed(name) for name in _names(text)]


def _numbers(text: str) -> list[float]:
    """`0,1.5` as numbers."""
    try:
        return [float(name) for name in _names(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 0.5,0.8") from None


def _speak(arguments: argparse.Namespace) -> None:
    from slmlab.language import languages
    from slmlab.language.sentences import from_file
    from slmlab.sound import audio
    from slmlab.speech import commands

    if arguments.file and arguments.text:
        raise LabError("give a text or a --file, not both.")
    out: Path = arguments.out or Path("spoken" if arguments.file else "out.wav")
    if bool(arguments.file) == (out.suffix.lower() == ".wav"):
        wanted = "a folder for the lines of a --file" if arguments.file else "a name that ends in .wav"
        raise LabError(f"the sound would be a WAV file, but --out is {out}: give {wanted}")
    if arguments.file and any(out.glob("*.wav")):
        raise LabError(f"{out} holds sounds already, which would join these: give another --out")
    texts = from_file(arguments.file, arguments.language) if arguments.file else [arguments.text]
    said = commands.speak(
        texts,
        language=arguments.language,
        voice=arguments.voice,
        style=arguments.style,
        seed=arguments.seed,
        temperature=arguments.temperature,
        folder=arguments.checkpoints,
        lm=arguments.lm,
        preset_name=arguments.preset,
    )
    if arguments.file:
        commands.keep_spoken(out, texts, said, arguments.seed)
    else:
        audio.write(out, said[0].wave.numpy())
    print(f"said, read as {languages.find(arguments.language).name}: {out}")


def _measure(arguments: argparse.Namespace) -> None:
    from slmlab.speech import commands

    for name, values in (("--text", arguments.text), ("--reference", arguments.reference)):
        if values and len(values) != len(arguments.sounds):
            raise LabError(
                f"{len(arguments.sounds)} sounds but {len(values)} times {name}: give it once for each "
                f"sound, in their order"
            )
    rows = commands.measure(
        arguments.sounds,
        arguments.text,
        arguments.reference,
        arguments.checkpoints,
        arguments.language,
        arguments.preset,
    )
    print(json.dumps(rows, indent=2, ensure_ascii=False) if arguments.json else commands.as_table(rows))


def _app(arguments: argparse.Namespace) -> None:
    from slmlab.people import page, store

    asked = arguments
    allowed = page.access(asked.host, asked.share, asked.password, asked.teacher_password)
    if asked.systems or asked.pairs:
        systems = asked.systems[0] if asked.systems and len(asked.systems) == 1 else asked.systems
        votes = store.make_test(asked.folder, systems, asked.pairs)
    else:
        votes = store.open_test(asked.folder)
    page.serve(votes, asked.host, asked.port, asked.share, allowed)


def _doctor(arguments: argparse.Namespace) -> None:
    lines, healthy = doctor()
    print("\n".join(lines))
    if not healthy:
        raise LabError("something the lab needs is missing: see the lines marked ✗ above")


def doctor() -> tuple[list[str], bool]:
    """Lines on what works here, and whether all that is needed does."""
    import shutil

    import torch

    from slmlab import files
    from slmlab.corpus.engines import check
    from slmlab.study.report import machine
    from slmlab.training.shelf import VOICES

    checks: list[tuple[str, bool]] = [(machine(), True)]
    try:
        checks.append((f"{check()} speaks", True))
    except LabError as error:
        checks.append((f"espeak-ng does not speak: {error}", False))
    shipped = (files.SHIPPED / "tiny" / VOICES).exists()
    lacking = "no checkpoints are shipped: the first use trains"
    checks.append(("checkpoints of tiny are shipped" if shipped else lacking, True))
    free = shutil.disk_usage(files.ROOT).free / 2**30
    checks.append((f"{free:.0f} GiB of disk free (2 needed)", free >= 2))
    gpu = "a GPU is here" if torch.cuda.is_available() else "no GPU: the tiny preset needs none"
    checks.append((gpu, True))
    return [f"{'✓' if good else '✗'} {line}" for line, good in checks], all(good for _, good in checks)


if __name__ == "__main__":
    sys.exit(main())
