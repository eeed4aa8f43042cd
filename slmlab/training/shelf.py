"""The checkpoints at hand: made here, shipped, or trained now; and what a chain was taught later.

They are asked for in this order: the stage `all` in the cache, by the code as it is; what is shipped in
`data/checkpoints/<preset>`; and training on the spot.
"""

import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from slmlab import files
from slmlab.corpus import manifest, sources
from slmlab.corpus.build import MANIFEST
from slmlab.corpus.groups import READ, with_recordings
from slmlab.corpus.imports import ImportSpec, Share
from slmlab.corpus.utterances import Utterances
from slmlab.errors import LabError
from slmlab.language import languages
from slmlab.models.decoder import FlowDecoder
from slmlab.models.judges import AttentiveJudge, ConvolutionalJudge, EncodedJudge
from slmlab.models.lm import SpeechLM
from slmlab.models.speaker import SpeakerEncoder
from slmlab.models.tokenizer import SpeechTokenizer
from slmlab.models.vocoder import Vocoder
from slmlab.training import checkpoints, recipes
from slmlab.training.cache import DONE, Stage, missing, read_done, run_stages, stage_folders, with_needs
from slmlab.training.loop import pick_device
from slmlab.training.presets import Preset, preset

VOICE_NAMES = ("deep", "low", "mid", "clear", "high", "bright")
VOICES = "voices.json"  # shipped last: where it is, all checkpoints are
ON_GPU = ("base", "paper")
"""Presets whose training asks for a GPU."""
DISK = {"base": 40.0, "paper": 40.0}
"""GiB that corpora and networks of a preset take at most, where it is more than 2."""
RUN_TAKES = {"smoke": "a few minutes", "tiny": "7 to 9 minutes on two quiet cores"}
"""How long `slmlab run` takes with networks at hand, where it was measured."""
KINDS: dict[str, type[nn.Module]] = {
    "tokenizer": SpeechTokenizer,
    "decoder": FlowDecoder,
    "vocoder": Vocoder,
    "speaker": SpeakerEncoder,
    "judge_a": AttentiveJudge,
    "judge_b": ConvolutionalJudge,
    "judge_c": EncodedJudge,
    "lm": SpeechLM,
}
"""What kind of network a checkpoint holds, by its name up to the dot: `lm.vi` holds an `lm`."""


def _stages(preset_name: str, shares: Sequence[Share] = ()) -> dict[str, Stage]:
    """The stages of a preset by name; the last, `all`, puts every network into one folder."""
    chain = preset(preset_name)
    stages = recipes.stages(replace(chain, corpora=with_recordings(chain.corpora, shares)))
    return {stage.name: stage for stage in (*stages, Stage("all", tuple(s.name for s in stages), _gather))}


def _gather(folder: Path, inputs: dict[str, Path]) -> None:
    """Stage: every network in one folder, stored small, with a card each, and named voices.

    Of people, readers of public sources alone are named, by code: nobody else's voice is passed on.
    """
    timbre, speech = recipes.timbre_of(inputs), Utterances(inputs["corpus.parts"])
    places = {source: i for i, source in enumerate(speech.column("source"))}
    readers = {name: places[f"parts-{name}"] for name in READ if f"parts-{name}" in places}
    heard = map(sources.find, readers)
    people = "".join(f", and on {source.home} ({source.licence}, {source.copyright})" for source in heard)
    for name, made in inputs.items():
        _keep_small(name, made, folder, checkpoints.LICENCE.replace("espeak-ng;", f"espeak-ng{people};"))
    means = torch.stack([timbre[speech.voices == voice].mean(0) for voice in range(speech.voices.max() + 1)])
    order = means[:, -1].argsort()
    ranks = np.linspace(0.1, 0.9, len(VOICE_NAMES)) * (len(order) - 1)
    named = {name: means[order[round(float(rank))]] for name, rank in zip(VOICE_NAMES, ranks, strict=True)}
    named |= {name: means[speech.voices[i]] for name, i in readers.items()}
    files.write_json(folder / VOICES, named)


def _keep_small(name: str, made: Path, target: Path, licence: str = "") -> None:
    """Store the network of a finished stage small, with the seconds that it took; a corpus is none.

    `licence` says what it learnt from, where that is not a synthesiser alone.
    """
    if not name.startswith("corpus."):
        model, card = checkpoints.load(made / "model", KINDS[name.partition(".")[0]])
        card = replace(card, seconds=read_done(made)["seconds"], licence=licence or card.licence)
        checkpoints.save(target / name, model, card, small=True)


def corpora(preset_name: str) -> None:
    """Speak every corpus of a preset that was not spoken yet."""
    known = _stages(preset_name)
    _run(preset_name, known.values(), [name for name in known if name.startswith("corpus.")])


def make(preset_name: str, stage: str = "all", fresh: bool = False, recordings: Sequence[Path] = ()) -> Path:
    """Train a stage and all it needs, on imported corpora as well; its folder; of `all`: of all networks.

    `fresh` trains anew, whatever the cache holds.
    """
    known = _stages(preset_name, shares_of(recordings))
    if stage not in known:
        raise LabError(
            f"there is no stage {stage!r}: choose one of {', '.join(known)}, or a language of "
            f"{languages.FOLDER}"
        )
    return _run(preset_name, known.values(), [stage], fresh)[stage]


def _run(
    preset_name: str, stages: Collection[Stage], wanted: Iterable[str], fresh: bool = False
) -> dict[str, Path]:
    """Make stages of a preset; before, what they need is checked, and how long they take is said."""
    chain, cache, stages = preset(preset_name), files.CACHE / preset_name, with_needs(stages, wanted)
    if waiting := [stage.name for stage in missing(stages, cache, fresh)]:
        if lacks := _lacks(chain, waiting):
            raise LabError(f"preset {chain.name!r} cannot be made here: it needs {'; '.join(lacks)}.")
        seconds = _expected_seconds(preset_name, waiting)
        if seconds > 60:
            print(f"about {seconds / 60:.0f} minutes on two quiet cores", flush=True)
    return run_stages(stages, cache, fresh=fresh)


def _lacks(chain: Preset, waiting: Sequence[str]) -> list[str]:
    """What stages of a preset need, by their names, and this machine has not."""
    groups = [name.removeprefix("corpus.") for name in waiting if name.startswith("corpus.")]
    folders = dict.fromkeys(
        (Path(spec.folder), spec.form)
        for group in groups
        for spec in chain.corpora.get(group, ())
        if isinstance(spec, ImportSpec)
    )
    fetched = [f.name for f, form in folders if form == "source" and not sources.find(f.name).is_complete]
    gone = [f for f, form in folders if form != "source" and not (f / "validated.tsv").exists()]
    disk = DISK.get(chain.name, 2.0)
    free = shutil.disk_usage(files.nearest(files.HOME)).free / 2**30
    needs = {
        "a GPU, and there is none": chain.name in ON_GPU
        and len(groups) < len(waiting)
        and pick_device().type == "cpu",
        f"people's recordings ({', '.join(f'`slmlab fetch {name}`' for name in fetched)})": fetched,
        f"Common Voice folders, with validated.tsv and clips/, at {', '.join(map(str, gone))}": gone,
        f"{disk:g} GiB of disk, of which {free:.1f} are free": free < disk,
    }
    return [what for what, lacking in needs.items() if lacking]


def _expected_seconds(preset_name: str, waiting: Iterable[str]) -> float:
    """Seconds that stages take, two at a time, by what the shipped networks of their names and kinds took."""
    shipped = checkpoints.list_checkpoints(files.SHIPPED / preset_name).items()
    took = {part: card.seconds for name, card in shipped for part in (name.partition(".")[0], name)}
    return sum(took.get(name, took.get(name.partition(".")[0], 0.0)) for name in waiting) / 2


def adopt(
    preset_name: str, language: str, recordings: Sequence[Path] = (), only: str = "", fresh: bool = False
) -> Path:
    """Teach the chain at hand one more language of `data/languages`; the folder of what was adopted.

    Its imported corpora are heard as well; `only` is one of lm, judge_a, judge_b; `fresh` trains anew.
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
    stages = recipes.adoption(preset(preset_name), checkpoint_folder(preset_name), language, shares)
    networks = [stage.name for stage in stages if stage.inputs and stage.name.startswith(only)]
    if not networks:
        raise LabError(f"{only} is taught no language by itself: lm, judge_a and judge_b are.")
    return _teach(preset_name, stages, networks, fresh, adopted_folder(preset_name))


def teach_judge_c(preset_name: str, whisper: str = "", ship: bool = False, fresh: bool = False) -> Path:
    """Train the judge who hears by Whisper's encoder (its weights: a folder or a hub id); where it lies.

    It is kept with what the chain at hand was taught later, or beside the checkpoints that are shipped.
    """
    stages = [*_stages(preset_name).values(), recipes.listening(preset(preset_name), whisper)]
    target = files.SHIPPED / preset_name if ship else adopted_folder(preset_name)
    return _teach(preset_name, stages, ["judge_c"], fresh, target)


def _teach(
    preset_name: str, stages: Collection[Stage], networks: Iterable[str], fresh: bool, target: Path
) -> Path:
    """Make networks, and keep them in the folder `target`."""
    for name, made in _run(preset_name, stages, networks, fresh).items():
        _keep_small(name, made, target)
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


def check_shippable(preset_name: str, recordings: Sequence[Path] = ()) -> None:
    """LabError if networks of a preset hear, there or in imported corpora, what may not be passed on."""
    groups = preset(preset_name).corpora
    heard = [spec for group, specs in groups.items() if group != "held_out" for spec in specs]
    names = {Path(s.folder).name for s in heard if isinstance(s, ImportSpec) and s.form == "source"}
    for share in shares_of(recordings):
        names.update(sources.in_manifest(manifest.read(Path(share.folder) / MANIFEST)))
    for name in sorted(names):
        sources.shippable(name)


def ship(made: Path, preset_name: str) -> Path:
    """Copy checkpoints to where a preset's are shipped from; a copy that was cut off does not count."""
    target = files.SHIPPED / preset_name
    (target / VOICES).unlink(missing_ok=True)
    shutil.copytree(made, target, ignore=shutil.ignore_patterns(VOICES, DONE), dirs_exist_ok=True)
    shutil.copy(made / VOICES, target)
    return target


def at_hand(preset_name: str) -> Path | None:
    """Where the checkpoints of a preset lie: made here by the code as it is, or shipped; None: nowhere."""
    cache, shipped = files.CACHE / preset_name, files.SHIPPED / preset_name
    if any(cache.glob(f"all-*/{DONE}")):  # else nothing was made: to learn the keys takes seconds
        here = stage_folders(_stages(preset_name).values(), cache)["all"]
        if (here / DONE).exists():
            return here
    return shipped if (shipped / VOICES).exists() else None


def checkpoint_folder(preset_name: str = "tiny") -> Path:
    """Where the checkpoints of a preset lie: made here, shipped, or trained now."""
    return at_hand(preset_name) or make(preset_name)
