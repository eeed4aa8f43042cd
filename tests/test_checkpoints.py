"""What is saved comes back; whatever else a file may hold is one sentence, and what was there stays."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from slmlab import files
from slmlab.errors import LabError
from slmlab.training import checkpoints
from slmlab.training.checkpoints import Card


@dataclass(frozen=True)
class Inner:
    """A config inside a config."""

    sizes: tuple[int, ...] = (3, 4)
    """Two sizes."""


@dataclass(frozen=True)
class NetConfig:
    """A little of everything that JSON has no word for."""

    width: int = 5
    """Width."""
    languages: tuple[str, ...] = ("vi", "sw")
    """Names."""
    inner: Inner = field(default_factory=Inner)
    """Nested."""
    limit: float | None = None
    """Optional."""


class Net(nn.Module):
    """Tied weights and a buffer."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(7, config.width)
        self.out = nn.Linear(config.width, 7, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("counts", torch.arange(6))

    def forward(self, ids: Tensor) -> Tensor:
        """ids `(b)` → logits `(b v)`."""
        logits: Tensor = self.out(self.embed(ids))
        return logits


class Other(Net):
    """The same weights under another name."""


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint `net.v1` in an own folder."""
    torch.manual_seed(0)
    card = Card(NetConfig(), facts={"voices": ["a"]}, metrics={"dev.wer": 12.5, "x": float("nan")}, seconds=3)
    checkpoints.save(tmp_path / "net.v1", Net(NetConfig()), card)
    return tmp_path / "net.v1"


def test_a_model_and_its_card_come_back(saved: Path) -> None:
    model, card = checkpoints.load(saved, Net)
    torch.manual_seed(0)
    assert torch.equal(model.embed.weight, Net(NetConfig()).embed.weight)
    assert model.out.weight is model.embed.weight
    assert not model.training
    assert model.config == NetConfig()
    assert (card.kind, card.parameters, card.precision) == ("Net", 35, "float32")
    assert card.metrics == {"dev.wer": 12.5, "x": None}
    assert list(checkpoints.list_checkpoints(saved.parent)) == ["net.v1"]


def test_the_card_for_people_says_what_the_file_says(saved: Path) -> None:
    _, card = checkpoints.load(saved, Net)
    assert json.loads(saved.with_name("net.v1.json").read_text("utf-8")) == files.plain(card)
    saved.with_name("net.v1.json").unlink()
    checkpoints.load(saved, Net)


def test_small_is_a_quarter_of_the_size_and_within_half_a_step_of_the_row(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = nn.Linear(300, 100)
    sizes = []
    for small in (False, True):
        card = checkpoints.save(tmp_path / "net", model, Card({}), small=small)
        sizes.append((tmp_path / "net.safetensors").stat().st_size)
    assert card.precision == "int8 and float16"
    assert sizes[1] < 0.28 * sizes[0]


@dataclass(frozen=True)
class RowsConfig:
    """Nothing to decide."""


class Rows(nn.Module):
    """A matrix whose rows differ in size by a thousand, one of them empty."""

    def __init__(self, config: RowsConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Parameter(torch.tensor([[1.0, -0.5, 0.004], [1e-3, 2e-3, -5e-4], [0, 0, 0]]))
        self.gain = nn.Parameter(torch.tensor([0.1]))
        self.register_buffer("clock", torch.tensor([[0.1, 7.0]]))


def test_a_small_matrix_keeps_every_row_s_own_scale(tmp_path: Path) -> None:
    """The largest number of a row is 127 steps: 1 goes in steps of 0.0079, 0.002 in steps of 0.000016."""
    model = Rows(RowsConfig())
    checkpoints.save(tmp_path / "rows", model, Card(RowsConfig()), small=True)
    back, _ = checkpoints.load(tmp_path / "rows", Rows)
    assert back.table.dtype == torch.float32
    step = model.table.detach().abs().amax(1, keepdim=True) / 127
    assert bool(((back.table - model.table).abs() <= 0.502 * step + 1e-3 * model.table.abs()).all())
    assert back.table[0, 2].item() == pytest.approx(1 / 127, rel=1e-3)
    assert back.gain.item() == torch.tensor(0.1).half().float().item()
    assert torch.equal(back.clock, model.clock), "what was not learnt is kept to the bit"


@pytest.mark.parametrize("where", ["weight", "bias"])
def test_weights_too_large_to_be_stored_small_are_refused(tmp_path: Path, where: str) -> None:
    model = nn.Linear(2, 2)
    nn.init.constant_(getattr(model, where), 1e8)
    with pytest.raises(LabError, match=rf"{where}.* of the model is not finite"):
        checkpoints.save(tmp_path / "net", model, Card({}), small=True)
    assert not list(tmp_path.iterdir())


def test_a_missing_checkpoint_names_its_neighbours(saved: Path) -> None:
    with pytest.raises(LabError, match=r"no checkpoint .*none\.safetensors \(in that folder: net\.v1\)"):
        checkpoints.load(saved.parent / "none", Net)


def test_another_kind_is_refused(saved: Path) -> None:
    with pytest.raises(LabError, match="holds a Net, not the expected Other"):
        checkpoints.load(saved, Other)


def test_a_config_of_another_version_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Newer:
        width: int
        depth: int

    def newer(self: Net, config: Newer) -> None: ...

    monkeypatch.setattr(Net, "__init__", newer)
    with pytest.raises(LabError, match=r"config than Newer \(depth, inner, languages, limit differ\)"):
        checkpoints.load(saved, Net)


def test_weights_that_do_not_fit_are_refused(saved: Path) -> None:
    tensors, card = checkpoints.read(saved.with_name("net.v1.safetensors"))
    card["config"]["width"] = 6
    checkpoints.write(saved.with_name("net.v1.safetensors"), tensors, card)
    with pytest.raises(LabError, match=r"fit a Net \(embed\.weight: found \[7, 5\], expected \[7, 6\]"):
        checkpoints.load(saved, Net)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "net.safetensors")
    with pytest.raises(LabError, match="carries no card"):
        checkpoints.load(tmp_path / "net", Net)


ONE_FOLDER = [HealthCheck.function_scoped_fixture]  # every example cleans up behind itself
KEEP_FIXTURE = settings(max_examples=60, deadline=None, suppress_health_check=ONE_FOLDER)


@KEEP_FIXTURE
@given(st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(saved: Path, share: float) -> None:
    whole = saved.with_name("net.v1.safetensors").read_bytes()
    cut = saved.with_name("cut.safetensors")
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(LabError, match="damaged or half-written"):
        checkpoints.load(cut, Net)
    cut.unlink()


@KEEP_FIXTURE
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_changed_byte_is_noticed(saved: Path, share: float, change: int) -> None:
    """Anywhere in names, card or weights; only a space between JSON values may become another."""
    whole = bytearray(saved.with_name("net.v1.safetensors").read_bytes())
    place = int(share * len(whole))
    space = whole[place : place + 1].isspace() and bytes([whole[place] ^ change]).isspace()
    whole[place] ^= change
    other = saved.with_name("other.safetensors")
    other.write_bytes(whole)
    if not space:
        with pytest.raises(LabError, match=r"damaged|no card|another version"):
            checkpoints.load(other, Net)
    other.unlink()


def test_a_link_to_a_checkpoint_is_held_to_the_digest_of_what_it_points_to(saved: Path) -> None:
    file, link = saved.with_name("net.v1.safetensors"), saved.with_name("link.safetensors")
    link.symlink_to(file)
    assert checkpoints.load(link, Net)[1] == checkpoints.load(saved, Net)[1]
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(LabError, match=r"link\.safetensors is damaged"):
        checkpoints.load(link, Net)


FULL_DISK = """
import resource, sys, torch
from torch import nn
from slmlab.errors import LabError
from slmlab.training import checkpoints
checkpoints.save(sys.argv[1], nn.Linear(10, 10), checkpoints.Card({}))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    checkpoints.save(sys.argv[1], nn.Linear(100, 100), checkpoints.Card({}))
except LabError as error:
    print(error)
    sys.exit(2)
"""


def test_a_full_disk_is_one_sentence_and_the_checkpoint_before_stays(tmp_path: Path) -> None:
    root = str(Path(checkpoints.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "net")],
        env=os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "could not be written" in done.stdout
    assert "Free some space" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", "net.safetensors"]
    assert checkpoints.read(tmp_path / "net.safetensors")[0]["weight"].shape == (10, 10)
