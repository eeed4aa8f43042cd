"""What people bring ends in a result or in one line, whatever it is: the bench's inputs, fewer of them."""

import pytest
from bench import hostile


@pytest.mark.parametrize("kind", hostile.KINDS)
def test_hostile_inputs_end_in_a_result_or_a_line(kind: str) -> None:
    assert not hostile.faults(kind, 100)
