"""Which speech the groups of a preset hold; which network hears which group stands in `recipes.stages`."""

from collections.abc import Sequence
from dataclasses import replace

from slmlab import files
from slmlab.corpus.build import CorpusSpec
from slmlab.corpus.imports import ImportSpec, Share
from slmlab.corpus.voices import KOKORO
from slmlab.language import languages
from slmlab.language.sentences import count

TARGETS = ("vi", "sw")
"""Languages that learn to speak: Vietnamese has recordings (the paper's Thai), Swahili none (its Lao)."""
BACKBONE = ("es", "it", "id", "tr", "cmn")
"""Languages whose lively speech the backbone hears before."""
N_PARTS_VOICES = 120

TEST_SEED = 2  # sentences of seeds 0 and 1 were scored while this was built; choices are made on dev

SYNTHETIC_HOURS = 100
"""Hours of synthetic speech of a target language at `base`."""

HEARD_BY_ALL = ("parts", "judge_a", "judge_b")
"""Groups of networks that serve all languages."""
JUDGED = {"lively": 24, "authentic": 20, "synthetic": 8}
Table = tuple[tuple[str, tuple[str, ...], dict[str, int], str, int, str], ...]
"""Group, languages, minutes of each kind, pool and number of voices, and split."""
SPOKEN: Table = (
    ("parts", TARGETS, {"lively": 90, "authentic": 60, "synthetic": 20}, "parts", N_PARTS_VOICES, "parts"),
    ("parts", BACKBONE, {"lively": 15}, "parts", N_PARTS_VOICES, "lm"),
    ("judge_a", TARGETS, JUDGED, "judge_a", 30, "judge_a"),
    ("judge_b", TARGETS, JUDGED, "judge_b", 30, "judge_b"),
    ("backbone", BACKBONE, {"lively": 16}, "backbone", 40, "lm"),
    ("vi", ("vi",), {"authentic": 15}, "authentic", 30, "lm"),
    ("vi", ("vi",), {"synthetic": 90}, "synthetic", 2, "lm"),
    ("sw", ("sw",), {"synthetic": 100}, "synthetic", 2, "lm"),
)
"""What a synthesiser says at the tiny tier."""

READ = {"joshua": "sw", "habari": "sw", "yoruba": "yo"}
"""Sources of people's recordings that `human` hears, each of one reader, and their languages."""
READ_TO: dict[str, tuple[str, ...]] = {
    "parts": tuple(READ),
    "judge_a": ("joshua",),
    "judge_b": ("habari", "yoruba"),
    "backbone": tuple(READ),
    "sw": ("joshua",),
    "yo": ("yoruba",),
}
"""Which of them each group holds: the judges share no reader."""
SPOKEN_BESIDE: Table = (
    ("parts", ("sw",), {"lively": 60}, "parts", N_PARTS_VOICES, "parts"),
    ("judge_a", ("sw",), {"lively": 30}, "judge_a", 30, "judge_a"),
    ("judge_b", ("sw",), {"lively": 30}, "judge_b", 30, "judge_b"),
    ("backbone", ("sw",), {"lively": 40}, "backbone", 40, "lm"),
    ("sw", ("sw",), {"lively": 200}, "authentic", 30, "lm"),
)
"""What a synthesiser says beside the readers, as in `SPOKEN`."""
SPOKEN_NATURALLY: Table = (
    ("parts", ("sw",), {"synthetic": 12}, "kokoro", len(KOKORO), "parts"),
    ("backbone", ("sw",), {"synthetic": 8}, "kokoro", len(KOKORO), "lm"),
    ("sw", ("sw",), {"synthetic": 12}, "kokoro", len(KOKORO), "lm"),
)
"""What the natural synthesiser says beside both, where its weights are at hand."""

Supply = CorpusSpec | ImportSpec | Share
"""Where a corpus of a group comes from: a synthesiser, a folder of recordings, or a corpus that is there."""


def made_speech(network: str, language: str, most: int) -> list[CorpusSpec]:
    """What a synthesiser says for a network that adopts a language: its own sentences, its own voices.

    Up to `most` sentences are said, each once; nothing without a voice.
    """
    known = languages.find(language)
    if not known.voice:
        return []
    kind, voices = ("synthetic", 2) if network == "lm" else ("lively", 30)
    pool = "synthetic" if network == "lm" else network
    n = most if known.has_grammar else min(most, count(language, network))
    return (
        [CorpusSpec(f"{network}-{language}-{kind}", language, kind, pool, voices, network, n=n)] if n else []
    )


def with_recordings(
    corpora: dict[str, tuple[Supply, ...]], shares: Sequence[Share]
) -> dict[str, tuple[Supply, ...]]:
    """Groups with recordings of people added: a language's group its own, networks of all languages all."""
    return {
        group: (
            *sources,
            *(
                replace(share, keep_wave=group == "parts")
                for share in shares
                if group in HEARD_BY_ALL or group == share.language
            ),
        )
        for group, sources in corpora.items()
    }


def _spoken(
    group: str, language: str, kind: str, pool: str, voices: int, split: str, minutes: float
) -> CorpusSpec:
    name = f"{group if group in HEARD_BY_ALL else 'lm'}-{language}-{kind}"
    kept = group == "parts"  # the vocoder learns from samples
    engine = "kokoro" if pool == "kokoro" else "espeak-ng"
    return CorpusSpec(name, language, kind, pool, voices, split, minutes, keep_wave=kept, engine=engine)


def _held_out(n_test: int) -> tuple[CorpusSpec, ...]:
    """Recordings to choose on (dev) and to be scored on, by voices that nobody else hears."""
    fewer = max(8, n_test // 3)
    return tuple(
        CorpusSpec(
            f"{split}-{language}", language, "authentic", pool, voices, split, n=n, keep_wave=True, seed=seed
        )
        for language in TARGETS
        for split, pool, voices, n, seed in (
            ("dev", "dev", 10, fewer, 0),
            ("test", "test", 20, n_test, TEST_SEED),
            ("unseen", "test", 20, fewer, TEST_SEED),
        )
    )


def _synthesised(table: Table, scale: float = 1.0) -> dict[str, tuple[Supply, ...]]:
    """The groups of a table such as `SPOKEN`, with `scale` times its minutes."""
    groups: dict[str, tuple[Supply, ...]] = {}
    for group, spoken, minutes_of, pool, voices, split in table:
        groups[group] = groups.get(group, ()) + tuple(
            _spoken(group, language, kind, pool, voices, split, minutes * scale)
            for language in spoken
            for kind, minutes in minutes_of.items()
        )
    return groups


def corpora(scale: float, n_test: int) -> dict[str, tuple[Supply, ...]]:
    """The tiny tier's corpora, with `scale` times its minutes."""
    return _synthesised(SPOKEN, scale) | {"held_out": _held_out(n_test)}


def _read(source: str, name: str, split: str = "lm", keep_wave: bool = False) -> ImportSpec:
    """Recordings of a source, as `slmlab fetch` brings them: what their own split says."""
    folder = str(files.RECORDINGS / source)
    return ImportSpec(
        name, READ[source], "", keep_wave=keep_wave, folder=folder, form="source", splits=(split,)
    )


def read_aloud(natural: bool) -> dict[str, tuple[Supply, ...]]:
    """Corpora of `human`: what people read, and what a synthesiser, or two, say beside it.

    Scored are sittings that nobody heard, of the reader who speaks in each language; and of the other one.
    """
    spoken = _synthesised(SPOKEN_BESIDE + (SPOKEN_NATURALLY if natural else ()))
    groups = {
        group: (
            *(_read(source, f"{group}-{source}", keep_wave=group == "parts") for source in sources),
            *spoken.get(group, ()),
        )
        for group, sources in READ_TO.items()
    }
    scored = {"joshua": "sw", "yoruba": "yo", "habari": "habari"}
    held_out = (
        _read(source, f"{split}-{name}", split, keep_wave=True)
        for source, name in scored.items()
        for split in ("dev", "test")
    )
    return {**groups, "held_out": tuple(held_out)}


def _recorded(
    group: str, language: str, splits: tuple[str, ...] = ("lm",), thirds: tuple[int, ...] = (0, 1, 2)
) -> ImportSpec:
    """Recordings of a language: a Common Voice folder under `data/recordings`, named by its code."""
    consent, folder = "CC0, Common Voice; speakers are not to be identified", str(files.RECORDINGS / language)
    return ImportSpec(
        f"{group}-{language}",
        language,
        consent,
        keep_wave=group == "parts",
        folder=folder,
        splits=splits,
        thirds=thirds,
    )


def recordings(n_test: int) -> dict[str, tuple[Supply, ...]]:
    """Corpora of real speech: who hears what is divided by speakers, and by a hash of the sentences.

    Vietnamese is learnt from recordings and synthetic speech, Swahili from synthetic speech alone, as the
    paper's Thai and Lao are. The sentences of `unseen` are made speech here too.
    """
    synthetic = {
        language: _spoken("lm", language, "synthetic", "synthetic", 2, "lm", 60.0 * SYNTHETIC_HOURS)
        for language in TARGETS
    }
    groups: dict[str, tuple[Supply, ...]] = {
        group: tuple(_recorded(group, language, thirds=(third,)) for language in TARGETS)
        for third, group in enumerate(HEARD_BY_ALL)
    }
    return groups | {
        "backbone": tuple(
            _recorded("lm", language) for language in BACKBONE if language != "cmn"
        ),  # no pinyin
        "vi": (_recorded("lm", "vi"), synthetic["vi"]),
        "sw": (synthetic["sw"],),
        "held_out": (
            *(_recorded(split, language, (split,)) for language in TARGETS for split in ("dev", "test")),
            *(spec for spec in _held_out(n_test) if spec.split == "unseen"),
        ),
    }
