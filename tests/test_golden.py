"""Whatever is rebuilt, the lab says the same tokens and sounds, judges the same, and knows all its rows."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from golden import record

HERE = Path(__file__).parent / "golden"


def test_tokens_and_waves_are_those_of_the_record():
    kept, said = load_file(HERE / "speech.safetensors"), record.speech()
    assert kept.keys() == said.keys()
    assert {len(kept) for _ in record.LANGUAGES} == {2 * 10 * len(record.LANGUAGES)}
    for name, tensor in kept.items():
        if name.endswith(".tokens"):
            assert said[name].tolist() == tensor.tolist(), name
        else:
            assert said[name].shape == tensor.shape, name
            torch.testing.assert_close(said[name], tensor, rtol=0, atol=1e-5, msg=name)


def test_every_claim_is_judged_as_in_the_record_to_the_last_digit():
    kept = json.loads((HERE / "ledger.json").read_text(encoding="utf-8"))
    assert len(kept) == 47
    assert record.ledger() == kept


def test_every_row_is_there_unchanged_and_known_by_its_key():
    assert record.rows() == json.loads((HERE / "rows.json").read_text(encoding="utf-8"))
    assert record.orphans() == []
