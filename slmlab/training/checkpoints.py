"""What was learned, on disk: `name.safetensors` holds weights and card, `name.json` is the card for people.

The card inside the weights' file is the one that counts: a file is replaced whole or not at all, two files
are not. No pickle: a checkpoint is numbers and JSON, and opening one runs nothing.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from slmlab import __version__
from slmlab.errors import LabError
from slmlab.files import digest, from_plain, plain, whole, write_json

M = TypeVar("M", bound=nn.Module)
SUFFIX = ".safetensors"
SCALE = ".scale"
RECOVER = "delete it and train again, or take it from where it came"
LICENCE = "Apache-2.0; trained on synthetic speech of espeak-ng; not for passing off as a person's voice"


@dataclass(frozen=True)
class Card:
    """What a checkpoint says of itself; `save` fills the last five fields."""

    config: Any
    """The model's frozen config dataclass; after loading, the same as plain JSON values."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What other rooms need to know: alphabet, languages, voices, seed, what it was trained on."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Figures measured on dev, by name; empty where none were."""
    seconds: float = 0.0
    """Time that its training took."""
    licence: str = LICENCE
    """Under what terms the weights may be used, and what they were made from."""
    kind: str = ""
    """Class of the model."""
    parameters: int = 0
    """Numbers it holds."""
    precision: str = ""
    """What floats are stored as."""
    version: str = ""
    """Version of this package that wrote it."""
    sha256: str = ""
    """Digest of the tensors and of the rest of this card; checked on loading."""


def save(path: str | Path, model: nn.Module, card: Card, small: bool = False) -> Card:
    """Write `path.safetensors` and `path.json`, each whole or not at all; return the card as written.

    Tied weights are stored once. `small` stores learnt matrices as int8 with a scale for each row, other
    learnt numbers as float16, about a quarter of the size; they load as float32. Buffers stay as they are.
    """
    tensors = weights(model)
    stored = _shrink(tensors, {name for name, _ in model.named_parameters()}) if small else tensors
    for name, tensor in [*tensors.items(), *stored.items()]:
        if not bool(torch.isfinite(tensor).all()):
            raise LabError(
                f"{path} was not written: {name} of the model is not finite; train again at a lower rate."
            )
    card = dataclasses.replace(
        card,
        config=plain(card.config),
        kind=type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters()),
        precision="int8 and float16" if small else "float32",
        version=__version__,
    )
    card = Card(**write(_file(path), stored, plain(card)))
    write_json(_file(path).with_suffix(".json"), card)
    return card


def load(path: str | Path, model_class: type[M]) -> tuple[M, Card]:
    """Build a model from its checkpoint, in float32, on the CPU, ready for inference.

    The class is called with its config alone. LabError: it is missing, damaged, of another kind or version.
    """
    file = _file(path)
    tensors, written = read(file)
    card = _card(file, written)
    if card.kind != model_class.__name__:
        raise LabError(
            f"{file} holds a {card.kind}, not the expected {model_class.__name__}; give another path."
        )
    config_class = get_type_hints(model_class.__init__)["config"]
    model = model_class(from_plain(config_class, card.config, str(file)))
    put(model, _grow(tensors), file)
    return model.eval(), card


def list_checkpoints(folder: str | Path) -> dict[str, Card]:
    """Every checkpoint of a folder by name, in order of names; weights are not read."""
    headers = {file: read_header(file) for file in sorted(Path(folder).glob("[!.]*" + SUFFIX))}
    return {
        file.name.removesuffix(SUFFIX): _card(file, card) for file, card in headers.items() if "kind" in card
    }


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A model's parameters and buffers by name, each once: what is tied goes by its first name."""
    own: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        own.setdefault(id(tensor), (name, tensor.detach()))
    return dict(own.values())


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """The shape of each tensor."""
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def _shrink(tensors: Mapping[str, Tensor], learnt: set[str]) -> dict[str, Tensor]:
    """Learnt matrices `(o d)` as int8 with a float16 scale `(o 1)`, a row's largest number 127; other learnt
    numbers as float16; what is not learnt as it is.
    """
    small = {}
    for name, tensor in tensors.items():
        if name in learnt and tensor.ndim == 2:
            scale = (tensor.abs().amax(1, keepdim=True) / 127).clamp_min(2.0**-24).half()
            small[name + SCALE] = scale
            small[name] = (tensor / scale.float()).round().clamp(-127, 127).to(torch.int8)
        else:
            small[name] = tensor.half() if name in learnt else tensor
    return small


def _grow(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `_shrink`, up to rounding."""
    return {
        name: tensor * tensors[name + SCALE].float() if name + SCALE in tensors else tensor
        for name, tensor in tensors.items()
        if not name.endswith(SCALE)
    }


@torch.no_grad()
def put(model: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Copy tensors into a model in place; names and shapes must be the model's own."""
    own = weights(model)
    if unlike := differences(shapes(tensors), shapes(own)):
        raise LabError(
            f"{source} does not fit a {type(model).__name__} ({unlike}); use the config it was trained with."
        )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def write(file: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> dict[str, Any]:
    """Write tensors and a card of JSON values as one file, whole or not at all; return the written card."""
    card = {**card, "sha256": digest_of(tensors, card)}
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole(file) as part:
        save_file(ready, part, metadata={"card": json.dumps(card, ensure_ascii=False)})
    return card


def read_header(file: Path) -> dict[str, Any]:
    """The card inside a file of tensors, without its tensors."""
    with _open(file) as (_, card):
        return card


def read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and card of a file, if both are what was written."""
    with _open(file) as (source, card):
        tensors = {name: source.get_tensor(name).clone() for name in source.keys()}  # noqa: SIM118
    if card.get("sha256") != digest_of(tensors, card):
        raise LabError(f"{file} is damaged (its digest is not the one it was written with); {RECOVER}.")
    return tensors, card


@contextmanager
def _open(file: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """An open file of tensors with its card; every way of being unreadable is one sentence."""
    if not file.is_file():
        near = ", ".join(sorted(path.name.removesuffix(SUFFIX) for path in file.parent.glob("*" + SUFFIX)))
        raise LabError(
            f"There is no checkpoint {file} (in that folder: {near or 'none'}); train it first or give "
            "another path."
        )
    try:
        with safe_open(file, framework="pt") as tensors:
            card = json.loads((tensors.metadata() or {})["card"])
            if not isinstance(card, dict):
                raise KeyError("card")
            yield tensors, card
    except KeyError as error:
        raise LabError(
            f"{file} carries no card: another program wrote it; give a checkpoint of slmlab."
        ) from error
    except (SafetensorError, OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LabError(f"{file} is damaged or half-written ({error}); {RECOVER}.") from error


def _file(path: str | Path) -> Path:
    """`folder/name` or `folder/name.safetensors` → the latter; a dot in a name is no suffix."""
    path = Path(path)
    return path if path.name.endswith(SUFFIX) else path.with_name(path.name + SUFFIX)


def _card(file: Path, written: dict[str, Any]) -> Card:
    if unlike := set(written) ^ {f.name for f in dataclasses.fields(Card)}:
        raise LabError(
            f"{file} has a card of another version ({', '.join(sorted(unlike))} differ); {RECOVER}."
        )
    return Card(**written)


def digest_of(tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> str:
    """sha256 over a card without its own digest, and over every tensor's name, type, shape and bytes."""
    total = hashlib.sha256(digest({name: item for name, item in card.items() if name != "sha256"}).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def differences(found: Any, expected: Any, name: str = "") -> str:
    """What differs between plain values, as `name: found 3, expected 4; …`, at most four; empty if none."""
    return "; ".join(list(_differences(found, expected, name))[:4])


def _differences(found: Any, expected: Any, name: str) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            yield from _differences(found.get(key), expected.get(key), f"{name}.{key}".lstrip("."))
    elif found != expected:
        yield f"{name}: found {json.dumps(found)}, expected {json.dumps(expected)}"
