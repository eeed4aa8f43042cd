"""Sampling: exact draws, bounds, and the same utterance alone or in any batch."""

import pytest
import torch

from slmlab.errors import LabError
from slmlab.models.lm import LMConfig, SpeechLM, prompt
from slmlab.sampling import SamplingConfig, candidates, generate, pick, uniforms

CONFIG = LMConfig(
    alphabet_size=6,
    languages=("vi", "sw"),
    n_codes=9,
    code_dims=2,
    width=32,
    layers=2,
    heads=2,
    kv_heads=1,
    ffn=48,
)


def model_of() -> SpeechLM:
    torch.manual_seed(0)
    model = SpeechLM(CONFIG)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


def test_prompt_of_a_worked_example() -> None:
    assert prompt(CONFIG, [1, 2], "sw", [3]) == [7, 8, 14, 1, 2, 9]
    with pytest.raises(LabError, match="'xx'"):
        prompt(CONFIG, [1], "xx")


def test_candidates_and_pick_of_a_worked_example() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    ids, weights = candidates(logits, SamplingConfig(temperature=1.0, top_p=0.5, top_k=3))
    assert ids.tolist() == [[0, 1, 2]]
    # 0.5 / 0.95 of the top three passes one half at once: the nucleus is the first alone
    torch.testing.assert_close(weights, torch.tensor([[0.5 / 0.95, 0.0, 0.0]]))
    quarters = torch.tensor([[1.0, 0.0, 3.0]])
    for uniform, expected in ((0.0, 0), (0.24, 0), (0.26, 2), (0.9999999, 2)):
        assert pick(quarters, torch.tensor([uniform])).item() == expected


def test_random_numbers_belong_to_the_utterance() -> None:
    together, alone = uniforms([3, 4], 50), uniforms([4], 20)
    assert (together[1, :20] == alone[0]).all()
    assert 0 <= together.min() < 0.05 < 0.95 < together.max() < 1
    assert abs(together.mean() - 0.5) < 0.1


def test_an_utterance_alone_equals_itself_in_a_batch() -> None:
    model, sampling = model_of(), SamplingConfig(temperature=1.0, top_p=1.0, top_k=0)
    prompts = [
        prompt(CONFIG, [1, 2, 3, 4, 5], "vi"),
        prompt(CONFIG, [5], "sw", [1, 2]),
        prompt(CONFIG, [2, 2], "vi"),
    ]
    together = generate(model, prompts, sampling, [7, 8, 9])
    for row, seed, said in zip(prompts, (7, 8, 9), together, strict=True):
        assert generate(model, [row], sampling, [seed]) == [said]
    assert len({tuple(said) for said in together}) == 3


def test_length_is_bounded_by_the_text() -> None:
    model, sampling = model_of(), SamplingConfig(shortest=2.0, longest=3.0)
    model.pace.fill_(1.0)
    for seed in range(5):
        (said,) = generate(model, [prompt(CONFIG, [1, 2, 3, 4], "vi")], sampling, [seed])
        assert 8 <= len(said) <= 12
        assert all(0 <= code < 9 for code in said)


def test_a_loop_is_broken() -> None:
    model = model_of()
    model.pace.fill_(1.0)
    text = prompt(CONFIG, [1, 2, 3, 4, 5], "vi")
    always = SamplingConfig(top_k=1, repetition=1.0, window=3, shortest=8.0, longest=8.0)
    watched = SamplingConfig(top_k=1, repetition=0.3, window=3, shortest=8.0, longest=8.0)
    (stuck,) = generate(model, [text], always, [0])
    (freed,) = generate(model, [text], watched, [0])
    assert len(stuck) == len(freed) == 40

    def seen_lately(said: list[int]) -> float:
        return sum(said[i] in said[i - 3 : i] for i in range(3, len(said))) / (len(said) - 3)

    assert seen_lately(freed) < seen_lately(stuck)


def test_unusable_settings() -> None:
    with pytest.raises(LabError, match="temperature"):
        SamplingConfig(temperature=0.0)
