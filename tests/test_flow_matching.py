"""Path and solver on fields whose solutions are known."""

import math

import torch

from slmlab.models import flow_matching


def test_path_begins_at_the_source_and_ends_at_the_data() -> None:
    source, data = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    point, velocity = flow_matching.path(source, data, torch.tensor([0.0, 1.0]))
    assert point[0].unique().tolist() == [0.0]
    assert point[1].unique().tolist() == [1.0]
    assert velocity.unique().tolist() == [1.0]


def test_solver_is_exact_on_a_constant_field() -> None:
    states = flow_matching.solve(
        lambda x, t: torch.full_like(x, 2.0), torch.zeros(1, 2, 2), flow_matching.cosine_times(4)
    )
    assert len(states) == 5
    torch.testing.assert_close(states[-1], torch.full((1, 2, 2), 2.0))


def test_solver_approaches_the_exponential() -> None:
    times = torch.linspace(0, 1, 2001)
    last = flow_matching.solve(lambda x, t: x, torch.ones(1, 1, 1), times)[-1]
    assert abs(last.item() - math.e) < 2e-3


def test_cosine_times_are_short_first() -> None:
    gaps = flow_matching.cosine_times(4).diff()
    assert (gaps.diff() > 0).all()
    torch.testing.assert_close(gaps.sum(), torch.tensor(1.0))


def test_guidance_of_strength_zero_is_the_condition_and_one_worked_value() -> None:
    conditional, unconditional = torch.tensor([3.0]), torch.tensor([1.0])
    assert flow_matching.guided(conditional, unconditional, 0.0).item() == 3.0
    assert math.isclose(
        flow_matching.guided(conditional, unconditional, 0.7).item(), 1.7 * 3 - 0.7, rel_tol=1e-6
    )


def test_the_velocity_towards_an_end_arrives_there_in_any_number_of_steps() -> None:
    end, start = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    for steps in (1, 4, 7):
        times = flow_matching.cosine_times(steps)
        states = flow_matching.solve(lambda x, t: flow_matching.towards(end, x, t), start, times)
        torch.testing.assert_close(states[-1], end)
