"""The peer learns from the same targets, operations are counted as one would by hand, and races end."""

import dataclasses
import math
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from slmlab import peers
from slmlab.models.lm import Batch, LMConfig, SpeechLM, lm_loss
from slmlab.peers import Contender, our_loss, peer_loss
from slmlab.qwen import to_qwen

SMALL = LMConfig(
    20, ("sw",), n_codes=9, code_levels=3, code_dims=2, width=32, layers=2, heads=2, kv_heads=1, ffn=48
)


def test_turns_are_counted_after_the_first() -> None:
    order: list[str] = []
    seconds = peers.alternate((lambda: order.append("a"), lambda: (order.append("b"), time.sleep(0.01))), 3)
    assert order == ["a", "b"] * 4
    assert [len(taken) for taken in seconds] == [3, 3]
    assert min(seconds[1]) >= 0.01
    assert peers.times_faster([1.0, 2.0, 4.0], [3.0, 4.0, 20.0]) == 3.0


def test_the_peer_has_our_loss_on_our_targets() -> None:
    torch.manual_seed(0)
    model = SpeechLM(dataclasses.replace(SMALL, layers=1))
    model.pace.fill_(0.0)
    batch = peers.sample_batch(SMALL, 500)
    # One block that nothing has been taught yet: positions do not count, so the losses are the same number.
    for parameter in (model.blocks[0].self_attn.q_proj.bias, model.blocks[0].self_attn.k_proj.bias):
        torch.nn.init.zeros_(parameter)
    theirs = peer_loss(to_qwen(model), batch)
    assert float(theirs) == pytest.approx(float(lm_loss(model, batch)[0]), rel=1e-5)
    assert to_qwen(model).config._attn_implementation == "sdpa"


def test_a_sample_batch_is_hardly_padded() -> None:
    batch = peers.sample_batch(SMALL, 3000)
    assert 2500 < batch.ids.numel() < 3500
    assert float((batch.ids == 0).float().mean()) < 0.12


def test_operations_are_those_that_torch_counts() -> None:
    """Without padding, every place a target: torch counts the whole square of attention, we its half."""
    torch.manual_seed(0)
    model = SpeechLM(dataclasses.replace(SMALL, kv_heads=2))
    ids = torch.randint(30, 32, (3, 17))
    batch = Batch(ids, torch.arange(ids.numel()), torch.randint(23, 32, (ids.numel(),)))
    with FlopCounterMode(display=False) as counter:
        peers.our_loss(model, batch).backward()
    c, square = model.config, 3 * 17 * 17
    first_input = 2 * 3 * 17 * c.width * 3 * c.width  # its gradient ends at the table, and is needed too
    counted = counter.get_total_flops()
    ours = peers.useful_flops(c, batch) + 3 * 2 * 2 * c.layers * c.width * (square - 3 * 17 * 18 / 2)
    assert counted == pytest.approx(ours, rel=0.1), (counted, ours, first_input)


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
