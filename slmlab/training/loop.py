"""One training loop for every network: what differs between them is a loss and a way to draw batches.

Everything random at a step follows from the seed and the step alone. So weights, optimiser, running average
and the step's number are the whole state of a run, and a run killed anywhere and started again ends, on the
CPU, with the very bits of one that was not.

A run's folder has its state, `training.safetensors`, and a row for every step and validation, `log.jsonl`.
"""

import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from slmlab import files
from slmlab.errors import LabError
from slmlab.training import checkpoints
from slmlab.training.optim import optimisers

M = TypeVar("M", bound=nn.Module)
Loss = Callable[[M, Any], tuple[Tensor, Mapping[str, float | Tensor]]]
STATE = "training.safetensors"
LOG = "log.jsonl"
WATCH_EVERY = 10  # steps between looks at the losses: each look makes an accelerator wait
HABITS = ("save_every", "validate_every")  # settings that do not change what is learned
JITTER = 0.1  # utterances whose lengths differ by less than this share may meet in a batch


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast a network learns."""

    steps: int
    """Optimiser steps."""
    lr: float = 3e-3
    """Peak rate of AdamW."""
    muon_lr: float = 0.02
    """Peak rate of Muon, which has the hidden matrices; 0 gives those to AdamW too."""
    warmup: int = 20
    """Steps until the peak rate is reached."""
    decay: str = "linear"
    """What the rate does after warm-up: `linear` to 0, or `constant`."""
    weight_decay: float = 0.01
    """Share of a matrix taken off per step and unit of rate."""
    clip: float = 1.0
    """Largest norm of the whole gradient; 0 leaves it alone."""
    ema: float = 0.0
    """Share of the weights' running average kept at each step; the average is what is returned. 0: none."""
    seed: int = 0
    """Seed of everything drawn in the loop."""
    save_every: float = 30.0
    """Seconds between two savings of the state: what a kill may cost."""
    validate_every: int = 0
    """Steps between validations; there is always one at the end."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.ema < 1 or self.decay not in ("linear", "constant"):
            raise LabError(
                f"Training refuses steps={self.steps}, ema={self.ema}, decay={self.decay!r}: steps must be "
                "at least 1, ema at least 0 and below 1, decay linear or constant."
            )


def train(
    model: M,
    loss: Loss[M],
    batches: Callable[[int], Any],
    config: TrainConfig,
    folder: str | Path,
    validate: Callable[[M], Mapping[str, float]] | None = None,
) -> M:
    """Train a network, or go on where its folder stopped, or return at once what it finished.

    Args:
        model: the network; it is trained in place and stays on the machine's best device.
        loss: `(model, batch) → (scalar, figures to log)`; it may draw from torch's global generators.
        batches: step (0, 1, …) → batch, a pure function; tensors inside tuples, lists, dictionaries or
            dataclasses are moved to the device.
        config: how.
        folder: where state and log live; its name is the stage's name in messages.
        validate: model → figures by name; sees the average if there is one, in `eval`, without gradients.

    Returns:
        The model with its final weights (the running average, if asked for), in `eval`.

    Raises:
        LabError: a loss is not finite, the folder is another config's, its state is damaged, the disk full.
    """
    device = pick_device()
    run = _Run(model.to(device), config, Path(folder))
    bar = tqdm(
        total=config.steps, initial=run.step, desc=run.folder.name, unit="step", disable=None, mininterval=0.2
    )
    with bar, torch.random.fork_rng([device] if device.type == "cuda" else []):
        model.train()
        saved = time.monotonic()
        while run.step < config.steps:
            seed_everything(config.seed, run.step)
            started = time.perf_counter()
            batch = to_device(batches(run.step), device)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                value, figures = loss(model, batch)
            run.update(value, figures)
            run.seconds += time.perf_counter() - started
            last = run.step == config.steps
            if last or run.step % WATCH_EVERY == 0:
                bar.set_postfix_str(f"loss {run.flush():.3f}", refresh=False)
            if validate and (last or (config.validate_every and run.step % config.validate_every == 0)):
                run.validate(validate)
            if last or time.monotonic() - saved > config.save_every:
                run.save()
                saved = time.monotonic()
            bar.update()
    return run.finished()


class _Run:
    """The state of one training: model, optimisers, average, step, seconds, and rows not yet in the log."""

    def __init__(self, model: nn.Module, config: TrainConfig, folder: Path) -> None:
        self.model, self.config, self.folder = model, config, folder
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimisers = optimisers(model, config.lr, config.muon_lr, config.weight_decay)
        self.average = [p.detach().clone() for p in self.parameters] if config.ema else []
        self.step, self.seconds = 0, 0.0
        self.rows: list[dict[str, Any]] = []
        if (folder / STATE).exists():
            self._restore()
        else:
            with files.writing(folder / LOG):
                folder.mkdir(parents=True, exist_ok=True)
        self._trim_log()

    def update(self, loss: Tensor, figures: Mapping[str, float | Tensor]) -> None:
        """One step of all optimisers and of the average; what it saw waits for `flush`."""
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip or math.inf)
        rate = schedule(self.step, self.config)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if self.average:
            share = min(self.config.ema, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - share)
        self.step += 1
        row = {"step": self.step, "rate": rate, "loss": loss, **figures, "gradient": norm}
        self.rows.append({k: v.detach() if isinstance(v, Tensor) else v for k, v in row.items()})

    def flush(self) -> float:
        """Bring waiting rows into the log, return the last loss; stop if a loss or gradient is not finite."""
        rows = [{k: float(v) for k, v in row.items()} | {"step": row["step"]} for row in self.rows]
        self.rows = []
        for row in rows:
            if not math.isfinite(row["loss"] + row["gradient"]):
                raise LabError(
                    f"Training of {self.folder.name} stopped: at step {row['step']} the loss is "
                    f"{row['loss']} and its gradient {row['gradient']}; {self.folder} is intact. Look at "
                    f"that batch, or lower the rates lr={self.config.lr}, muon_lr={self.config.muon_lr}."
                )
        self._log(rows)
        return rows[-1]["loss"] if rows else math.nan

    def validate(self, measure: Callable[[Any], Mapping[str, float]]) -> None:
        """Measure what would be returned now, and log it; its time is not counted as training."""
        self._swap_average()
        with torch.no_grad():
            figures = measure(self.model.eval())
        self.model.train()
        self._swap_average()
        self._log([{"step": self.step, "validation": files.plain(figures)}])

    def save(self) -> None:
        """Write the state, whole or not at all; a finished run keeps no optimiser."""
        if self.rows:
            self.flush()
        state = {f"model/{name}": tensor for name, tensor in checkpoints.weights(self.model).items()}
        state |= {f"average/{i}": average for i, average in enumerate(self.average)}
        for i, optimiser in enumerate(self.optimisers if self.step < self.config.steps else ()):
            for j, moments in optimiser.state_dict()["state"].items():
                state |= {f"optimiser/{i}/{j}/{name}": moment for name, moment in moments.items()}
        card = {"step": self.step, "seconds": self.seconds, "config": _identity(self.model, self.config)}
        checkpoints.write(self.folder / STATE, state, card)

    def finished(self) -> Any:
        """The model as trained: the average takes the place of the weights."""
        self._swap_average()
        return self.model.eval()

    def _restore(self) -> None:
        file = self.folder / STATE
        tensors, card = checkpoints.read(file)
        if unlike := checkpoints.differences(card.get("config"), _identity(self.model, self.config)):
            raise LabError(
                f"{self.folder} holds a training with another config ({unlike}); use that config to go on, "
                "another folder to train this one, or delete it."
            )
        self.step, self.seconds = card["step"], card["seconds"]
        weights: dict[str, Tensor] = {}
        moments: list[dict[int, dict[str, Tensor]]] = [{} for _ in self.optimisers]
        for path, tensor in tensors.items():
            match path.split("/"):
                case "model", name:
                    weights[name] = tensor
                case "average", i:
                    self.average[int(i)].copy_(tensor)
                case "optimiser", i, j, name:
                    moments[int(i)].setdefault(int(j), {})[name] = tensor
        checkpoints.put(self.model, weights, file)
        for optimiser, state in zip(self.optimisers, moments, strict=True):
            optimiser.load_state_dict(optimiser.state_dict() | {"state": state})

    def _swap_average(self) -> None:
        """Exchange the weights and their running average, if there is one."""
        for i, average in enumerate(self.average):
            self.parameters[i].data, self.average[i] = average, self.parameters[i].data

    def _log(self, rows: Sequence[Mapping[str, Any]]) -> None:
        file = self.folder / LOG
        with files.writing(file), open(file, "a", encoding="utf-8") as log:
            log.writelines(json.dumps(dict(row) | {"seconds": round(self.seconds, 3)}) + "\n" for row in rows)

    def _trim_log(self) -> None:
        """Drop what was logged after the state was saved: those steps come again."""
        if (self.folder / LOG).exists():
            rows = [row for row in read_log(self.folder) if row["step"] <= self.step]
            files.replace_text(self.folder / LOG, "".join(json.dumps(row) + "\n" for row in rows))


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """Rows of a run's log; a last line cut off by a kill is left out.

    A step's row has `step`, `loss`, `rate` (share of the peak), `gradient` (norm before clipping), the loss's
    own figures and `seconds` of training so far; a validation's row has `step`, `validation` and `seconds`.
    """
    lines = (Path(folder) / LOG).read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def schedule(step: int, config: TrainConfig) -> float:
    """The rate at a step as a share of its peak: a line up in the warm-up, then the decay, to 0 at last."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    left = (config.steps - step) / max(1, config.steps - config.warmup)
    return left if config.decay == "linear" else 1.0


def frame_batches(lengths: Sequence[int], max_frames: int, seed: int) -> Callable[[int], list[int]]:
    """Step → places in `lengths`: which utterances meet, similar lengths together, as many as fit, endlessly.

    A padded batch, its size times its longest utterance, has at most `max_frames` frames (or tokens). Every
    epoch holds each utterance once and has the same number of batches, so that a step alone says which batch
    it is. Utterances are sorted by their length times a random factor of up to 1.1 and cut where a plan for
    the undisturbed lengths, with room for that factor, says: who meets whom changes, a batch's size does not.
    """
    frames = np.asarray(lengths, dtype=np.int64)
    if frames.size == 0 or frames.min() < 1 or frames.max() > max_frames:
        given = f"from {frames.min()} to {frames.max()}" if frames.size else "of no utterance at all"
        raise LabError(
            f"Batches of {max_frames} frames need lengths from 1 to {max_frames}, found lengths {given}."
        )
    descending = np.sort(frames)[::-1]
    cuts = [0]
    while cuts[-1] < len(frames):
        cuts.append(cuts[-1] + max(1, int(max_frames / ((1 + JITTER) * descending[cuts[-1]]))))

    @functools.lru_cache(maxsize=2)
    def epoch(number: int) -> list[list[int]]:
        draw = np.random.default_rng((seed, number))
        order = np.argsort(-frames * draw.uniform(1, 1 + JITTER, len(frames)), kind="stable")
        batches = [order[start:end].tolist() for start, end in pairwise(cuts)]
        return [batches[i] for i in draw.permutation(len(batches))]

    return lambda step: list(epoch(step // (len(cuts) - 1))[step % (len(cuts) - 1)])


def pick_device() -> torch.device:
    """The first CUDA device if there is one (losses then run in bfloat16), else the CPU (float32)."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch with its tensors on a device; tuples, lists, dictionaries and dataclasses keep their form."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: to_device(item, device) for name, item in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(to_device(item, device) for item in batch)
    if is_dataclass(batch) and not isinstance(batch, type):
        moved = {field.name: to_device(getattr(batch, field.name), device) for field in fields(batch)}
        return replace(batch, **moved)
    return batch


def seed_everything(seed: int, step: int) -> None:
    """Seed torch's generators, on every device, from a seed and a step."""
    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:8], "little"))


def _identity(model: nn.Module, config: TrainConfig) -> dict[str, Any]:
    """What must be equal for a run to go on: how it is trained, the model's config, its weights' shapes."""
    training = {name: value for name, value in files.plain(config).items() if name not in HABITS}
    shapes = checkpoints.shapes(checkpoints.weights(model))
    return {"training": training, "model": files.plain(getattr(model, "config", None)), "weights": shapes}
