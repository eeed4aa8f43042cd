"""The exercises of notebooks 04 to 07: right answers pass, and each usual mistake is told by its name."""

import math

import numpy as np
import pytest
import torch
from tasks import flow, judging, language_model, vocoder

from slmlab import metrics
from slmlab.models import flow_matching


def keep_angle(spectrum, magnitude):
    return torch.polar(magnitude, spectrum.angle())


def part(spoken, recorded):
    far = (spoken - recorded).pow(2).sum().sqrt() / recorded.pow(2).sum().sqrt()
    return far + (spoken / recorded).log().abs().mean()


def swing(f0):
    phase, found = 0.0, []
    for hertz in f0:
        phase += hertz / 16000
        found.append(phase - math.floor(phase))
    return found


def walk(velocity, x, times):
    for i in range(len(times) - 1):
        x = x + (times[i + 1] - times[i]) * velocity(x, times[i])
    return x


def table(text, heard):
    wanted, found = text.split(), heard.split()
    table = np.zeros((len(wanted) + 1, len(found) + 1))
    table[:, 0], table[0] = np.arange(len(wanted) + 1), np.arange(len(found) + 1)
    for i, a in enumerate(wanted):
        for j, b in enumerate(found):
            table[i + 1, j + 1] = min(table[i, j + 1] + 1, table[i + 1, j] + 1, table[i, j] + (a != b))
    return table


def words(text, heard):
    return table(text, heard)[-1, -1] / len(text.split())


def cheapest(cost):
    total = np.full((len(cost) + 1, len(cost[0]) + 1), np.inf)
    total[0, 0] = 0
    for i in range(len(cost)):
        for j in range(len(cost[0])):
            total[i + 1, j + 1] = cost[i][j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return total[-1, -1]


def even_steps(velocity, x, times):
    for start in times[:-1]:
        x = x + velocity(x, start) * (times[-1] - times[0]) / (len(times) - 1)
    return x


def end_for_length(velocity, x, times):
    for i in range(len(times) - 1):
        x = x + times[i + 1] * velocity(x, times[i])
    return x


def no_step_width(velocity, x, times):
    for time in times:
        x = x + velocity(x, time)
    return x


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        (language_model.sharpen, lambda x, t: (x / t).exp() / (x / t).exp().sum()),
        (
            language_model.draw_again,
            lambda past, new, share: past.count(new) / len(past) >= share,
        ),
        (language_model.lesson_places, lambda head, codes: [head - 1 + i for i in range(codes + 1)]),
        (flow.walk, walk),
        (flow.lesson, lambda s, d, t: (s + t * (d - s), d - s)),
        (flow.guide, lambda told, untold, w: told + w * (told - untold)),
        (vocoder.keep_angle, keep_angle),
        (vocoder.part, part),
        (vocoder.swing, swing),
        (judging.added, lambda generated, recorded: (generated > recorded) * (generated - recorded)),
        (judging.word_errors, words),
        (judging.cheapest, cheapest),
    ],
)
def test_a_right_answer_passes(exercise, answer):
    verdict = exercise.check(answer)
    assert verdict.right, verdict.fault
    assert "def " in exercise.shown_package()


@pytest.mark.parametrize(
    ("exercise", "answer", "said"),
    [
        (language_model.sharpen, lambda x, t: (x * t).softmax(-1), "Divide"),
        (language_model.draw_again, lambda past, new, share: past.count(new) > share * len(past), "use >="),
        (language_model.lesson_places, lambda head, codes: list(range(head, head + codes)), "no end"),
        (flow.walk, lambda v, x, t: x + v(x, t[0]), "one step over the whole time"),
        (flow.walk, no_step_width, "end - start"),
        (flow.walk, end_for_length, "not end"),
        (flow.walk, even_steps, "of one length"),
        (flow.lesson, lambda s, d, t: (t * s + (1 - t) * d, d - s), "backwards"),
        (flow.guide, lambda told, untold, w: untold + w * (told - untold), "other convention"),
        (flow.lesson, lambda s, d, t: (1 - t) * s + t * d, "That is the point"),
        (flow.lesson, lambda s, d, t: d - s, "That is the velocity"),
        (flow.lesson, lambda s, d, t: (d - s, (1 - t) * s + t * d), "the point first"),
        (flow.walk, flow_matching.solve, "the last one alone"),
        (language_model.draw_again, lambda past, new, share: past.count(new) >= 10 * share, "need not be 10"),
        (vocoder.swing, lambda f0: f0 / 16000 % 1, "what each sample adds"),
        (judging.added, lambda generated, recorded: abs(generated - recorded), "then it adds 0"),
        (vocoder.keep_angle, lambda spectrum, magnitude: spectrum * magnitude, "old lengths"),
        (vocoder.keep_angle, lambda s, m: torch.polar(m, np.angle(s)), "spectrum.angle()"),
        (vocoder.part, lambda y, x: (y - x).norm() / x.norm(), "logarithms is missing"),
        (vocoder.part, lambda y, x: part(y, x) / 2, "added, not averaged"),
        (vocoder.part, lambda y, x: ((y - x).norm() / x.norm(), (y / x).log().abs().mean()), "their sum"),
        (vocoder.swing, lambda f0: f0 * np.arange(len(f0)) / 16000 % 1, "whole past"),
        (judging.added, lambda generated, recorded: generated - recorded, "then 0"),
        (judging.word_errors, lambda text, heard: metrics.cer(text, heard), "characters"),
        (judging.word_errors, lambda text, heard: table(text, heard), "whole table"),
        (judging.word_errors, lambda text, heard: table(text, heard) / len(text.split()), "last cell alone"),
        (judging.word_errors, lambda text, heard: min(1, metrics.wer(text, heard)), "no limit of 1"),
        (judging.word_errors, judging._by_blocks, "fewest edits"),
        (judging.cheapest, judging._greedy, "fill the whole table"),
        (judging.cheapest, lambda cost: cheapest(cost) - cost[-1, -1], "last cell"),
    ],
)
def test_a_usual_mistake_is_named(exercise, answer, said):
    assert said in exercise.check(answer).fault


def test_what_is_asked_for_is_what_the_package_does():
    source, data = torch.randn(2, 3), torch.randn(2, 3)
    point, velocity = flow_matching.path(source[None], data[None], torch.tensor([0.3]))
    torch.testing.assert_close(flow.lesson.solution(source, data, 0.3), (point[0], velocity[0]))


def test_one_euler_step_of_the_package_is_the_walk_that_is_asked_for():
    times = torch.tensor([0.0, 0.25, 1.0])
    found = flow_matching.solve(lambda x, t: x, torch.ones(1), times)[-1]
    assert float(found) == pytest.approx(1.25 * 1.75)
