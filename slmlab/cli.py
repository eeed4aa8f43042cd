"""The commands: `slmlab corpus | train | speak | measure | report | bench | doctor | run`.

A mistake of the person's ends in one sentence and exit code 2; nothing here knows how things are done, only
what was asked.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from slmlab import __version__
from slmlab.errors import LabError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, or 2 when what was asked cannot be done."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except LabError as error:
        print(f"slmlab: {error}", file=sys.stderr)
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

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        return made

    for name, run, text in (
        ("corpus", _corpus, "speak the corpora of a preset"),
        ("train", _train, "train one network, or `all`, and whatever it needs"),
        ("run", _run, "the whole chain: taken or trained, spoken, scored, the notebooks executed, reported"),
        ("report", _report, "the report of the last run, made again from its rows"),
        ("bench", _bench, "measure every bar and write bench.json"),
    ):
        made = command(name, run, text)
        made.add_argument("--preset", default="tiny", help="smoke or tiny (tiny)")
        if name == "train":
            made.add_argument("stage", help="a stage such as tokenizer or lm.sw, or `all`")
            made.add_argument(
                "--ship", action="store_true", help="put the checkpoints under data/checkpoints"
            )
        if name in ("train", "run"):
            made.add_argument(
                "--fresh", action="store_true", help="make everything anew, whatever the cache holds"
            )
        if name == "bench":
            made.add_argument(
                "--only", nargs="+", metavar="ID", default=[], help="only the bars whose id starts so"
            )

    speak = command("speak", _speak, "say a text")
    speak.add_argument("text")
    speak.add_argument("--language", default="sw", help="sw or vi (sw)")
    speak.add_argument(
        "--voice", default="mid", help="a shipped voice, or a sound file of the voice to speak in"
    )
    speak.add_argument("--style", type=Path, help="a sound file to take the manner of speaking from")
    speak.add_argument("--out", type=Path, default=Path("out.wav"), help="where to write (out.wav)")
    speak.add_argument("--seed", type=int, default=0, help="another seed, another reading (0)")
    speak.add_argument("--temperature", type=float, help="how freely tokens are drawn")
    speak.add_argument(
        "--checkpoints", type=Path, help="a folder of checkpoints (what is shipped, or trained here)"
    )

    measure = command("measure", _measure, "measure any sound files, of any system")
    measure.add_argument("sounds", nargs="+", type=Path, metavar="WAV")
    measure.add_argument("--text", action="append", default=[], help="what each sound says, in their order")
    measure.add_argument(
        "--reference", action="append", type=Path, default=[], help="a recording to compare each with"
    )
    measure.add_argument("--json", action="store_true", help="print JSON, not a table")
    measure.add_argument(
        "--checkpoints", type=Path, help="a folder of checkpoints, for the judge and the speaker encoder"
    )

    command("doctor", _doctor, "is everything here that the lab needs?")
    return parser


def _corpus(arguments: argparse.Namespace) -> None:
    from slmlab import pipeline

    pipeline.corpora(arguments.preset)


def _train(arguments: argparse.Namespace) -> None:
    from slmlab import pipeline

    folder = pipeline.make(arguments.preset, arguments.stage, arguments.fresh)
    print(f"trained: {folder}")
    if arguments.ship:
        print(f"shipped: {pipeline.ship(arguments.preset)}")


def _run(arguments: argparse.Namespace) -> None:
    from slmlab import pipeline, report, series

    pipeline.run(arguments.preset, arguments.fresh)
    folder = pipeline.RUNS / arguments.preset
    seconds = series.execute(arguments.preset, series.notebooks(), folder / series.EXECUTED)
    pipeline.add_stages(folder, {f"notebook.{name}": taken for name, taken in seconds.items()})
    print(f"report: {report.write(folder)}")


def _report(arguments: argparse.Namespace) -> None:
    from slmlab import pipeline, report

    print(f"report: {report.write(pipeline.RUNS / arguments.preset)}")


def _bench(arguments: argparse.Namespace) -> None:
    from slmlab import bench

    print(f"bench: {bench.run(arguments.preset, arguments.only)}")


def _speak(arguments: argparse.Namespace) -> None:
    from slmlab import pipeline

    pipeline.speak(
        arguments.text,
        language=arguments.language,
        voice=arguments.voice,
        style=arguments.style,
        out=arguments.out,
        seed=arguments.seed,
        temperature=arguments.temperature,
        folder=arguments.checkpoints,
    )
    print(f"said: {arguments.out}")


def _measure(arguments: argparse.Namespace) -> None:
    from slmlab import pipeline

    for name, values in (("--text", arguments.text), ("--reference", arguments.reference)):
        if values and len(values) != len(arguments.sounds):
            raise LabError(
                f"{len(arguments.sounds)} sounds but {len(values)} times {name}: give it once for each "
                f"sound, in their order"
            )
    rows = pipeline.measure(arguments.sounds, arguments.text, arguments.reference, arguments.checkpoints)
    print(json.dumps(rows, indent=2, ensure_ascii=False) if arguments.json else pipeline.as_table(rows))


def _doctor(arguments: argparse.Namespace) -> None:
    from slmlab import pipeline

    lines, healthy = pipeline.doctor()
    print("\n".join(lines))
    if not healthy:
        raise LabError("something the lab needs is missing: see the lines marked ✗ above")


if __name__ == "__main__":
    sys.exit(main())
