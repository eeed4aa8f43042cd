"""Export is exact: the same logits from transformers' Qwen2, alone and in padded batches, there and back."""

import dataclasses

import pytest
import torch
from bench.qwen import from_qwen, to_qwen
from torch import Tensor, nn

from slmlab.errors import LabError
from slmlab.language.text import Alphabet
from slmlab.models.lm import LMConfig, SpeechLM, assemble, prompt_ids

SHARED = LMConfig(
    Alphabet(tuple("abcdefghijklmnopqrs")), ("vi", "sw"), width=48, layers=3, heads=4, kv_heads=2, ffn=80
)


def lively(config: LMConfig) -> SpeechLM:
    """A model none of whose parts is silent or neutral."""
    torch.manual_seed(0)
    model = SpeechLM(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.pace.copy_(3 * torch.rand_like(model.pace))
    return model.eval()


def sequences(config: LMConfig) -> list[Tensor]:
    """Sequences of several lengths, with and without a style."""
    texts, codes, styles = (
        [[3, 1, 4, 1, 5], [9, 2, 6], [5] * 8],
        [[0, 6560, 17], [8] * 9, [4]],
        [[], [1, 2, 3], []],
    )
    rows = zip(texts, codes, styles, strict=True)
    return [assemble(config, [prompt_ids(config, t, "sw", s)], [c]).ids for t, c, s in rows]


@pytest.mark.parametrize("config", [SHARED, dataclasses.replace(SHARED, kv_heads=4)])
@torch.no_grad()
def test_logits_are_equal(config: LMConfig) -> None:
    model = lively(config)
    peer = to_qwen(model)
    for ids in sequences(config):
        ones = torch.ones_like(ids)
        theirs = peer(input_ids=ids, position_ids=model.positions(ids), attention_mask=ones).logits
        assert float(theirs.std()) > 0.1
        torch.testing.assert_close(model(ids), theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_logits_of_a_padded_batch_are_equal_to_each_alone() -> None:
    model = lively(SHARED)
    peer = to_qwen(model)
    rows = sequences(SHARED)
    width = max(row.shape[1] for row in rows)
    ids = torch.cat([nn.functional.pad(row, (0, width - row.shape[1])) for row in rows])
    ours = model(ids)
    theirs = peer(
        input_ids=ids, position_ids=model.positions(ids), attention_mask=torch.ones_like(ids)
    ).logits
    for i, row in enumerate(rows):
        n = row.shape[1]
        torch.testing.assert_close(ours[i, :n], model(row)[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours[i, :n], theirs[i, :n], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_there_and_back_says_the_same() -> None:
    model = lively(SHARED)
    other = SpeechLM(SHARED)
    other.pace.copy_(model.pace)
    again = from_qwen(to_qwen(model), other)
    ids = sequences(SHARED)[0]
    torch.testing.assert_close(again(ids), model(ids), atol=1e-5, rtol=1e-5)


def test_another_shape_is_refused_by_name() -> None:
    wide = SpeechLM(dataclasses.replace(SHARED, ffn=96))
    with pytest.raises(LabError, match=r"mlp.gate_proj.weight has shape \(80, 48\), expected \(96, 48\)"):
        from_qwen(to_qwen(lively(SHARED)), wide)
