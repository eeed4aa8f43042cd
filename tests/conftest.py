"""What all tests share: one thread, so that two processes have a core each; the same examples on each run;
and a chain of random networks, for tests that need every part and no sense.
"""

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from matplotlib.figure import Figure
from matplotlib.text import Text

from slmlab import progress

progress.SILENCE = 1e6  # a busy machine is no reason for a line on stderr
torch.set_num_threads(1)

settings.register_profile("slmlab", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("slmlab")


def words_of(figure: Figure) -> str:
    """Everything written on a figure."""
    return " ".join(text.get_text() for text in figure.findobj(Text))


@pytest.fixture(scope="session")
def random_chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints as `train` leaves it, of small networks that have learnt nothing."""
    from slmlab import files
    from slmlab.corpus.groups import TARGETS
    from slmlab.models.decoder import DecoderConfig
    from slmlab.models.judges import AttentiveConfig, ConvolutionalConfig
    from slmlab.models.lm import LMConfig
    from slmlab.models.speaker import SpeakerConfig
    from slmlab.models.tokenizer import TokenizerConfig
    from slmlab.models.vocoder import VocoderConfig
    from slmlab.training import checkpoints
    from slmlab.training.checkpoints import Card
    from slmlab.training.presets import ALPHABET, LANGUAGES
    from slmlab.training.shelf import KINDS, VOICES

    lm = LMConfig(ALPHABET, languages=LANGUAGES, width=32, layers=1, heads=1, kv_heads=1, ffn=32)
    configs = {
        "tokenizer": TokenizerConfig(ALPHABET, timbre_width=9, width=32, layers=1, n_speakers=2),
        "decoder": DecoderConfig(timbre_width=9, width=32, layers=1),
        "vocoder": VocoderConfig(width=32, layers=1, pitch_width=16, pitch_layers=1),
        "speaker": SpeakerConfig(n_speakers=2, width=32, layers=1, width_out=8),
        "judge_a": AttentiveConfig(ALPHABET, width=32, blocks=1, heads=2),
        "judge_b": ConvolutionalConfig(ALPHABET, width=32, kernels=(5,)),
    } | {f"lm.{language}": lm for language in ("backbone", *TARGETS)}
    folder = tmp_path_factory.mktemp("random-chain")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, config in configs.items():
            model = KINDS[name.split(".")[0]](config)
            checkpoints.save(folder / name, model, Card(config=config), small=True)
    files.replace_text(folder / VOICES, '{"mid": [0, 0, 0, 0, 0, 0, 0, 0, 0]}\n')
    return folder


@pytest.fixture
def languages_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `data/languages` that is used in its place, to add languages to."""
    from slmlab.language import languages

    folder = tmp_path / "languages"
    shutil.copytree(languages.FOLDER, folder)
    monkeypatch.setattr(languages, "FOLDER", folder)
    return folder
