"""Learning rates and batch sizes of given steps, by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from agents.supervised import (
    BatchRamp,
    Constant,
    Cosine,
    Fitting,
    LinearDecay,
    learning_rate_factor,
    pretraining_steps,
)
from agents.supervised.pretraining import _losses, next_token_loss, steps_of_tokens
from agents.supervised.token_stream import random_windows
from policies import TransformerConfig, TransformerPolicy
from textenv.errors import OptionError


def at(schedule, *numbers, steps=100):
    return [schedule(number, steps) for number in numbers]


def test_a_cosine_with_a_floor_and_a_length_of_its_own():
    schedule = Cosine(warmup=10, floor=0.2, length=50)
    half_way = 0.2 + 0.8 * 0.5
    assert at(schedule, 1, 5, 10, 30, 50, 51, 100) == pytest.approx(
        [0.1, 0.5, 1.0, half_way, 0.2, 0.2, 0.2]
    )
    quarter = 0.8 * 0.5 * (1 + math.cos(math.pi / 4)) + 0.2
    assert schedule(20, 100) == pytest.approx(quarter)
    # Neither the warm-up nor the end depends on how long the training is.
    assert at(schedule, 7, 33, steps=1000) == at(schedule, 7, 33)


def test_a_share_of_warm_up_is_a_share_of_the_length():
    assert at(Cosine(0.2), 10, 20) == [0.5, 1.0]
    assert at(Cosine(0.2, length=50), 5, 10) == [0.5, 1.0]
    assert at(Constant(0.2), 10, 20, 90) == [0.5, 1.0, 1.0]


def test_the_default_is_what_it_was():
    for step in range(1, 101):
        assert Cosine()(step, 100) == learning_rate_factor(step / 100, 0.05)
    assert Cosine()(100, 100) == pytest.approx(0.1)


def test_a_floor_of_zero_is_reached_and_kept():
    assert at(Cosine(0.0, floor=0.0, length=40), 40, 99) == pytest.approx([0.0, 0.0])


def test_a_straight_line_and_a_constant():
    line = LinearDecay(warmup=20, floor=0.5, length=60)
    assert at(line, 10, 20, 40, 60, 80) == pytest.approx([0.5, 1.0, 0.75, 0.5, 0.5])
    assert at(Constant(), 1, 100) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        (Cosine(warmup=10), 10),
        (Cosine(warmup=1), 1),
        (Cosine(warmup=100, length=50), 1000),
        (LinearDecay(warmup=10), 10),
        (LinearDecay(warmup=11), 10),
        (Constant(warmup=11), 10),
    ],
)
def test_a_warm_up_as_long_as_the_training_is_refused_at_the_first_step(schedule, steps):
    policy = TransformerPolicy(TransformerConfig(5, 8, 1, 1, 4))
    fitting = Fitting(policy, steps=steps, learning_rate=0.1, schedule=schedule)
    weight = policy.transformer.token_embedding.weight
    with pytest.raises(OptionError, match=rf"{schedule.warmup} steps does not fit into \d+: "):
        fitting.step([weight.square().sum()])


def test_one_step_fewer_of_warm_up_and_a_share_of_any_length():
    assert at(Cosine(warmup=9), 9, 10, steps=10) == pytest.approx([1.0, 0.1])
    assert at(Cosine(), 1, steps=1) == pytest.approx([0.1])
    assert learning_rate_factor(1.0, 1.0) == 1.0


def test_the_optimiser_follows_a_schedule():
    policy = TransformerPolicy(TransformerConfig(5, 8, 1, 1, 4))
    schedule = LinearDecay(warmup=2, floor=0.0)
    fitting = Fitting(policy, steps=4, learning_rate=0.1, schedule=schedule)
    weight = policy.transformer.token_embedding.weight
    rates = [fitting.step([weight.square().sum()]).learning_rate for _ in range(4)]
    assert rates == pytest.approx([0.05, 0.1, 0.05, 0.0])


def test_batches_grow_with_the_tokens_that_were_read():
    ramp = BatchRamp(start=2, tokens=100)
    assert [ramp.windows(tokens, 10) for tokens in (0, 50, 99, 100, 500)] == [2, 6, 9, 10, 10]
    assert [BatchRamp(10, 100).windows(t, 10) for t in (0, 50, 100)] == [10, 10, 10]
    # Windows of 5 tokens: 2 (10 read), 2 (20), 3 (35), 4 (55), 6 (85), 8 (125), then 10 each.
    assert steps_of_tokens(125, 5, 10, ramp) == 6
    assert steps_of_tokens(126, 5, 10, ramp) == 7
    assert steps_of_tokens(101, 5, 10) == 3


def test_a_ramp_is_read_as_it_says_and_goes_on_where_it_was():
    def trained(first, then=None):
        policy = TransformerPolicy(TransformerConfig(7, 8, 1, 1, 4))
        ramp, options = BatchRamp(2, 100), {"window": 5, "batch_size": 4, "accumulate": 2}
        stream = list(range(7)) * 30
        fitting = Fitting(policy, steps=steps_of_tokens(300, 5, 8, ramp), learning_rate=0.01)
        seen = []
        for end in (first, then):
            steps = pretraining_steps(
                policy, np.array(stream), total_tokens=300, ramp=ramp, fitting=fitting, **options
            )
            for step in steps:
                seen.append(step.tokens)
                if step.number == end:
                    break
        return seen, policy

    whole, policy = trained(None)
    # Windows of 5 tokens, 2 to 8 of them, in passes of at most 4.
    assert whole[:6] == [10, 20, 35, 55, 80, 110] and whole[-1] >= 300
    assert all(b - a == 40 for a, b in pairwise(whole[6:]))
    parts, other = trained(3)
    assert parts == whole
    for a, b in zip(policy.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_passes_of_different_sizes_count_by_their_windows():
    """A step of 3 windows in passes of 2 and 1 learns what one pass of 3 would."""
    policy = TransformerPolicy(TransformerConfig(7, 8, 1, 1, 4))
    stream = np.arange(300) % 7
    losses = list(_losses(policy, stream, np.random.default_rng(0), 3, 2, 5))
    generator = np.random.default_rng(0)
    drawn = [random_windows(stream, generator, count, 5) for count in (2, 1)]
    together = next_token_loss(policy, np.concatenate(drawn))
    assert len(losses) == 2
    torch.testing.assert_close(sum(losses) / 2, together)


def test_a_ramp_of_no_windows_is_refused():
    with pytest.raises(ValueError, match="0 windows"):
        BatchRamp(0, 10)
