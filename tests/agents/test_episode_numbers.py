"""What a row samples belongs to its episode: not to other rows, the batch or the process."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from toys import letters_env

from agents.collector import Collector
from policies import TransformerPolicy
from textenv.seeding import keyed_generator

torch.set_num_threads(1)


def make(num_envs, **options):
    return letters_env(num_envs, 6, prompts=["a", "bc", "dab"], max_new_tokens=6, **options)


def played(num_envs, first=0, episodes=40, seed=5, mode=AutoresetMode.SAME_STEP, **options):
    """Answers by prompt stream and number: what each row of the world at large has sampled."""
    envs = make(num_envs, autoreset_mode=mode, **options)
    policy = TransformerPolicy.for_env(make(2), n_layer=1, n_head=2, n_embd=16, seed=1)
    collector = Collector(policy, envs, seed=seed)
    if first:  # another process plays the rows from `first` on
        collector._observations, infos = envs.reset(seed=seed + first)
        collector._moved()
        collector._begin_episodes(collector._rows, infos)
    answers = {}
    seeds = envs._streams.episode_seeds.copy()
    while len(answers) < episodes:
        collector._step()
        for closed in collector._closed:
            row = closed["row"]
            answers[int(seeds[row])] = closed["tokens"][
                : int((closed["tokens"] < 7).sum())
            ].tolist()
        if collector._closed and mode is not AutoresetMode.NEXT_STEP:
            seeds = envs._streams.episode_seeds.copy()
        elif mode is AutoresetMode.NEXT_STEP:
            seeds = np.where(collector._waiting, seeds, envs._streams.episode_seeds)
        collector._closed.clear()
    return answers


@pytest.fixture(autouse=True)
def say_rows(monkeypatch):
    """A closed sequence also says its row."""
    close = Collector._close

    def and_row(self, row, *arguments, **options):
        close(self, row, *arguments, **options)
        self._closed[-1]["row"] = row

    monkeypatch.setattr(Collector, "_close", and_row)


def assert_same_where_both_played(one, other, at_least):
    common = set(one) & set(other)
    assert len(common) >= at_least
    assert {seed: one[seed] for seed in common} == {seed: other[seed] for seed in common}


def test_answers_do_not_depend_on_how_many_rows_there_are():
    assert_same_where_both_played(played(8), played(3), 12)


def test_answers_do_not_depend_on_the_process():
    assert_same_where_both_played(played(8), played(4, first=4), 12)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_answers_do_not_depend_on_the_autoreset_mode(mode):
    assert_same_where_both_played(played(4), played(4, mode=mode), 30)


def test_in_a_group_each_answer_has_its_own_numbers():
    answers = played(8, group_size=4, episodes=64)
    assert len({tuple(answer) for answer in answers.values()}) > 40


def test_other_seeds_give_other_answers():
    one, other = played(4), played(4, seed=50)
    assert not set(one) & set(other)


def test_numbers_belong_to_seed_and_episode():
    numbers = keyed_generator(3, 2**64 - 1).random(4)
    assert (numbers == keyed_generator(3, 2**64 - 1).random(4)).all()
    assert (numbers != keyed_generator(4, 2**64 - 1).random(4)).all()
    assert (numbers != keyed_generator(3, 0).random(4)).all()
    # Philox is a function of key and counter: a later number can be had without those before it.
    later = keyed_generator(3, 2**64 - 1)
    later.bit_generator.advance(2)  # a block of the counter is four numbers
    assert later.random() == keyed_generator(3, 2**64 - 1).random(9)[8]


def test_placed_starts_have_numbers_of_their_own():
    envs = make(4)
    _, first = envs.reset(seed=0, options={"prompt": "a"})
    _, second = envs.reset(options={"prompt": "a"})
    _, drawn = envs.reset(seed=0)
    seeds = np.concatenate([x["episode_seed"] for x in (first, second, drawn)])
    assert len(set(seeds.tolist())) == 12
    _, again = envs.reset(seed=0, options={"prompt": "a"})
    assert (again["episode_seed"] == first["episode_seed"]).all()
