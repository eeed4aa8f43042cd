"""Four ways to say Swahili in numbers: `python -m bench.ways KOKORO`, from tests/, makes notebook 01's table.

Flat and lively are espeak-ng, natural is Kokoro, whose weights lie in the folder (or at the hub id) KOKORO,
human are dev recordings of the preset `human`. Melody is the spread of F0; H_p is counted at equal token
counts, of the tokenizer of `human`, which has heard people and espeak-ng, but never Kokoro.
"""

import sys

import torch

from slmlab import files, metrics
from slmlab.corpus.engines import engine_of, speak
from slmlab.corpus.prosody import of_kind
from slmlab.corpus.voices import voice_pool
from slmlab.language.sentences import sentences
from slmlab.sound import audio, features
from slmlab.speech import score
from slmlab.speech.chain import open_chain
from slmlab.training import checkpoints, shelf

N = 30
EXAMPLE = "Rehema anataka kununua samaki wawili sokoni?"
FOLDER = files.ROOT / "data" / "languages" / "sw"


def main(place: str) -> None:
    """Write the table, and one natural sentence to hear."""
    chain, engine, voices = open_chain("human"), f"kokoro:{place}", voice_pool("dev", 10)
    texts = sentences("sw", "dev", N, seed=1)

    def said(kind: str, engine: str = "espeak-ng") -> list[torch.Tensor]:
        each = enumerate(texts)
        return [
            torch.as_tensor(speak(text, "sw", voices[i % 10], of_kind(kind), i, engine)) for i, text in each
        ]

    corpus = score.held_out(shelf.make("human", "corpus.held_out"), "dev", "sw")
    person = [torch.as_tensor(corpus.wave(i)) for i in range(min(N, len(corpus)))]
    ways = {
        "flat": said("synthetic"),
        "lively": said("lively"),
        "natural": said("synthetic", engine),
        "human": person,
    }
    entropies = metrics.matched_entropies([[chain.encode(wave) for wave in waves] for waves in ways.values()])
    spreads = {
        kind: [round(metrics.f0_spread(features.f0(wave.numpy())), 3) for wave in waves]
        for kind, waves in ways.items()
    }
    table = {
        "made": "tests/bench/ways.py: 30 sentences each, seeds 0 to 29; human: recordings of joshua (MIT)",
        "tokenizer": checkpoints.load(chain.place("tokenizer"), type(chain.tokenizer))[1].sha256,
        "natural": engine_of(engine).name,
        "spread": spreads,
        "entropy": {kind: round(bits, 3) for kind, bits in zip(ways, entropies, strict=True)},
    }
    files.write_json(FOLDER / "ways.json", table)
    example = speak(EXAMPLE, "sw", voices[3], of_kind("synthetic"), 199, engine)
    audio.write(FOLDER / "natural.flac", example)


if __name__ == "__main__":
    main(sys.argv[1])
