"""The language model reads what its sequence says it reads, and its shortcuts equal the long way."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from slmlab.errors import LabError
from slmlab.language.text import Alphabet
from slmlab.models.lm import LMConfig, SpeechLM, assemble, lm_loss, log_probs, prompt_ids, target_log_probs
from slmlab.models.transformer import Block, rotate, rotation, side_by_side, unit_rms

CONFIG = LMConfig(Alphabet(tuple("abcdefghi")), ("vi", "sw"), width=32, layers=2, heads=2, kv_heads=2, ffn=48)
PROMPTS = [prompt_ids(CONFIG, [1, 2, 3], "vi"), prompt_ids(CONFIG, [4, 5, 6, 7, 8], "sw", [20, 30])]
CODES = [[0, 6560], [7, 7, 7, 1]]


def lively(config: LMConfig = CONFIG, spread: float = 0.3) -> SpeechLM:
    """A model none of whose parts is silent or neutral, in double precision."""
    torch.manual_seed(0)
    model = SpeechLM(config).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=spread)
    model.pace.copy_(3 * torch.rand_like(model.pace))
    return model


def test_a_sequence_is_laid_out_as_documented() -> None:
    """Ids: symbols 0-9, vi 10, sw 11, <style> 12, <speech> 13, <end> 14, codes from 15 on."""
    batch = assemble(CONFIG, PROMPTS, CODES)
    assert batch.ids.tolist() == [
        [10, 1, 2, 3, 13, 15, 6575, 0, 0, 0, 0, 0, 0, 0],
        [11, 12, 35, 45, 4, 5, 6, 7, 8, 13, 22, 22, 22, 16],
    ]
    assert batch.places.tolist() == [4, 5, 6, 23, 24, 25, 26, 27]
    assert batch.targets.tolist() == [15, 6575, 14, 22, 22, 22, 16, 14]
    assert CONFIG.vocabulary == 6576


def test_the_prompt_is_the_sequence_up_to_speech() -> None:
    assert prompt_ids(CONFIG, [1, 2], "sw", [5]) == [11, 12, 20, 1, 2, 13]
    assert SpeechLM(CONFIG).prompt("ab", "vi") == [10, 1, 2, 13]


def test_unknown_languages_and_endless_sequences_are_refused() -> None:
    with pytest.raises(LabError, match="no tag for language 'lo'; it knows vi, sw"):
        prompt_ids(CONFIG, [1], "lo")
    short = dataclasses.replace(CONFIG, max_positions=8)
    with pytest.raises(LabError, match="14 positions, more than the 8"):
        assemble(short, PROMPTS, CODES)


def test_a_code_is_the_sum_of_its_digits_its_halves_and_itself() -> None:
    """167 = 2 + 1 · 3 + 2 · 81: its digits from the lowest are 2, 1, 0, 0 and 2, 0, 0, 0, its halves 5 and
    2.
    """
    model = lively()
    digits = [2, 1, 0, 0, 2, 0, 0, 0]
    expected = sum(model.embed_digits[j, level] for j, level in enumerate(digits))
    expected = expected + model.embed_low[5] + model.embed_high[2] + model.embed_codes[167]
    torch.testing.assert_close(model.table()[CONFIG.first_code + 167], expected)
    assert model.table().shape == (CONFIG.vocabulary, CONFIG.width)


def test_the_clock_of_speech_runs_beside_the_text() -> None:
    """Text of 2 + 0.5 + 1 tokens after a tag, and after a tag, <style> and two codes; then speech beside
    it.
    """
    model = SpeechLM(CONFIG)
    model.pace[:] = 0
    model.pace[0, [1, 2, 3]] = torch.tensor([2, 0.5, 1])
    model.pace[1, [4, 5, 6, 7, 8]] = 1.0
    batch = assemble(CONFIG, PROMPTS, CODES)
    first, second = model.positions(batch.ids).tolist()
    assert first[:7] == [0, 1, 3, 3.5, 1, 2, 3]
    assert second == [0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 5, 6, 7, 8]
    assert model.expected_tokens(batch.ids).tolist() == [3.5, 5]


def test_pace_is_found_again_from_lengths_alone() -> None:
    """Symbols sound for 1, 2, 0 and 3 tokens in sw; vi was not in the corpus and keeps its pace."""
    draw = torch.Generator().manual_seed(3)
    texts = [torch.randint(1, 5, (12,), generator=draw).tolist() for _ in range(200)]
    true = [0.0, 1.0, 2.0, 0.0, 3.0]
    model = SpeechLM(CONFIG)
    before = model.pace[0].clone()
    model.fit_pace(texts, [int(sum(true[i] for i in text)) for text in texts], ["sw"] * 200, ridge=0.01)
    torch.testing.assert_close(model.pace[1, 1:5], torch.tensor(true[1:]), atol=0.01, rtol=0)
    torch.testing.assert_close(model.pace[0], before)


def test_padding_and_neighbours_change_nothing() -> None:
    model = lively()
    both = model(assemble(CONFIG, PROMPTS, CODES).ids)
    for i in range(2):
        alone = model(assemble(CONFIG, PROMPTS[i : i + 1], CODES[i : i + 1]).ids)
        torch.testing.assert_close(both[i, : alone.shape[1]], alone[0])


@torch.no_grad()
def test_nothing_is_seen_before_it_is_read() -> None:
    model = lively()
    ids = assemble(CONFIG, PROMPTS[:1], [[5, 6, 7, 8]]).ids
    changed = ids.clone()
    changed[0, 7] += 1
    before, after = model(ids)[0], model(changed)[0]
    torch.testing.assert_close(before[:7], after[:7])
    assert float((before[7:] - after[7:]).abs().amax(1).min()) > 1e-3


def plain_log_probs(model: SpeechLM, ids: Tensor, places: Tensor, targets: Tensor) -> Tensor:
    """The long way: all logits, then their log-softmax at the targets."""
    return functional.log_softmax(model(ids).flatten(0, 1)[places], -1).gather(1, targets[:, None])[:, 0]


@pytest.mark.parametrize("chunk", [3, 512])
def test_log_probabilities_and_gradients_equal_the_long_way(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slmlab.models.lm.CHUNK", chunk)
    model = lively()
    batch = assemble(CONFIG, PROMPTS, CODES)
    weights = torch.linspace(-1, 2, len(batch.targets)).double()
    gradients = []
    for way in (
        target_log_probs(model, batch),
        plain_log_probs(model, batch.ids, batch.places, batch.targets),
    ):
        gradients.append((way, torch.autograd.grad((way * weights).sum(), list(model.parameters()))))
    (short, by_short), (long, by_long) = gradients
    torch.testing.assert_close(short, long)
    torch.testing.assert_close(by_short, by_long)


def test_rows_add_up_their_own_targets() -> None:
    model = lively()
    batch = assemble(CONFIG, PROMPTS, CODES)
    each = target_log_probs(model, batch)
    torch.testing.assert_close(log_probs(model, batch), torch.stack([each[:3].sum(), each[3:].sum()]))


@torch.no_grad()
def test_a_new_model_knows_nothing() -> None:
    """Its blocks are silent, so that all ids are nearly as likely."""
    torch.manual_seed(0)
    loss, _ = lm_loss(SpeechLM(CONFIG), assemble(CONFIG, PROMPTS, CODES))
    assert float(loss) == pytest.approx(math.log(CONFIG.vocabulary), abs=0.2)


def test_it_learns_two_sentences_by_heart_and_every_part_takes_part() -> None:
    torch.manual_seed(0)
    model = SpeechLM(CONFIG)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    batch = assemble(CONFIG, PROMPTS, CODES)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        optimiser.zero_grad()
        loss, _ = lm_loss(model, batch)
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.05
    assert [name for name, p in model.named_parameters() if torch.equal(p, start[name])] == []


def test_rotation_is_qwens() -> None:
    """Pair p of a head is numbers p and p + e / 2, turned by position / theta^(2 p / e)."""
    x = torch.randn(1, 1, 1, 4)
    laid = side_by_side(x.flatten(), 4).reshape(1, 1, 1, 4)
    turned = rotate(laid, rotation(torch.tensor([[2.5]]), 4, 100.0)).flatten()
    a, b, c, d = x.flatten().tolist()
    fast, slow = 2.5, 2.5 / 10
    expected = [
        a * math.cos(fast) - c * math.sin(fast),
        a * math.sin(fast) + c * math.cos(fast),
        b * math.cos(slow) - d * math.sin(slow),
        b * math.sin(slow) + d * math.cos(slow),
    ]
    torch.testing.assert_close(turned, torch.tensor(expected))


@torch.no_grad()
def test_heads_look_near_before_they_have_learnt() -> None:
    """Of two heads one looks where the clock stands, one two tokens ahead; there the score is 1.5² · sqrt(16)
    / 2.
    """
    block = Block(32, 2, 1, 48)
    nn.init.zeros_(block.self_attn.q_proj.weight)
    nn.init.zeros_(block.self_attn.k_proj.weight)
    block.look_near((0.0, 2.0), 1.5, 300.0)
    turn = rotation(torch.arange(12.0)[None], 16, 300.0)
    q, k, _ = block.queries_keys_values(torch.randn(1, 12, 32), turn, block.fuse())
    scores = (q @ k.mT / 4)[0, :, 5]
    assert scores.argmax(-1).tolist() == [5, 7]
    torch.testing.assert_close(scores.amax(-1), torch.full((2,), 1.5**2 * 4 / 2))
    assert float(scores[0, 8:].max()) < 0.7 * float(scores[0, 5])


def test_unit_rms_and_its_gradient() -> None:
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(unit_rms(x), functional.rms_norm(x, (8,), eps=1e-6))
    torch.testing.assert_close(unit_rms(x.detach()), unit_rms(x).detach())
    assert torch.autograd.gradcheck(unit_rms, x)


def test_the_papers_backbone_has_its_number_of_parameters() -> None:
    """Qwen2.5-0.5B without its table of words: 494 032 768 − 151 936 · 896."""
    config = LMConfig(
        Alphabet(tuple(map(chr, range(97, 156)))),
        ("th", "lo"),
        width=896,
        layers=24,
        heads=14,
        kv_heads=2,
        ffn=4864,
        rope_theta=1e6,
    )
    with torch.device("meta"):
        model = SpeechLM(config)
    blocks = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("embed"))
    assert blocks == 357_898_112
