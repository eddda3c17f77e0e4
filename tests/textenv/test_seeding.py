"""Seeds, streams and SplitMix64."""

import gymnasium
import numpy as np
import pytest
from environments import single, vector
from hypothesis import given
from hypothesis import strategies as st

from textenv.prompts import ListPrompts
from textenv.seeding import PromptStreams, draw_seed, stream_key

MANY = [f"{i:03}" for i in range(500)]


def prompts_of(env, seed, count=20):
    """The first prompts that a single environment draws."""
    drawn = [env.reset(seed=seed)[1]["prompt"]]
    return drawn + [env.reset()[1]["prompt"] for _ in range(count - 1)]


def test_the_same_seed_gives_the_same_prompts():
    one, other = single(prompts=MANY), single(prompts=MANY)
    assert prompts_of(one, 5) == prompts_of(other, 5) == prompts_of(one, 5)


def test_other_seeds_give_other_prompts():
    env = single(prompts=MANY)
    assert len({tuple(prompts_of(env, seed)) for seed in range(50)}) == 50


def test_without_a_seed_environments_differ():
    drawn = {tuple(prompts_of(single(prompts=MANY), None)) for _ in range(5)}
    assert len(drawn) == 5


def test_a_seed_holds_until_the_next_one():
    env = single(prompts=MANY)
    first = prompts_of(env, 1, 3)
    again = [env.reset(seed=1)[1]["prompt"], env.reset(seed=None)[1]["prompt"]]
    assert again == first[:2]


def test_prompts_do_not_depend_on_the_actions():
    env = vector(2, prompts=MANY, max_new_tokens=2)
    drawn = []
    for actions in ([65, 66], [1, 2]):
        env.reset(seed=0)
        for _ in range(4):
            *_, infos = env.step(actions)
        drawn.append(infos["prompt"].tolist())
    assert drawn[0] == drawn[1]


def test_a_row_of_the_vector_has_its_own_seed():
    envs = vector(3, prompts=MANY)
    singles = [prompts_of(single(prompts=MANY), 7 + row, 4) for row in range(3)]
    drawn = [envs.reset(seed=7)[1]["prompt"]] + [envs.reset()[1]["prompt"] for _ in range(3)]
    assert np.array(drawn).T.tolist() == singles
    assert envs.reset(seed=[9, 8, 7])[1]["prompt"][2] == singles[0][0]
    assert envs.reset(seed=np.array([9, 8, 7]))[1]["prompt"][2] == singles[0][0]


def test_ranks_with_seeds_apart_draw_different_prompts():
    """Rank r with `seed + r * num_envs`: no two rows of any rank share a stream."""
    drawn = []
    for rank in range(4):
        envs = vector(8, prompts=MANY)
        rows = [envs.reset(seed=100 + rank * 8)[1]["prompt"]]
        rows += [envs.reset()[1]["prompt"] for _ in range(9)]
        drawn += np.array(rows).T.tolist()
    assert len({tuple(row) for row in drawn}) == 32


def test_np_random_is_seeded_for_those_who_use_it():
    env, envs = single(), vector(2)
    env.reset(seed=4)
    envs.reset(seed=4)
    assert env.np_random.integers(1000) == envs.np_random.integers(1000)
    assert env.np_random_seed == 4


@pytest.mark.parametrize("seed", [-5, [1, -5]])
def test_gymnasium_refuses_negative_seeds(seed):
    with pytest.raises(gymnasium.error.Error, match="greater or equal to zero, actual value: -5"):
        vector(2).reset(seed=seed)


# ---------------------------------------------------------------- the generator


def test_splitmix64_against_its_published_vectors():
    """State 1234567 as on Rosetta Code, state 0 as Vigna's splitmix64.c gives it."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [draw_seed(1234567, k) for k in range(5)] == published
    assert [draw_seed(0, k) for k in range(3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


@given(key=st.integers(0, 2**64 - 1), draw=st.integers(0, 2**62))
def test_draws_are_64_bit_numbers(key, draw):
    assert 0 <= draw_seed(key, draw) < 2**64


def chi_square(counts):
    """Pearson's statistic against a uniform distribution."""
    expected = counts.sum() / len(counts)
    return ((counts - expected) ** 2 / expected).sum()


@pytest.mark.parametrize("size", [3, 16, 100])
def test_prompts_are_uniform_along_a_stream_and_across_seeds(size):
    """Below the 99.9th percentile of chi-square with size - 1 degrees of freedom."""
    limit = {3: 13.8, 16: 37.7, 100: 148.2}[size]
    source = ListPrompts([str(i) for i in range(size)])

    streams = PromptStreams(source, 1, 1)
    streams.seed(np.array([0]), [3])
    along = [int(streams.draw(np.array([0]))[0].text) for _ in range(5000)]
    streams = PromptStreams(source, 5000, 1)
    streams.seed(np.arange(5000), list(range(5000)))
    across = [int(prompt.text) for prompt in streams.draw(np.arange(5000))]

    for drawn in (along, across):
        assert chi_square(np.bincount(drawn, minlength=size)) < limit


def test_neighbouring_draws_are_independent():
    """Pairs of successive draws fill a 10 x 10 table evenly: 99 degrees of freedom."""
    key = int(stream_key(0))
    drawn = np.array([draw_seed(key, k) % 10 for k in range(20_001)])
    pairs = np.bincount(drawn[:-1] * 10 + drawn[1:], minlength=100)
    assert chi_square(pairs) < 148.2


def test_the_chi_square_test_can_fail():
    assert chi_square(np.array([60, 40, 50])) > 3.9
    assert chi_square(np.bincount(np.arange(5000) % 97, minlength=100)) > 148.2


def test_draws_of_rows_advance_one_by_one():
    streams = PromptStreams(ListPrompts(MANY), 3, 1)
    both, one = np.array([0, 2]), np.array([2])
    streams.draw(both)
    streams.draw(one)
    assert streams.given.tolist() == [1, 0, 2]
    state = streams.state_dict()
    third = streams.draw(both)
    streams.load_state_dict(state)
    assert [p.text for p in streams.draw(both)] == [p.text for p in third]
