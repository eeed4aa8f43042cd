"""The loop learns, stops in words, and no kill changes what it ends with."""

import math
import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from slmlab.errors import LabError
from slmlab.training import loop
from slmlab.training.loop import TrainConfig, frame_batches, read_log, schedule, to_device, train

CONFIG = TrainConfig(steps=120, warmup=5, ema=0.9, validate_every=50)


class Net(nn.Module):
    """Everything that has state: a table and a head for AdamW, a matrix for Muon, buffers, random dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, 24)
        self.hidden = nn.Linear(24, 24)
        self.drop = nn.Dropout(0.1)
        self.norm = nn.BatchNorm1d(24)
        self.head = nn.Linear(24, 17)

    def forward(self, ids: Tensor) -> Tensor:
        """ids `(b)` → logits `(b v)`."""
        logits: Tensor = self.head(self.norm(self.drop(torch.relu(self.hidden(self.embed(ids))))))
        return logits


def net() -> Net:
    """The same new net each time."""
    torch.manual_seed(1)
    return Net()


def batches(step: int) -> dict[str, Tensor]:
    """Symbols and what they are to be turned into: three times themselves."""
    ids = torch.randint(17, (32,), generator=torch.Generator().manual_seed(step))
    return {"ids": ids, "targets": 3 * ids % 17}


def loss(model: Net, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Cross-entropy, and accuracy as a figure."""
    logits = model(batch["ids"])
    right = (logits.argmax(1) == batch["targets"]).float().mean()
    return F.cross_entropy(logits, batch["targets"]), {"accuracy": right, "size": len(logits)}


class Halted(Exception):
    """Stands for anything that ends a run between two steps."""


def halting(at: int) -> Callable[[int], dict[str, Tensor]]:
    """Batches that end at a step."""

    def until(step: int) -> dict[str, Tensor]:
        if step == at:
            raise Halted
        return batches(step)

    return until


def same(one: nn.Module, other: nn.Module) -> bool:
    """Bit for bit."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def timeless(folder: Path) -> list[dict[str, object]]:
    """The log without its seconds."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_log(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Net, Path]:
    """A run that nothing ended before its time."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return train(net(), loss, batches, CONFIG, folder, measure), folder


def test_it_learns_and_every_parameter_moves(whole: tuple[Net, Path]) -> None:
    model, folder = whole
    rows = [row for row in read_log(folder) if "loss" in row]
    assert rows[0]["loss"] > 2.5
    assert rows[-1]["loss"] < 0.5
    assert rows[-1]["accuracy"] > 0.9
    start = net().state_dict()
    assert not [name for name, p in model.named_parameters() if torch.equal(p, start[name])]
    assert not model.training


def test_every_step_and_validation_is_in_the_log(whole: tuple[Net, Path]) -> None:
    model, folder = whole
    rows = read_log(folder)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 121))
    assert [row["step"] for row in rows if "validation" in row] == [50, 100, 120]
    assert rows[-1]["validation"] == measure(model)
    assert {"step", "rate", "loss", "accuracy", "size", "gradient", "seconds"} == set(rows[0])


def test_a_finished_run_is_returned_at_once(whole: tuple[Net, Path]) -> None:
    model, folder = whole
    assert same(train(net(), loss, halting(0), CONFIG, folder), model)


def test_the_callers_random_stream_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    model = net()
    torch.manual_seed(5)
    train(model, loss, batches, TrainConfig(steps=2), tmp_path)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("muon_lr", [0.0, 0.02])
@pytest.mark.parametrize("save_every", [0.0, 0.01])
def test_ended_and_resumed_equals_whole(tmp_path: Path, muon_lr: float, save_every: float) -> None:
    config = TrainConfig(steps=40, warmup=5, muon_lr=muon_lr, save_every=save_every)
    expected = train(net(), loss, batches, config, tmp_path / "whole")
    for at in (0, 7, 7, 23, 39):
        with pytest.raises(Halted):
            train(net(), loss, halting(at), config, tmp_path / "parts")
    assert same(train(net(), loss, batches, config, tmp_path / "parts"), expected)
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")


FORK = multiprocessing.get_context("forkserver")  # one import of torch, then real processes in no time
FORK.set_forkserver_preload(["torch", "torch._dynamo", "slmlab.training.loop"])


def measure(model: Net) -> dict[str, float]:
    """A figure for validation."""
    return {"norm": float(model.head.bias.detach().norm())}


def whole_run(folder: Path, limit: int, said: Path) -> None:
    """The run of `whole`, saving at every step; a file may have `limit` bytes at most."""
    torch.set_num_threads(1)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        train(net(), loss, batches, replace(CONFIG, save_every=0), folder, measure)
    except LabError as error:
        said.write_text(str(error))
        os._exit(2)


def child(folder: Path, limit: int = 0) -> Any:
    """`whole_run` in a process of its own; a LabError goes to the file `folder.said`."""
    process = FORK.Process(target=whole_run, args=(folder, limit, folder.with_suffix(".said")))
    process.start()
    return process


def steps_logged(folder: Path) -> int:
    """Lines of a run's log, 0 if there is none."""
    log = folder / loop.LOG
    return log.read_text().count("\n") if log.exists() else 0


def test_killed_at_random_moments_and_resumed_equals_whole(whole: tuple[Net, Path], tmp_path: Path) -> None:
    model, reference = whole
    folder = tmp_path / "killed"
    draw = random.Random(0)
    for until in (1, 35, 80):
        process = child(folder)
        while steps_logged(folder) < until and process.is_alive():
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the run was over before it could be killed"
    last = child(folder)
    last.join()
    assert last.exitcode == 0
    assert same(train(net(), loss, halting(0), CONFIG, folder), model)
    assert timeless(folder) == timeless(reference)
    kept = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".tmp"))
    assert kept == [loop.LOG, loop.STATE]  # a kill may leave a half-written file of safetensors


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(whole: tuple[Net, Path], tmp_path: Path) -> None:
    folder = tmp_path / "full"
    with pytest.raises(Halted):
        train(net(), loss, halting(30), replace(CONFIG, save_every=0), folder)
    before = (folder / loop.STATE).read_bytes()
    process = child(folder, limit=len(before) - 1000)
    process.join()
    assert process.exitcode == 2
    said = folder.with_suffix(".said").read_text()
    assert "training.safetensors could not be written" in said
    assert "what was there before is intact" in said
    assert (folder / loop.STATE).read_bytes() == before
    assert same(train(net(), loss, batches, CONFIG, folder, measure), whole[0])


def test_another_config_in_the_folder_is_refused_by_what_differs(whole: tuple[Net, Path]) -> None:
    with pytest.raises(LabError, match=r"another config \(training\.lr: found 0\.003, expected 0\.1\)"):
        train(net(), loss, batches, replace(CONFIG, lr=0.1), whole[1])
    wider = net()
    wider.head = nn.Linear(24, 18)
    with pytest.raises(LabError, match=r"weights\.head\.bias: found \[17\], expected \[18\]"):
        train(wider, loss, batches, CONFIG, whole[1])


def test_a_damaged_state_is_refused(whole: tuple[Net, Path], tmp_path: Path) -> None:
    bytes_of = (whole[1] / loop.STATE).read_bytes()
    (tmp_path / loop.STATE).write_bytes(bytes_of[:-5])
    with pytest.raises(LabError, match="damaged or half-written"):
        train(net(), loss, batches, CONFIG, tmp_path)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_anything_is_saved(tmp_path: Path, broken: float) -> None:
    def breaking(model: Net, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float | Tensor]]:
        value, figures = loss(model, batch)
        return value * (broken if float(batch["scale"]) else 1.0), figures

    def at_17(step: int) -> dict[str, Tensor]:
        return {**batches(step), "scale": torch.tensor(float(step == 17))}

    with pytest.raises(LabError, match=rf"Training of net stopped: at step 18 the loss is {broken}"):
        train(net(), breaking, at_17, TrainConfig(steps=40, save_every=0), tmp_path / "net")
    with pytest.raises(Halted):
        train(net(), loss, halting(17), TrainConfig(steps=40, save_every=0), tmp_path / "net")
    rows = read_log(tmp_path / "net")
    assert [row["step"] for row in rows] == list(range(1, 18))


def test_the_average_is_the_weights_exponential_mean(tmp_path: Path) -> None:
    """A weight under a constant gradient goes down by the rate each step: its mean can be had by hand."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))

    seen: list[float] = []

    def pull(model: One, batch: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        if batch:
            seen.append(float(model.w.detach()))
        return model.w, {}

    config = TrainConfig(steps=4, lr=0.1, warmup=0, decay="constant", clip=0, ema=0.999)
    model = train(One(), pull, lambda step: step, config, tmp_path)
    raw = [*seen, seen[-1] - 0.1]
    assert raw == pytest.approx([-0.1, -0.2, -0.3, -0.4], abs=1e-5)
    mean = 0.0
    for step, value in enumerate(raw):
        kept = (1 + step) / (10 + step)
        mean = kept * mean + (1 - kept) * value
    assert float(model.w.detach()) == pytest.approx(mean, abs=1e-5)


def test_the_gradient_is_clipped_and_logged_before(tmp_path: Path) -> None:
    steep = TrainConfig(steps=1, clip=0.5)
    train(net(), lambda m, b: (1000 * loss(m, b)[0], {}), batches, steep, tmp_path)
    assert read_log(tmp_path)[0]["gradient"] > 100


def test_the_rate_rises_then_falls() -> None:
    config = TrainConfig(steps=110, warmup=10)
    assert [schedule(step, config) for step in (0, 4, 9, 10, 60, 109)] == [0.1, 0.5, 1.0, 1.0, 0.5, 0.01]
    assert schedule(109, TrainConfig(steps=110, warmup=10, decay="constant")) == 1.0


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"ema": 1.0}, {"decay": "step"}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(LabError, match="steps must be at least 1"):
        TrainConfig(**{"steps": 10, **wrong})  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=120), st.integers(400, 3000), st.integers(0, 3))
def test_an_epoch_holds_each_utterance_once_and_no_batch_is_too_large(
    lengths: list[int], most: int, seed: int
) -> None:
    draw = frame_batches(lengths, most, seed)
    first: list[int] = []
    step = 0
    while len(first) < len(lengths):
        batch = draw(step)
        assert len(batch) * max(lengths[i] for i in batch) <= most
        first += batch
        step += 1
    assert sorted(first) == list(range(len(lengths)))
    second = [i for later in range(step, 2 * step) for i in draw(later)]
    assert sorted(second) == sorted(first)
    assert frame_batches(lengths, most, seed)(2 * step - 1) == draw(2 * step - 1)


def test_batches_are_full_hardly_padded_and_new_every_epoch() -> None:
    draw_lengths = random.Random(1)
    lengths = [draw_lengths.randint(50, 300) for _ in range(1000)]
    draw = frame_batches(lengths, 6000, 0)
    epochs: list[list[list[int]]] = [[], []]
    step = 0
    for epoch in epochs:
        while sum(map(len, epoch)) < 1000:
            epoch.append(draw(step))
            step += 1
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in epochs[0])
    assert sum(lengths) / padded > 0.93
    assert padded / (6000 * len(epochs[0])) > 0.88
    met = [{(i, j) for batch in epoch for i in batch for j in batch if i < j} for epoch in epochs]
    assert len(met[0] & met[1]) < 0.6 * len(met[0])


@pytest.mark.parametrize(
    ("lengths", "found"), [([], "no utterance"), ([5, 0], "from 0 to 5"), ([9], "9 to 9")]
)
def test_lengths_that_no_batch_can_hold_are_refused(lengths: list[int], found: str) -> None:
    with pytest.raises(LabError, match=found):
        frame_batches(lengths, 8, 0)


def test_a_batch_keeps_its_form_on_its_way_to_the_device() -> None:
    @dataclass(frozen=True)
    class Pair:
        mel: Tensor
        names: tuple[str, ...]

    there = to_device(
        {"pair": Pair(torch.zeros(2), ("a",)), "list": [torch.ones(1), 3]}, torch.device("meta")
    )
    assert there["pair"].mel.device.type == "meta"
    assert there["pair"].names == ("a",)
    assert there["list"][0].device.type == "meta"
    assert there["list"][1] == 3
