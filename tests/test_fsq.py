"""Finite scalar quantisation, by numbers a person can check."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from slmlab.models import fsq


def test_three_numbers_round_to_the_levels() -> None:
    z = torch.tensor([[-3.0, 0.1, 2.0]])
    assert fsq.quantise(z).tolist() == [[-1.0, 0.0, 1.0]]


def test_code_of_worked_example() -> None:
    # (h + 1) = (0, 1, 2): 0 * 1 + 1 * 3 + 2 * 9 = 21
    assert fsq.digits_to_codes(torch.tensor([-1.0, 0.0, 1.0])).item() == 21


@given(st.integers(1, 8), st.integers(0, 3**8 - 1))
def test_codes_and_digits_are_inverse(dims: int, number: int) -> None:
    code = torch.tensor([number % 3**dims])
    assert torch.equal(fsq.digits_to_codes(fsq.codes_to_digits(code, dims)), code)


def test_gradient_is_that_of_the_bound_alone() -> None:
    z = torch.tensor([0.3, -1.2], requires_grad=True)
    fsq.quantise(z).sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, 1 - torch.tanh(z.detach()) ** 2)
