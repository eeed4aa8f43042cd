"""What counts as reaching a bar."""

import pytest

from slmlab.bench import Row


@pytest.mark.parametrize(
    ("value", "bar", "better", "ok"),
    [
        (9, 10, "lower", True),
        (11, 10, "lower", False),
        (3, 3, "higher", True),
        (2, 3, "higher", False),
        (-0.02, 0.03, "within", True),
        (0.04, 0.03, "within", False),
    ],
)
def test_bar(value: float, bar: float, better: str, ok: bool) -> None:
    assert Row("x", value, "", bar, better, "").ok is ok
