"""A voice given away: a chain as one folder that others load with one line, from a disk or from a hub.

The folder holds checkpoints (safetensors), JSON and a page of text, nothing that runs. `parts.json` pins each
checkpoint by the sha256 that its own card has, and every load looks whether the tensors are those.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from slmlab import __version__, files
from slmlab.errors import LabError, import_extra
from slmlab.speech.chain import Chain
from slmlab.training import checkpoints
from slmlab.training.checkpoints import SUFFIX
from slmlab.training.shelf import VOICES

PARTS = "parts.json"
SPEAKS = ("tokenizer", "decoder", "vocoder", "speaker")
"""What every chain needs to speak, beside a language model."""
JUDGES = ("judge_a", "judge_b", "judge_c")
KEPT = (f"*{SUFFIX}", "*.json", "README.md")


def save_pretrained(chain: Chain, folder: Path, languages: Sequence[str], figures: str = "") -> None:
    """Write what of a chain speaks and judges some languages to a new folder, with a page about it.

    `figures` is what was measured, in Markdown, for that page. LabError: the folder holds something already,
    or a language has no model.
    """
    files.need_empty(folder)
    for language in languages:
        chain.lm(language)
    names = [*SPEAKS, *(f"lm.{language}" for language in languages)]
    for judge in JUDGES:
        taught = [f"{judge}.{language}" for language in languages]
        names += [name for name in (judge, *taught) if chain.place(name).with_name(name + SUFFIX).exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        place = chain.place(name)
        for ending in (SUFFIX, ".json"):
            shutil.copyfile(
                place.with_name(place.name.removesuffix(SUFFIX) + ending), folder / (name + ending)
            )
    voices = {name: voice.tolist() for name, voice in chain.voices.items()}
    files.write_json(folder / VOICES, voices)
    parts = {name: checkpoints.read_header(folder / (name + SUFFIX))["sha256"] for name in names}
    files.write_json(folder / PARTS, {"version": __version__, "languages": list(languages), "parts": parts})
    files.replace_text(folder / "README.md", page(folder, languages, figures))


def from_pretrained(place: str | Path, revision: str = "") -> Chain:
    """The chain of a folder that `save_pretrained` wrote, or of a hub id `OWNER/NAME` at a revision.

    LabError: it is none, lacks a part, or holds another part than `parts.json` says.
    """
    folder = files.weights(str(place), KEPT, revision)
    if not (folder / PARTS).is_file():
        raise LabError(f"{place} holds no voice of slmlab ({PARTS} is missing): give another place.")
    parts = files.read_json(folder / PARTS)
    try:
        pinned = dict(parts["parts"])
    except (KeyError, TypeError, ValueError):
        raise LabError(f"{folder / PARTS} lists no parts: take the folder anew from where it came.") from None
    for name, sha256 in pinned.items():
        if (found := checkpoints.read_header(folder / (name + SUFFIX))["sha256"]) != sha256:
            raise LabError(
                f"{folder / name}{SUFFIX} is another network than {PARTS} says (sha256 {found[:8]}…, "
                f"expected {str(sha256)[:8]}…): take the folder anew from where it came."
            )
    return Chain(folder)


def push_to_hub(folder: Path, repository: str, private: bool = True) -> str:
    """Put a saved folder on the Hugging Face hub, as whoever is logged in there; the address of the commit.

    LabError: it is no saved folder, or the hub does not take it.
    """
    from_pretrained(folder)
    hub = import_extra("huggingface_hub", "the hub").HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        return str(hub.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=list(KEPT)))
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise LabError(
            f"the hub did not take {repository} ({reason}): log in with `hf auth login`."
        ) from error


def page(folder: Path, languages: Sequence[str], figures: str = "") -> str:
    """What people should know of a saved folder, as its README: what it is, learnt from, and is not for."""
    cards = checkpoints.list_checkpoints(folder)
    rows = [
        f"| `{name}` | {card.parameters / 1e6:.1f} M | {card.seconds / 60:.0f} | {card.licence} |"
        for name, card in cards.items()
    ]
    return "\n".join(
        [
            "---",
            "library_name: slmlab",
            "pipeline_tag: text-to-speech",
            f"language: [{', '.join(languages)}]",
            "---",
            "",
            f"# A voice of slmlab: {', '.join(languages)}",
            "",
            "```python",
            "from slmlab.speech.sharing import from_pretrained",
            f'chain = from_pretrained("{folder.name}")  # this folder, or its hub id',
            f'voice = chain.named_timbre(chain.usual_voice("{languages[0]}"))[None]',
            f'(said,) = chain.say(["…"], "{languages[0]}", voice)  # said.wave: 16 kHz',
            "```",
            "",
            "| part | parameters | minutes of training | licence, and what it learnt from |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            *([figures, ""] if figures else ["Nothing was measured of it yet.", ""]),
            "It is a small model for learning and experiments. What it says is marked as generated. Do not "
            "pass its speech off as a person's, nor let it speak in a voice whose owner has not agreed.",
            "",
        ]
    )
