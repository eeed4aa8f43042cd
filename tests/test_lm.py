"""The language model: layout, targets, padding, gradients, and that it learns by heart."""

import torch
from torch.nn import functional

from slmlab.models.lm import LMConfig, SpeechLM, assemble, lm_loss, log_probs, target_log_probs

CONFIG = LMConfig(
    alphabet_size=6,
    languages=("vi", "sw"),
    n_codes=9,
    code_dims=2,
    width=32,
    layers=2,
    heads=2,
    kv_heads=2,
    ffn=48,
)


def model_of(seed: int = 0) -> SpeechLM:
    torch.manual_seed(seed)
    model = SpeechLM(CONFIG)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def test_layout_of_a_worked_example() -> None:
    # ids: 0-5 text, 6 vi, 7 sw, 8 <style>, 9 <speech>, 10 <end>, 11.. codes
    batch = assemble(CONFIG, [[1, 2], [3]], [[0, 8], [4]], ["sw", "vi"], [[5], []])
    assert batch.ids.tolist() == [[7, 8, 16, 1, 2, 9, 11, 19], [6, 3, 9, 15, 0, 0, 0, 0]]
    assert batch.places.tolist() == [5, 6, 7, 8 + 2, 8 + 3]
    assert batch.targets.tolist() == [11, 19, 10, 15, 10]


def test_code_embedding_is_the_sum_of_its_digits() -> None:
    model = model_of()
    code = 1 * 1 + 2 * 3  # digits (1, 2), the lowest first
    expected = model.embed_digits[0, 1] + model.embed_digits[1, 2] + model.embed_codes[code]
    torch.testing.assert_close(model.table()[CONFIG.first_code + code], expected)


def test_a_row_does_not_depend_on_its_batch() -> None:
    model = model_of()
    texts, codes = [[1, 2, 3], [4]], [[0, 1, 2, 3, 4], [5]]
    both = log_probs(model, assemble(CONFIG, texts, codes, ["vi", "vi"], [[], []]))
    alone = log_probs(model, assemble(CONFIG, texts[1:], codes[1:], ["vi"], [[]]))
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-5)


def test_loss_and_gradient_are_cross_entropys() -> None:
    model = model_of()
    batch = assemble(CONFIG, [[1, 2], [3]], [[0, 8], [4]], ["sw", "vi"], [[5], []])
    loss, _ = lm_loss(model, batch)
    loss.backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    table = model.table()
    logits = model.hidden(batch.ids, table).flatten(0, 1)[batch.places] @ table.t()
    expected = functional.cross_entropy(logits, batch.targets)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    assert set(ours) == {name for name, _ in model.named_parameters()}
    for name, p in model.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, atol=1e-5, rtol=1e-4)


def test_the_future_is_not_seen() -> None:
    model = model_of()
    first = target_log_probs(model, assemble(CONFIG, [[1]], [[0, 1, 2]], ["vi"], [[]]))
    second = target_log_probs(model, assemble(CONFIG, [[1]], [[0, 1, 7]], ["vi"], [[]]))
    torch.testing.assert_close(first[:2], second[:2])
    assert not torch.allclose(first[2], second[2])


def test_learns_by_heart() -> None:
    torch.manual_seed(0)
    model = SpeechLM(CONFIG)
    batch = assemble(CONFIG, [[1, 2], [3]], [[0, 8, 3], [4, 4]], ["sw", "vi"], [[], []])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss, _ = lm_loss(model, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1


def test_the_clock_of_a_worked_example() -> None:
    model = model_of()
    model.pace[1] = torch.tensor([0.0, 2.0, 3.0, 0.0, 0.0, 0.0])
    ids = assemble(CONFIG, [[1, 2]], [[0, 8]], ["sw"], [[5]]).ids
    # tag, <style>, z | two symbols of 2 and 3 tokens | <speech> and its tokens, back where the text began
    assert model.positions(ids).tolist() == [[0, 1, 2, 3, 5, 3, 4, 5]]
    assert model.expected_tokens(ids).tolist() == [5]


def test_pace_is_found() -> None:
    torch.manual_seed(0)
    model = model_of()
    pace = [0, 1, 2, 3, 4, 5]
    texts = [torch.randint(1, 6, (8,)).tolist() for _ in range(400)]
    model.fit_pace(texts, [sum(pace[i] for i in text) for text in texts], ["vi"] * 400, ridge=1e-3)
    torch.testing.assert_close(model.pace[0, 1:], torch.tensor([1.0, 2, 3, 4, 5]), atol=1e-2, rtol=1e-2)
