"""What is drawn depends on the model, the prompt and the seed: not on the company, and within its bounds."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from slmlab.corpus.utterances import in_batches
from slmlab.errors import LabError
from slmlab.language.text import Alphabet
from slmlab.models.lm import LMConfig, SpeechLM, prompt_ids
from slmlab.speech import sampling
from slmlab.speech.sampling import (
    SamplingConfig,
    _Reader,
    candidates,
    draw,
    generate,
    pick,
    uniforms,
)

CONFIG = LMConfig(
    Alphabet(tuple("abcdefghijklmnopqrs")), ("vi", "sw"), width=32, layers=2, heads=4, kv_heads=4, ffn=48
)


def lively(kv_heads: int = 4) -> SpeechLM:
    """A model none of whose parts is silent or neutral, in double precision."""
    torch.manual_seed(0)
    model = SpeechLM(
        LMConfig(
            Alphabet(tuple("abcdefghijklmnopqrs")),
            ("vi", "sw"),
            width=32,
            layers=2,
            heads=4,
            kv_heads=kv_heads,
            ffn=48,
        )
    ).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def prompts(model: SpeechLM) -> list[list[int]]:
    """Texts of several lengths, some with a style."""
    return [
        prompt_ids(model.config, list(range(1, 1 + n)), "sw", [5, 6, 7][: 3 * (n % 2)])
        for n in (5, 9, 14, 3, 19)
    ]


@pytest.mark.parametrize("kv_heads", [4, 2])
@torch.no_grad()
def test_reading_step_by_step_equals_reading_at_once(kv_heads: int) -> None:
    """Also after rows have left the batch."""
    model = lively(kv_heads)
    rows = prompts(model)
    reader = _Reader(model, rows, room=4)
    for step in range(4):
        for row, logits in zip(rows, reader.logits, strict=True):
            torch.testing.assert_close(
                logits, model(torch.tensor([row]))[0, -1, CONFIG.end :], atol=1e-6, rtol=0
            )
        read = reader.logits.argmax(-1) + CONFIG.end
        if step == 1:
            stay = torch.tensor([0, 2, 3])
            reader.keep(stay)
            rows, read = [rows[i] for i in stay], read[stay]
        reader.read(read)
        rows = [[*row, int(i)] for row, i in zip(rows, read, strict=True)]


def test_training_between_two_calls_is_noticed() -> None:
    """Any change: a step, new data, another precision."""
    model = lively()
    rows, seeds, freely = prompts(model), range(5), SamplingConfig(temperature=1.0)

    def fresh() -> list[list[int]]:
        return generate(copy.deepcopy(model), rows, freely, seeds)

    before = generate(model, rows, freely, seeds)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02)
    (-model(torch.tensor([rows[0]])).log_softmax(-1)[0, :, 30].sum()).backward()
    optimiser.step()
    stepped = generate(model, rows, freely, seeds)
    assert stepped == fresh() != before
    model.blocks[0].mlp.down_proj.weight.data.neg_()
    assert generate(model, rows, freely, seeds) == fresh() != stepped
    model.float()
    assert generate(model, rows, freely, seeds) == fresh()


def test_equal_prompts_are_read_once_and_say_what_they_say_alone() -> None:
    model = lively()
    first, second = prompts(model)[:2]
    rows, freely = [first, second, first, first], SamplingConfig(temperature=1.0)
    alone = [generate(model, [row], freely, [seed])[0] for seed, row in enumerate(rows)]
    assert generate(model, rows, freely, range(4)) == alone


def test_alone_or_in_any_batch_the_same_is_said() -> None:
    model = lively()
    rows, seeds = prompts(model), [11, 12, 13, 14, 15]
    freely = SamplingConfig(temperature=1.0)
    together = generate(model, rows, freely, seeds)
    alone = [generate(model, [row], freely, [seed])[0] for row, seed in zip(rows, seeds, strict=True)]
    in_pairs = generate(model, rows[::-1], SamplingConfig(temperature=1.0, batch=2), seeds[::-1])[::-1]
    assert together == alone == in_pairs
    assert len({len(codes) for codes in together}) > 2
    assert generate(model, rows, freely, [s + 1 for s in seeds]) != together


@torch.no_grad()
def test_guidance_exaggerates_what_the_text_adds() -> None:
    """Token by token, in a batch that others leave, as two readings of the whole model say."""
    model = lively()
    model.config = replace(model.config, drop=0.1)
    rows, width = prompts(model), model.config.alphabet_size
    greedy = SamplingConfig(top_k=1, window=0, guidance=1.5)
    said = generate(model, rows, greedy, range(5))
    assert said != generate(model, rows, replace(greedy, guidance=0.0), range(5))
    for prompt, codes in zip(rows, said, strict=True):
        least = greedy.least(float(model.expected_tokens(torch.tensor([prompt]))))
        ids, bare = prompt, [i for i in prompt if i >= width]
        assert len(bare) < len(prompt)
        for step, code in enumerate(codes):
            with_text, without = (model(torch.tensor([r]))[0, -1, CONFIG.end :] for r in (ids, bare))
            logits = 2.5 * with_text - 1.5 * without
            logits[0] = -torch.inf if step < least else logits[0]
            assert int(logits.argmax()) == code + 1
            ids, bare = [*ids, code + CONFIG.first_code], [*bare, code + CONFIG.first_code]


def test_a_model_that_never_did_without_text_is_not_guided() -> None:
    model = lively()
    with pytest.raises(LabError, match="never spoke without its text"):
        generate(model, prompts(model), SamplingConfig(guidance=1.0), range(5))
    assert sampling.usual(model) == SamplingConfig()
    model.config = replace(model.config, drop=0.1)
    assert sampling.usual(model).guidance > 0


def test_batches_side_by_side_say_what_they_say_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a thread a core; what goes wrong in one of them is raised, and the count of threads comes back."""
    model, config = lively(), SamplingConfig(temperature=1.0, batch=2)
    rows, seeds = prompts(model) * 3, range(15)
    in_turn = generate(model, rows, config, seeds)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    counts: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    assert generate(model, rows, config, seeds) == in_turn
    assert (counts[0], counts[-1]) == (1, 2)
    asked = len(counts)
    assert (
        generate(model, rows, replace(config, batch=64), seeds) == in_turn
    )  # one batch, shared by two cores
    assert len(counts) > asked

    def broken(*_: object) -> list[list[int]]:
        raise LabError("no")

    monkeypatch.setattr(sampling, "_batch", broken)
    with pytest.raises(LabError, match="no"):
        generate(model, rows, config, seeds)
    assert counts[-1] == 2
    assert not sampling._THREADS.locked(), "whoever comes next need not wait for a traceback to go"


def test_random_numbers_follow_from_seed_and_step_alone() -> None:
    alone = uniforms([7], 50)
    assert (uniforms([3, 7, 2**70 + 1], 80)[1, :50] == alone[0]).all()
    many = uniforms(range(1000), 20)
    assert many.min() >= 0
    assert many.max() < 1
    assert many.mean() == pytest.approx(0.5, abs=0.01)
    assert many.var() == pytest.approx(1 / 12, abs=0.005)
    flat = many.reshape(1000, -1)
    neighbours = [(flat[1:] - 0.5) * (flat[:-1] - 0.5), (flat[:, 1:] - 0.5) * (flat[:, :-1] - 0.5)]
    assert max(abs(product.mean()) * 12 for product in neighbours) < 0.02


def test_top_k_and_nucleus_by_hand() -> None:
    """Of 0.5, 0.3, 0.15, 0.05: the nucleus is taken of what top k left."""
    logits = torch.log(torch.tensor([[0.15, 0.5, 0.05, 0.3]]))

    def left(**how: float) -> dict[int, float]:
        ids, weights = candidates(logits, SamplingConfig(temperature=1.0, **how))  # type: ignore[arg-type]
        return {int(i): round(float(w), 4) for i, w in zip(ids[0], weights[0], strict=True) if w > 0}

    assert left(top_k=0, top_p=1.0) == {1: 0.5, 3: 0.3, 0: 0.15, 2: 0.05}
    assert left(top_k=0, top_p=0.75) == {1: 0.5, 3: 0.3}
    assert left(top_k=0, top_p=0.81) == {1: 0.5, 3: 0.3, 0: 0.15}
    assert left(top_k=2, top_p=1.0) == {1: 0.625, 3: 0.375}
    assert left(top_k=2, top_p=0.6) == {1: 0.625}


def test_a_low_temperature_is_greedy() -> None:
    _, weights = candidates(torch.tensor([[0.0, 1.0, 0.5]]), SamplingConfig(temperature=0.01, top_p=1.0))
    torch.testing.assert_close(weights, torch.tensor([[1.0, 0.0, 0.0]]))


def test_picking_inverts_the_summed_weights() -> None:
    """Weights 2, 0, 6 of 8: the first quarter picks place 0, the rest place 2, nothing place 1."""
    weights = torch.tensor([[2.0, 0.0, 6.0, 0.0]]).expand(5, 4)
    numbers = torch.tensor([0.0, 0.2499, 0.25, 0.5, 1 - 2.0**-32], dtype=torch.float64)
    assert pick(weights, numbers).tolist() == [0, 0, 2, 2, 2]


def test_a_loop_is_drawn_again_from_all_ids() -> None:
    """Id 2 has nine tenths; where it fills its share of the window the second number decides among all."""
    logits = torch.log(torch.tensor([[0.04, 0.04, 0.9, 0.02]])).expand(3, 4)
    past = torch.tensor([[-1, 1, 2, 2], [-1, 2, 2, 2], [2, 2, 2, 2]])
    numbers = torch.tensor([[0.5, 0.05], [0.5, 0.05], [0.5, 0.5]], dtype=torch.float64)
    how = SamplingConfig(temperature=1.0, top_p=0.8, window=4, repetition=0.75)
    assert draw(logits, past, numbers, how).tolist() == [2, 1, 2]


def ending(bias: float) -> SpeechLM:
    """A model that hears nothing and ends with a likelihood set by hand."""
    torch.manual_seed(0)
    model = SpeechLM(CONFIG)
    nn.init.zeros_(model.embed_digits)
    nn.init.zeros_(model.embed_symbols)
    model.embed_symbols.data[:, 0] = 1
    model.embed_codes.data[:, 0] = 1
    model.embed_symbols.data[CONFIG.end, 0] += bias
    model.pace[:] = 2
    return model


@pytest.mark.parametrize(("bias", "length"), [(50.0, 5), (-50.0, 25)])
def test_the_text_bounds_how_long_speech_lasts(bias: float, length: int) -> None:
    """Five symbols of 2 tokens each are expected to make 10: speech lasts from 0.5 to 2.5 times that."""
    model = ending(bias)
    assert [len(c) for c in generate(model, [model.prompt("a" * 5, "vi")], SamplingConfig(), [0])] == [length]


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(LabError, match="temperature=0"):
        SamplingConfig(temperature=0)
    with pytest.raises(LabError, match="temperature=nan"):
        SamplingConfig(temperature=float("nan"))
    with pytest.raises(LabError, match="shortest=3"):
        SamplingConfig(shortest=3)
    model = lively()
    with pytest.raises(LabError, match="5 prompts and 1 seeds"):
        generate(model, prompts(model), SamplingConfig(), [0])


def test_batches_hold_rows_of_like_lengths_and_results_come_in_order() -> None:
    """Five rows by twos: the longest is left over, and comes first."""
    asked: list[list[int]] = []

    def compute(rows: list[int]) -> list[int]:
        asked.append(rows)
        return [10 * i for i in rows]

    assert in_batches([3, 1, 2, 5, 4], 2, compute) == [0, 10, 20, 30, 40]
    assert asked == [[3], [0, 4], [1, 2]]
    assert in_batches([], 2, compute) == []
