"""Hostile inputs, made up by hypothesis: each ends in a result or a sentence, no row is lost without one."""

import contextlib
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from bench.listeners import TEST, Row
from slmlab.corpus import collections, pairs
from slmlab.corpus.sources import TABLE
from slmlab.errors import LabError
from slmlab.language import text as texts
from slmlab.people.store import Store, Vote
from slmlab.sound import audio

NASTY = st.sampled_from(
    [
        *("", " ", '"', '""', '"a', "'", "\0", "\x1b", "\r", "\v", "\x85", "\u2028", "\ufeff", "\u202e", "é"),
        *(
            "../../x",
            "/etc/passwd",
            "C:\\a.wav",
            "a//a.wav",
            "a.wav",
            "A.WAV",
            "b",
            "nan",
            "1e999",
            "-0",
            "1,5",
        ),
        *(
            "٣",
            "²",
            "e\u0301" * 9,
            "😀",
            "x" * 300,
            "y" * 20_000,
            "z" * 140_000,
            "9" * 500,
            "|",
            "\t",
            "NULL",
        ),
    ]
)
CELL = st.one_of(NASTY, st.text(max_size=12))
FORMS = {
    "metadata.csv": ("ljspeech", "|", ()),
    "validated.tsv": ("common_voice", "\t", ("client_id", "path", "sentence")),
    "ss-corpus-sw.tsv": ("spontaneous", "\t", ("client_id", "audio_file", "transcription")),
    TABLE: ("plain", "\t", ("file", "text", "speaker")),
}
"""The tables that a folder is known by: their form, what stands between cells, and the first line."""


@st.composite
def damaged(draw: st.DrawFn, content: bytes, most: int = 4) -> bytes:
    """Bytes with some overwritten, inserted or taken out, cut off or doubled."""
    for _ in range(draw(st.integers(0, most))):
        head = draw(st.booleans())  # headers are where lies are told
        place = draw(st.integers(0, min(len(content), 64) if head else len(content)))
        new, gone = draw(st.binary(max_size=8)), draw(st.integers(0, 8))
        content = content[:place] + new + content[place + gone :]
    cut = draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    return content[:cut] * draw(st.sampled_from([1, 1, 1, 2]))


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """A table's name and its bytes, in some encoding and with some line ends."""
    name = draw(st.sampled_from(sorted(FORMS)))
    _, between, names = FORMS[name]
    rows = draw(st.lists(st.lists(CELL, min_size=0, max_size=5), max_size=8))
    usual = [[f"{i}.wav", "moja mbili", "mama"] for i in range(draw(st.integers(0, 3)))]
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    text = end.join(between.join(row) for row in ([names] if names else []) + usual + rows)
    code = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252", "utf-32"]))
    content = text.encode(code, "replace")
    return name, draw(damaged(content, 2)) if draw(st.booleans()) else content


def read_table(case: tuple[str, bytes]) -> str:
    """What is wrong with how a table is read: rows that are neither clips nor faults."""
    name, content = case
    form, between, names = FORMS[name]
    with TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        clips = collections.read(folder, form)
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = content.decode("utf-16" if wide else "utf-8", "replace").removeprefix("\ufeff")
    lines = re.sub("\r(?!\n)", " ", text).replace("\r\n", "\n").split("\n")
    there = sum(any(cell.strip() for cell in line.split(between)) for line in lines) - bool(names)
    head = not names and there - len(clips) == 1  # a line of names is no row
    return "" if len(clips) == there - head else f"{there} rows, {len(clips)} clips"


@cache
def sounds() -> tuple[bytes, ...]:
    """Small sounds of every format."""
    wave, found = np.random.default_rng(0).uniform(-0.5, 0.5, 4000), []
    for form, subtype in {
        "WAV": "PCM_16",
        "FLAC": "PCM_16",
        "OGG": "VORBIS",
        "MP3": "MPEG_LAYER_III",
    }.items():
        file = io.BytesIO()
        soundfile.write(file, wave, 16_000, format=form, subtype=subtype)
        found.append(file.getvalue())
    return tuple(found)


def read_sound(content: bytes) -> str:
    """What is wrong with a sound that was read: it has samples, all finite and at most 1."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        path.write_bytes(content)
        wave, _ = audio.read(path, 30.0)
    return "" if len(wave) and np.isfinite(wave).all() and np.abs(wave).max() <= 1 else "no sound came back"


TOKENS = st.sampled_from(["<|s_1|>", "<|s_2|><|s_3|>", "<|s_6561|>", "<|s_999999999|>", "sha256:00", "", "?"])
VALUES = st.one_of(
    CELL, st.none(), st.integers(), st.floats(), st.booleans(), st.lists(st.integers(-1, 7000), max_size=3)
)
VOTE = st.fixed_dictionaries(
    {"prompt": st.one_of(st.just("moja"), VALUES), "chosen": TOKENS, "rejected": TOKENS},
    optional={name: VALUES for name in (*pairs.FIELDS, "split") if name != "prompt"},
)
GOOD = {"prompt": "moja", "chosen": "<|s_1|>", "rejected": "<|s_2|>"}
"""A vote that can be learned from, without which no table is taken."""
ODD = st.one_of(VALUES, st.sampled_from(["\ud800", "a\nleft out: b", 10**400, ".", "n" * 300]))
LINES = st.one_of(
    VOTE.map(json.dumps),
    st.dictionaries(st.sampled_from([*GOOD, *pairs.FIELDS]), ODD, max_size=2).map(
        lambda odd: json.dumps(GOOD | odd)
    ),
    st.sampled_from(["[1]", "null", "{", "[" * 9999, "1" * 5000, "{}"]),
    CELL,
)


def read_pairs(lines: list[str]) -> str:
    """Rows of a table of votes that are neither pairs nor left out in a line."""
    said = io.StringIO()
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(said):
        path = Path(folder) / "votes.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8", errors="replace", newline="")
        there = sum(
            bool(line.strip()) for line in path.read_bytes().decode().removeprefix("\ufeff").split("\n")
        )
        taken = len(pairs.read(path, "sw"))
    alike = re.search(r": (\d+) votes left out, between", said.getvalue())
    listed = len(re.findall("^left out:", said.getvalue(), re.M)) + int(alike[1] if alike else 0)
    return "" if taken + listed == there else f"{there} rows, {taken} pairs, {listed} left out"


@st.composite
def votes(draw: st.DrawFn) -> list[tuple[int, int, Vote]]:
    """What a listener's browser might send."""
    decision = st.sampled_from(["A", "B", "tie", "both_bad", "skip", "6", "nan", "", "a"])
    plays, ms = (st.one_of(usual, VALUES) for usual in (st.tuples(st.integers()), st.integers()))
    odd = st.builds(Vote, st.one_of(decision, VALUES), VALUES, VALUES, heard=VALUES, plays=plays, ms=ms)
    return draw(st.lists(st.tuples(st.integers(-2, 4), st.integers(-1, 1), odd), max_size=6))


def cast(sent: list[tuple[int, int, Vote]]) -> str:
    """Votes that a store said it took and has not, or has without having been asked."""
    with TemporaryDirectory() as folder:
        store = Store(Path(folder) / "votes.db")
        store.set_test(TEST)
        token, taken = store.open_session("a"), 0
        for trial, attempt, vote in sent:
            before = store.place(token).trial
            with contextlib.suppress(LabError):
                taken += store.vote(token, trial, attempt, vote).trial > before
        kept = len(store.votes())
        store.close()
    return "" if kept == taken else f"{taken} votes taken, {kept} kept"


def read_text(written: tuple[str, str]) -> str:
    """A text as `speak` reads it."""
    said, language = written
    texts.words_of(said, language)
    ids = texts.alphabet_of([language]).encode(texts.ended(said, language), language)
    return "" if ids else "a text without symbols was taken"


WRITTEN = st.lists(
    st.one_of(CELL, st.text(max_size=30), st.sampled_from(["moja ", "chị ", "12", "-3.5", "1/2"])), max_size=8
)
KINDS: dict[str, tuple[st.SearchStrategy, Callable[..., str]]] = {
    "tables": (tables(), read_table),
    "sounds": (st.deferred(lambda: st.sampled_from(sounds()).flatmap(damaged)), read_sound),
    "pairs": (st.lists(LINES, max_size=8).map(lambda lines: [*lines, json.dumps(GOOD)]), read_pairs),
    "votes": (votes(), cast),
    "texts": (st.tuples(WRITTEN.map("".join), st.sampled_from(["sw", "vi"])), read_text),
}
"""Each kind of input, and what reads it."""


def fault(check: Callable[..., str], case: object) -> str:
    """What is wrong with how an input ended; nothing if that was a result or one line."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("error")
            return check(case)
    except LabError as error:
        return "" if str(error).strip() else "an error without a word"
    except Exception as error:  # whatever it is, it is a finding
        frames, trace = [], error.__traceback__
        while trace:
            frames.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
            trace = trace.tb_next
        return f"{type(error).__name__}: {str(error)[:80]} at {' '.join(frames[-3:])}"


def faults(kind: str, n: int) -> Counter[str]:
    """What went wrong in n inputs of a kind, and how often."""
    strategy, check = KINDS[kind]
    found: Counter[str] = Counter()

    @seed(0)
    @settings(
        max_examples=n,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(case: object) -> None:
        said = fault(check, case)
        found[said] += bool(said)

    one()
    return +found


def rows(n: int = 10_000) -> list[Row]:
    """The row of all kinds together."""
    found = {kind: faults(kind, n // len(KINDS)) for kind in KINDS}
    first = "; ".join(f"{kind}: {said}" for kind, those in found.items() for said in list(those)[:2])
    how = f"{n} inputs made up by hypothesis, as many of {', '.join(KINDS)}" + f"; {first}" * bool(first)
    return [("hostile.inputs", sum(those.total() for those in found.values()), "faults", 0, "lower", how)]
