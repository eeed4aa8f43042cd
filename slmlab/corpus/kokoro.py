"""A second synthesiser, natural: Kokoro-82M speaks what espeak-ng has spelt in phonemes (IPA).

Kokoro (hexgrad, Apache-2.0; StyleTTS 2, Li et al. 2023) learnt English, Japanese, Chinese and five more
languages. It reads symbols, so it also says languages that it never heard, such as Swahili. It does not say
lexical tones: what it has no symbol for is left out.

Axis legend: s samples, n symbols, v voices, d style.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from slmlab import files
from slmlab.corpus.prosody import Plan
from slmlab.corpus.voices import Voice
from slmlab.errors import LabError, import_extra
from slmlab.sound.audio import Wave, resample

WEIGHTS = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
"""sha256 of kokoro-v1.0.int8.onnx, release model-files-v1.0 of github.com/thewh1teagle/kokoro-onnx."""
VOICES = ("*.npz", "voices*.bin")
"""Names of files of voices: NumPy archives, `(510 1 d)` each, one style for every number of symbols."""
SAMPLE_RATE = 24_000
SPEEDS = (0.5, 2.0)
"""Slowest and fastest pace: the network's own times this."""
TABLE = (
    '·;:,.!?··—…"()“” \u0303ʣʥʦʨᵝꭧAI·····O·Q·ST··W·Yᵊabcdef·hijklmnopqrstuvwxyzɑɐɒæ··βɔɕç·ɖðʤə·ɚɛɜ··'
    "ɟ·ɡ······ɥ·ɨɪʝ······ɯɰŋɳɲɴø·ɸθœ··ɹ·ɾɻ·ʁɽʂʃʈʧ·ʊʋ·ʌɣɤ·χʎ···ʒʔ·······ˈˌː···ʰ·ʲ····↓·→↗↘···ᵻ"
)
"""Kokoro's symbols by number (config.json of hexgrad/Kokoro-82M, Apache-2.0); `·` is none."""
SYMBOLS = {symbol: number for number, symbol in enumerate(TABLE) if symbol != "·"}
AFFRICATES = {"tʃ": "ʧ", "dʒ": "ʤ", "ts": "ʦ", "dz": "ʣ", "tɕ": "ʨ", "dʑ": "ʥ"}
RESPELT = AFFRICATES | {"ɗ": "d", "ɓ": "b", "g": "ɡ"}
"""What espeak-ng writes, and the nearest that Kokoro learnt."""
MARKS = re.compile(r"([;:,.!?—…]+)(?=\s|$)")
"""Punctuation that Kokoro hears; espeak-ng would swallow it."""


class Kokoro:
    """Kokoro-82M, int8, through onnxruntime, on one thread: equal arguments give equal bits on one machine.

    Of a plan it follows words, punctuation and pace: `Voice.rate` times the words' mean rate, 0.5 to 2. Of
    a voice it follows the id: Kokoro's voice of that name, else one drawn by the id, always the same. It
    does not follow a plan's pitch, loudness and pauses, a voice's register, tract and timbre, the width, or
    the seed: nothing is left to chance.
    """

    def __init__(self, place: str, spell: Callable[[str, str, Voice], str]) -> None:
        """From a folder, the weights' file in it, or a hub id; `spell(text, language, voice)` gives IPA."""
        onnxruntime = import_extra("onnxruntime", "The natural synthesiser", "'slmlab[natural]'")
        given = files.weights(place, ("*int8*.onnx", *VOICES))
        folder = given if given.is_dir() else given.parent
        weights = sorted(folder.rglob("*.onnx")) if given.is_dir() else [given]
        voices = [path for name in VOICES for path in sorted(folder.rglob(name))]
        if not weights or not voices:
            lacking = "no weights (*.onnx)" if not weights else f"no voices ({' or '.join(VOICES)})"
            raise LabError(
                f"{folder} holds {lacking}: put kokoro-v1.0.int8.onnx and voices-v1.0.bin there, from "
                "release model-files-v1.0 of github.com/thewh1teagle/kokoro-onnx."
            )
        hashes = [files.sha256_of(path) for path in weights]
        if WEIGHTS not in hashes:
            raise LabError(
                f"{weights[0]} holds another model's weights (sha256 {hashes[0][:16]}…, "
                f"expected {WEIGHTS[:16]}…): get kokoro-v1.0.int8.onnx of release model-files-v1.0."
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = str(weights[hashes.index(WEIGHTS)])
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._styles = _styles(voices[0])
        self._spell = spell
        self.voices = sorted(self._styles)
        self.name = f"kokoro {WEIGHTS[:8]}, {len(self.voices)} voices {files.sha256_of(voices[0])[:8]}"

    def say(self, words: Plan, language: str, voice: Voice, width: float, seed: int) -> Wave:
        """See `Engine`; LabError also when the sentence has more symbols than a style table."""
        text = " ".join(word.text for word in words)
        symbols = self.symbols(text, language, voice)
        styles = self._styles[self.voice_of(voice)]
        if not any(symbol.isalpha() for symbol in symbols) or len(symbols) > len(styles):
            found = f"{len(symbols)} symbols, at most {len(styles)}"
            raise LabError(
                f"Kokoro cannot say '{text[:40]}' ({language}): {found}; write one sentence of words."
            )
        pace = float(np.clip(voice.rate * np.mean([word.rate for word in words]), *SPEEDS))
        (wave,) = self._session.run(
            None,
            {
                "tokens": np.array([[0, *(SYMBOLS[symbol] for symbol in symbols), 0]]),
                "style": styles[len(symbols) - 1],
                "speed": np.array([pace], np.float32),
            },
        )
        return resample(wave, SAMPLE_RATE)

    def symbols(self, text: str, language: str, voice: Voice) -> str:
        """A text in the symbols that Kokoro knows, punctuation kept."""
        pieces = MARKS.split(text)
        pieces[::2] = [self._spell(piece, language, voice) if piece.strip() else "" for piece in pieces[::2]]
        spelt = re.sub(r"([;:,.!?—…])(?=[^\s;:,.!?—…])", r"\1 ", "".join(pieces))
        for found, known in RESPELT.items():
            spelt = spelt.replace(found, known)
        return "".join(symbol for symbol in spelt if symbol in SYMBOLS)

    def voice_of(self, voice: Voice) -> str:
        """Name of the voice of Kokoro's that speaks for one of the lab's."""
        drawn = self.voices[int(files.fraction(voice.id) * len(self.voices))]
        return voice.id if voice.id in self.voices else drawn


def _styles(path: Path) -> dict[str, Wave]:
    """The styles (n 1 d) of each voice in an archive; LabError if it holds something else."""
    try:
        with np.load(path) as archive:
            styles = {name: archive[name].astype(np.float32) for name in archive.files}
    except (OSError, ValueError, AttributeError) as error:
        raise LabError(f"{path} holds no voices of Kokoro ({error}): get voices-v1.0.bin.") from error
    if not styles or any(style.shape[1:] != (1, 256) for style in styles.values()):
        shapes = {style.shape for style in styles.values()}
        raise LabError(
            f"{path} holds {shapes or 'nothing'}, expected (510, 1, 256) a voice: get voices-v1.0.bin."
        )
    return styles
