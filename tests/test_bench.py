"""What counts as reaching a bar."""

import pytest

from slmlab import bench
from slmlab.bench import Row
from slmlab.errors import LabError


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


def test_what_is_asked_for_finds_its_part() -> None:
    parts = ("speak.", "speak.rtf", "probe")
    assert bench._part_of("speak.rtf", parts) == "speak.rtf"
    assert bench._part_of("speak.sw.cer", parts) == "speak."
    assert bench._part_of("probe.f0", parts) == "probe"
    with pytest.raises(LabError, match="'lm'"):
        bench._part_of("lm", parts)
