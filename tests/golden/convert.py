"""Carries checkpoints over: `python tests/golden/convert.py FOLDER` rewrites what an older version wrote.

A card once said how many symbols an alphabet has, and the alphabet stood among its facts; now the config of a
network that reads or writes text holds the alphabet itself. Weights stay the same to the bit.
"""

import json
import sys
from pathlib import Path
from typing import Any

from slmlab import files
from slmlab.training import checkpoints


def converted(card: dict[str, Any]) -> dict[str, Any]:
    """A card with the alphabet in its config."""
    facts, config = dict(card["facts"]), dict(card["config"])
    symbols, size = facts.pop("alphabet"), config.pop("alphabet_size")
    assert size == len(symbols) + 1
    return card | {"facts": facts, "config": {"alphabet": {"symbols": symbols}} | config}


def convert(file: Path) -> None:
    """Rewrite one checkpoint, and the card beside it."""
    tensors, card = checkpoints.read(file)
    card = checkpoints.write(file, tensors, converted(card))
    text = json.dumps(files.plain(card), indent=2, ensure_ascii=False)
    files.replace_text(file.with_suffix(".json"), text + "\n")


if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).glob("*.safetensors")):
        if "alphabet_size" in checkpoints.read_header(path)["config"]:
            convert(path)
            print(f"converted: {path}")
