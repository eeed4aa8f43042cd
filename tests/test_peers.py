"""The peer learns from the same targets, operations are counted as one would by hand, and races end."""

import math
import time

import pytest
import torch
from bench import peers
from bench.peers import Contender, our_loss, peer_loss
from bench.qwen import to_qwen
from torch.utils.flop_counter import FlopCounterMode

from slmlab.language.text import Alphabet
from slmlab.models.lm import Batch, LMConfig, SpeechLM

SMALL = LMConfig(
    Alphabet(tuple(map(chr, range(97, 116)))),
    ("sw",),
    n_codes=9,
    code_levels=3,
    code_dims=2,
    width=32,
    layers=2,
    heads=2,
    kv_heads=1,
    ffn=48,
)


def test_turns_are_counted_after_the_first() -> None:
    order: list[str] = []
    seconds = peers.alternate((lambda: order.append("a"), lambda: (order.append("b"), time.sleep(0.01))), 3)
    assert order == ["a", "b"] * 4
    assert [len(taken) for taken in seconds] == [3, 3]
    assert min(seconds[1]) >= 0.01
    assert peers.times_faster([1.0, 2.0, 4.0], [3.0, 4.0, 20.0]) == 3.0


@torch.no_grad()
def test_the_peer_has_our_loss_on_our_targets() -> None:
    torch.manual_seed(0)
    model = SpeechLM(SMALL)  # its blocks say nothing yet, so that other positions make no other loss
    batch = peers.sample_batch(SMALL, 500)
    peer = to_qwen(model)
    assert float(peer_loss(peer, batch)) == pytest.approx(float(our_loss(model, batch)), rel=1e-5)
    assert peer.config._attn_implementation == "sdpa"


def test_a_sample_batch_is_hardly_padded() -> None:
    batch = peers.sample_batch(SMALL, 3000)
    assert 2500 < batch.ids.numel() < 3500
    assert float((batch.ids == 0).float().mean()) < 0.12


def test_operations_are_those_that_torch_counts() -> None:
    model = SpeechLM(SMALL)
    ids = torch.randint(24, 33, (3, 17))
    with FlopCounterMode(display=False) as counter:
        model(ids).logsumexp(-1).sum().backward()
    counted = {str(name): n for name, n in counter.get_flop_counts()["Global"].items()}
    products = counted["aten.mm"] + counted["aten.addmm"]
    pairs = 3 * (1 + 17) * 17 / 2
    # There and twice back; q with k, weights with v; multiply and add.
    attention = 3 * 2 * 2 * SMALL.layers * SMALL.width * pairs
    every_place = Batch(ids, torch.arange(3 * 17), torch.zeros(3 * 17))
    assert peers.useful_flops(SMALL, every_place) == pytest.approx(products + attention)


def test_speeds_of_a_toy() -> None:
    speed = peers.training_speed(SMALL, 300, rounds=1)
    assert speed.ratio > 0
    assert 0 < speed.limit < 1
    ratio, rate = peers.generation_ratio(SMALL, batch=2, tokens=5, rounds=1)
    assert ratio > 0
    assert rate > 0


def test_a_race_ends_where_the_peer_is_as_good_or_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = peers.sample_batch(SMALL, 200)
    monkeypatch.setattr(peers, "PEER_RATES", (1e-9, 1e-2))
    prepared: list[SpeechLM] = []

    def run(lr: float) -> peers.Race:
        return peers.race(SMALL, lambda step: batch, [batch], 10, (lr, 0.0), prepared.append, patience=3)

    slow = run(1e-9)
    assert slow.arrived
    assert slow.steps == (10, 10)
    assert slow.rate == 1e-2
    assert len(prepared) == 1
    fast = run(3e-2)
    assert fast.loss < slow.loss
    assert fast.steps[1] <= 30
    assert fast.arrived or fast.steps[1] == 30


def test_a_contender_learns_and_counts_its_steps() -> None:
    torch.manual_seed(0)
    batch = peers.sample_batch(SMALL, 200)
    contender = Contender(SpeechLM(SMALL), our_loss, lr=1e-2, muon_lr=0.02, warmup=2)
    before = contender.measure([batch])
    assert before == pytest.approx(math.log(SMALL.vocabulary), rel=0.2)
    for _ in range(5):
        contender.step(batch)
    assert contender.measure([batch, batch]) < before
    assert contender.spent() == pytest.approx(5 * sorted(contender.seconds)[2])
