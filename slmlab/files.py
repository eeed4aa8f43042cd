"""Files that are written whole or not at all, and the folders that they lie in."""

import dataclasses
import hashlib
import json
import math
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from torch import Tensor

from slmlab import places
from slmlab.errors import LabError, import_extra

C = TypeVar("C")
ROOT, DATA, HOME = places.ROOT, places.DATA, places.HOME
RUNS = HOME / "runs"
CACHE = HOME / "cache"
SHIPPED = DATA / "checkpoints"
RECORDINGS = HOME / "data" / "recordings"


def need_checkout(what: str) -> None:
    """Raise a LabError where the lab was installed without its checkout, in which `what` has its place."""
    if not places.IS_CHECKOUT:
        raise LabError(
            f"{what} in a clone of the lab's repository, and here is an installed package: clone it, run "
            "`pip install --editable .` there, and give this command again."
        )


def replace_text(file: Path, text: str) -> None:
    """Write a small UTF-8 file, whole or not at all; what `read_text` found broken comes back as it was."""
    with whole(file) as part:
        part.write_text(text, encoding="utf-8", errors="surrogateescape")


def read_json(file: Path) -> Any:
    """The value in a JSON file that the lab wrote, or one sentence."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LabError(f"There is no {file}; make it first or give another path.") from None
    except (OSError, ValueError) as error:
        raise LabError(
            f"{file} is damaged or half-written ({error}); delete it and make it again."
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON for people to read, whole or not at all; infinite or NaN becomes null."""
    content = json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False)
    replace_text(path, content + "\n")


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """Where to write what becomes `file` when the block ends; if anything fails, nothing of it is left."""
    part = file.with_name(file.name + ".part")
    with writing(file):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            yield part
            _sync(part)  # on the disk before it takes the place of `file`, in one move
            os.replace(part, file)
            if os.name == "posix":
                _sync(file.parent)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Turn a failure to write `file` into one sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise LabError(
            f"{file} could not be written ({error}); what was there before is intact. Free some space or "
            "choose another folder, and run the same command again: it goes on from there."
        ) from error


def _sync(path: Path) -> None:
    """Make sure that a file or folder is on the disk as it is."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def digest(value: Any) -> str:
    """sha256 of a value's JSON: equal configs have equal digests, in any process and on any machine."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()


def sha256_of(file: Path) -> str:
    """Hash of a file's bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def weights(place: str, patterns: Sequence[str], revision: str = "") -> Path:
    """Somebody's published weights: a file or folder here, or a hub id `OWNER/NAME`, fetched once.

    Of a hub's repository, as of a revision if one is given, only files that match `patterns` are taken.
    """
    if Path(place).exists():
        return Path(place)
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", place):
        raise LabError(f"{place} does not exist: give a folder of weights, or a hub id OWNER/NAME.")
    hub = import_extra("huggingface_hub", f"{place} is no folder here, and a hub id")
    try:
        return Path(hub.snapshot_download(place, revision=revision or None, allow_patterns=[*patterns]))
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise LabError(
            f"{place} is no folder here and the hub did not give it ({reason}): go online, or give a folder."
        ) from error


def need_empty(folder: Path) -> None:
    """LabError where a folder holds something: what is written there must be alone."""
    if folder.exists() and any(folder.iterdir()):
        raise LabError(f"{folder} holds something already: give another folder.")


def nearest(path: Path) -> Path:
    """A path itself, or the nearest of its parents that exists: on its disk the path would lie."""
    return next(place for place in (path, *path.parents) if place.exists())


def fraction(text: str) -> float:
    """A number in [0, 1) that depends on the text alone, on every machine: shares are drawn by it."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48


def plain(value: Any) -> Any:
    """A config, card or metric as JSON values: dataclass → object, tuple → list, infinite or NaN → null.

    Fields that came later, as their metadata says, are left out at their default: what was made before them
    keeps its digest.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {f.name: plain(item) for f, item in pairs if not ("later" in f.metadata and item == f.default)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, (Tensor, np.generic, np.ndarray)):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")


def from_plain(cls: type[C], values: Any, source: str, lenient: bool = False) -> C:
    """JSON values → a frozen dataclass: list → tuple, object → dataclass.

    Fields must match exactly, but for those that came later, as their metadata says; `lenient` gives all
    that are missing their default, where they have one.
    """
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise LabError(f"{source} holds {values!r} in place of the fields of {cls.__name__}; make it again.")
    given = set(values)
    spared = [
        f.name for f in fields if "later" in f.metadata or (lenient and f.default is not f.default_factory)
    ]
    names = {field.name for field in fields} - (set(spared) - given)
    if given != names:
        unlike = ", ".join(sorted(given ^ names))
        raise LabError(f"{source} has another config than {cls.__name__} ({unlike} differ); make it again.")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _typed(hints[name], item, source, lenient) for name, item in values.items()})


def _typed(hint: Any, value: Any, source: str, lenient: bool) -> Any:
    """One JSON value as its field's type; of a union, the first part that is not None."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in parts if part is not type(None))
        return None if value is None else _typed(hint, value, source, lenient)
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast("type[Any]", hint), value, source, lenient)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        parts = parts[:1] * len(value) if parts[-1:] == (...,) else parts
        return tuple(_typed(part, item, source, lenient) for part, item in zip(parts, value, strict=True))
    return value
