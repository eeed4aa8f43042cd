"""What the commands do: find or make the checkpoints, speak, measure, score, and look after the machine.

What was computed lies in three places, asked in this order: `runs/<preset>/checkpoints` (made here),
`data/checkpoints/<preset>` (shipped), and training on the spot.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from slmlab import files
from slmlab.corpus import utterances
from slmlab.corpus.build import MANIFEST
from slmlab.corpus.imports import Share
from slmlab.corpus.shares import with_recordings
from slmlab.errors import LabError
from slmlab.files import write_json
from slmlab.language import languages
from slmlab.models.decoder import DecoderConfig, FlowDecoder
from slmlab.models.judges import AttentiveConfig, AttentiveJudge, ConvolutionalConfig, ConvolutionalJudge
from slmlab.models.lm import LMConfig, SpeechLM
from slmlab.models.speaker import SpeakerConfig, SpeakerEncoder
from slmlab.models.tokenizer import SpeechTokenizer, TokenizerConfig
from slmlab.models.vocoder import Vocoder, VocoderConfig
from slmlab.training import checkpoints, recipes
from slmlab.training.cache import Stage, read_done, run_stages, stage_folders
from slmlab.training.checkpoints import Card
from slmlab.training.presets import preset

VOICE_NAMES = ("deep", "low", "mid", "clear", "high", "bright")
NETWORKS = (
    "tokenizer",
    "decoder",
    "vocoder",
    "speaker",
    "judge_a",
    "judge_b",
    "lm.backbone",
    "lm.vi",
    "lm.sw",
)
ORIGIN = "made_from.json"


def _stages(preset_name: str, shares: Sequence[Share] = ()) -> dict[str, Stage]:
    chain = preset(preset_name)
    chain = replace(chain, corpora=with_recordings(chain.corpora, shares))
    return {stage.name: stage for stage in recipes.stages(chain)}


def corpora(preset_name: str) -> dict[str, Path]:
    """Speak every corpus of a preset, or find what was spoken; their folders by stage name."""
    wanted = [stage for name, stage in _stages(preset_name).items() if name.startswith("corpus.")]
    return run_stages(wanted, files.CACHE / preset_name)


def make(preset_name: str, stage: str = "all", fresh: bool = False, recordings: Sequence[Path] = ()) -> Path:
    """Train a stage and all it needs, or everything; the folder of the stage, or of all checkpoints
    together.

    Args:
        preset_name: whose sizes and steps.
        stage: its name, or `all`.
        fresh: train anew, whatever the cache holds.
        recordings: imported corpora that the networks hear as well.
    """
    known = _stages(preset_name, shares_of(recordings))
    if stage != "all" and stage not in known:
        raise LabError(
            f"there is no stage {stage!r}: choose one of {', '.join(known)}, or all, or a language of "
            f"{languages.FOLDER}"
        )
    names = known.keys() if stage == "all" else _needs(known, stage)
    done = run_stages(
        [known[name] for name in known if name in names], files.CACHE / preset_name, fresh=fresh
    )
    if stage != "all":
        return done[stage]
    return gather(done, files.RUNS / preset_name / "checkpoints")


def adopt(
    preset_name: str, language: str, recordings: Sequence[Path] = (), only: str = "", fresh: bool = False
) -> Path:
    """Teach the chain at hand one more language; the folder of what was adopted.

    Args:
        preset_name: whose sizes and steps.
        language: any that has a folder under `data/languages`.
        recordings: imported corpora of it.
        only: one of lm, judge_a, judge_b; all unless given.
        fresh: train anew, whatever the cache holds.
    """
    shares = shares_of(recordings)
    if foreign := [share.folder for share in shares if share.language != language]:
        raise LabError(
            f"{', '.join(foreign)} is not in {language!r}: give recordings of that language alone."
        )
    if not shares and not languages.find(language).voice:
        raise LabError(
            f"Language {language!r} has neither a voice in {languages.FILE} nor recordings: give "
            "--recordings, a corpus that `slmlab import` made."
        )
    base, target = checkpoint_folder(preset_name), adopted_folder(preset_name)
    stages = recipes.adoption(preset(preset_name), base, language, shares)
    wanted = [stage for stage in stages if not only or only in (stage.name.split(".")[0], stage.name)]
    corpora = {name for stage in wanted for name in stage.inputs}
    wanted = [stage for stage in stages if stage in wanted or stage.name in corpora]
    done = run_stages(wanted, files.CACHE / preset_name, fresh=fresh)
    for name, folder in done.items():
        if not name.startswith("corpus."):
            model, card = checkpoints.load(folder / "model", *KINDS[name.split(".")[0]])
            kept = Card(model.config, card.facts, card.metrics, read_done(folder)["seconds"])
            checkpoints.save(target / name, model, kept, small=True)
    return target


def shares_of(recordings: Sequence[Path]) -> list[Share]:
    """The training part of imported corpora; LabError for a folder that is none."""
    for folder in recordings:
        if not (folder / MANIFEST).exists():
            raise LabError(f"{folder} is no corpus: make one of your recordings with `slmlab import`.")
    return [Share(str(folder.resolve())) for folder in recordings]


def adopted_folder(preset_name: str) -> Path:
    """Where the language models and judges lie that the chain of a preset was taught later."""
    return files.RUNS / preset_name / "adopted"


def _needs(known: dict[str, Stage], stage: str) -> set[str]:
    return {stage}.union(*(_needs(known, needed) for needed in known[stage].inputs))


def gather(done: dict[str, Path], folder: Path) -> Path:
    """Copy every network into one folder, stored small, with a card each and six named voices."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VOICES).unlink(missing_ok=True)
    for name in NETWORKS:
        made = done[name]
        model, card = checkpoints.load(made / "model", *KINDS[name.split(".")[0]])
        seconds = read_done(made)["seconds"]
        kept = Card(config=model.config, facts=card.facts, metrics=card.metrics, seconds=seconds)
        checkpoints.save(folder / name, model, kept, small=True)
    write_json(folder / ORIGIN, {name: path.name for name, path in done.items()})
    timbre = load_file(done["tokenizer"] / "timbre.safetensors")["timbre"]
    voices = utterances.Utterances(done["corpus.parts"]).voices
    means = torch.stack([timbre[voices == voice].mean(0) for voice in range(voices.max() + 1)])
    order = means[:, -1].argsort()
    places = np.linspace(0.1, 0.9, len(VOICE_NAMES)) * (len(order) - 1)
    write_json(
        folder / VOICES,
        {
            name: means[order[round(float(place))]].tolist()
            for name, place in zip(VOICE_NAMES, places, strict=True)
        },
    )
    return folder


def ship(preset_name: str) -> Path:
    """Copy what was trained here to where it is shipped from; a copy that was cut off does not count."""
    made, target = files.RUNS / preset_name / "checkpoints", files.SHIPPED / preset_name
    (target / VOICES).unlink(missing_ok=True)
    shutil.copytree(made, target, ignore=shutil.ignore_patterns(VOICES), dirs_exist_ok=True)
    shutil.copy(made / VOICES, target)
    return target


def checkpoint_folder(preset_name: str = "tiny") -> Path:
    """Where the checkpoints of a preset lie: made here by the code as it is, shipped, or trained now."""
    here, shipped = files.RUNS / preset_name / "checkpoints", files.SHIPPED / preset_name
    if (here / VOICES).exists() and (here / ORIGIN).exists():
        wanted = stage_folders(list(_stages(preset_name).values()), files.CACHE / preset_name)
        if files.read_json(here / ORIGIN) == {name: path.name for name, path in wanted.items()}:
            return here
    return shipped if (shipped / VOICES).exists() else make(preset_name)


def corpus_folder(preset_name: str, group: str) -> Path:
    """The folder of one group of corpora, spoken now if they are not there."""
    stage = _stages(preset_name)[f"corpus.{group}"]
    return run_stages([stage], files.CACHE / preset_name)[stage.name]


def held_out_folder(preset_name: str) -> Path:
    """The folder of the held-out recordings."""
    return corpus_folder(preset_name, "held_out")


VOICES = "voices.json"  # written last: where it is, all checkpoints are

KINDS: dict[str, tuple[type[nn.Module], type]] = {
    "tokenizer": (SpeechTokenizer, TokenizerConfig),
    "decoder": (FlowDecoder, DecoderConfig),
    "vocoder": (Vocoder, VocoderConfig),
    "speaker": (SpeakerEncoder, SpeakerConfig),
    "judge_a": (AttentiveJudge, AttentiveConfig),
    "judge_b": (ConvolutionalJudge, ConvolutionalConfig),
    "lm": (SpeechLM, LMConfig),
}
"""What kind of network a checkpoint holds, by its name up to the dot: `lm.vi` holds an `lm`."""
