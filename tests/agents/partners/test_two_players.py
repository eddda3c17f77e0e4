"""A policy in the other seat: what each seat reads, by ids, and who is paid what."""

import copy
import json
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from letters import Letters
from small_games import Nim, Pennies, best_in_nim, for_seat

from agents import PPO, Collector, Learner
from agents.evaluation import evaluate
from agents.partners import Pool, TwoPlayers, exploitability, turn_probabilities
from policies import Policy, Step, TransformerConfig, TransformerPolicy
from textenv import Prompt, TextEnv, TextVectorEnv, Turn
from textenv.errors import (
    PromptTooLongError,
    ReplayError,
    VocabularyMismatchError,
    WorldError,
)
from textenv.frames import ChatTemplate
from textenv.starts import Start
from textenv.testing import check_text_env
from textenv.testing.games import GameTree
from textenv.tokenizers import CharacterTokenizer
from textenv.worlds import Outcome, Play, TwoPlayerGame

torch.set_num_threads(1)
MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]
NIM = {
    "tokenizer": CharacterTokenizer("0123456789"),
    "prompts": ["9", "7", "5"],
    "max_prompt_tokens": 3,
    "max_turn_tokens": 1,
    "max_new_tokens": 20,
    "allowed_tokens": [1, 2, 3],
    "stop_tokens": [],
}


def strong(policy, seed=0):
    """A policy whose choices depend on all that it reads."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return policy


def policy_for(envs, seed=0):
    return strong(TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16), seed)


def nim(num_envs=4, seat=None, **options):
    """An environment of Nim and its world; the partner is still missing."""
    players = TwoPlayers(Nim, seat=seat)
    return TextVectorEnv(num_envs, world=players, **NIM | options), players


class BestInNim(Policy):
    """Leaves a multiple of 4 where it can."""

    def __init__(self):
        super().__init__(11, 64, 1)

    def forward(self, rows):
        raise AssertionError("it knows the theory")

    def act(self, observations, cache=None, **options):
        last = observations[np.arange(len(observations)), (observations < 11).sum(1) - 1]
        actions = np.array([best_in_nim(left) for left in last])
        return Step(actions, np.zeros(len(last), np.float32), np.zeros(len(last), np.float32))


# ---------------------------------------------------------------- by hand


def shown(envs, row):
    return "".join("." if i == 10 else str(i) for i in row[row != envs.pad_token])


def test_a_game_by_hand_from_the_first_seat():
    envs, players = nim(1, seat=0, prompts=["9"])
    players.partner = BestInNim()
    observations, infos = envs.reset(seed=0)
    assert shown(envs, observations[0]) == "9" and infos["prompt"].tolist() == ["9"]
    # 9: 1 is taken and 8 left; the partner can only take 1 of it, and says so.
    observations, rewards, *_, infos = envs.step([1])
    assert shown(envs, observations[0]) == "91817" and rewards[0] == 0
    assert infos["reply"][0] == "817" and infos["reply_tokens"][0].tolist() == [8, 1, 7]
    assert infos["reply_info"][0] == {"seat": 0}
    observations, rewards, terminated, truncated, infos = envs.step([1])
    assert shown(envs, observations[0])[:-1] == "9181716" + "2" and rewards[0] == 0
    observations, rewards, terminated, truncated, infos = envs.step([1])
    assert (rewards[0], terminated[0], truncated[0]) == (-1, True, False)
    assert infos["final_info"]["finish_reason"][0] == "world"


def test_a_game_by_hand_from_the_second_seat():
    envs, players = nim(1, seat=1, prompts=["9"])
    players.partner = BestInNim()
    observations, infos = envs.reset(seed=0)
    assert shown(envs, observations[0]) == "918" and infos["prompt"].tolist() == ["918"]
    observations, rewards, *_ = envs.step([3])
    assert shown(envs, observations[0]) == "9183514"
    observations, rewards, *_ = envs.step([9])  # nobody may take 9
    assert rewards[0] == -1


def test_seats_that_move_at_once():
    options = {"tokenizer": CharacterTokenizer("ht=#"), "max_prompt_tokens": 1}
    limits = {"max_turn_tokens": 1, "max_new_tokens": 3, "allowed_tokens": [0, 1]}
    for seat, opening in ((0, "="), (1, "#")):
        players = TwoPlayers(Pennies, seat=seat)
        envs = TextVectorEnv(64, world=players, stop_tokens=[], **options, **limits)
        players.partner = policy_for(envs)
        read = []
        players.partner.act = recorder(players.partner, read)
        _, infos = envs.reset(seed=0)
        assert set(infos["prompt"].tolist()) == {opening}  # not what the other seat has shown
        said = np.arange(64) % 2
        _, rewards, terminated, _, _ = envs.step(said)
        assert terminated.all() and set(rewards) <= {1, -0.5, 0.25, -1, 0.5, -0.25}
        # What the partner read is its own opening, whatever was said.
        assert {tuple(row) for row in np.concatenate(read)[:, :2].tolist()} == {(3 - seat, 5)}


def recorder(policy, read):
    act = policy.act

    def recording(observations, cache=None, **options):
        read.append(np.array(observations))
        return act(observations, cache, **options)

    return recording


# ---------------------------------------------------------------- ids and views


class Chat(TwoPlayerGame):
    """Both say anything, six times; each is told something of its own."""

    def begin(self, record, rng):
        self.count = 0
        return "ab", "ba"

    def move(self, seat, text, rng):
        self.count += 1
        told = ("c" * int(rng.integers(3)), "d" * int(rng.integers(3)))
        rewards = for_seat(seat, len(text) / 8)
        if self.count == 3 and text.startswith("a"):  # moves again
            return Outcome(told, rewards, to_move=seat, hidden=True)
        return Outcome(told, rewards, over=self.count == 6, hidden=self.count == 2)


CHAT = {
    "tokenizer": Letters(4, stop=True),
    "max_prompt_tokens": 8,
    "max_turn_tokens": 3,
    "max_new_tokens": 32,
}


def chat(num_envs=4, **options):
    players = TwoPlayers(Chat)
    envs = TextVectorEnv(num_envs, world=players, **CHAT | options)
    players.partner = policy_for(envs)
    return envs, players


def listened(players):
    """What is in front of each last turn, the turn, and what the seat gets for the game."""
    heard, reply = [], players.reply

    def listening(rows, turns, rngs):
        before = [
            (list(players._tables[row].view), turn) for row, turn in zip(rows, turns, strict=True)
        ]
        replies = reply(rows, turns, rngs)
        for row, (view, turn), given in zip(rows, before, replies, strict=True):
            table = players._tables[row]
            heard.append((view, turn, given, table.play.rewards[table.seat]))
        return replies

    players.reply = listening
    return heard


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("limits", [{}, {"min_new_tokens": 2, "forbidden_tokens": [2]}])
def test_random_games(mode, limits):
    """What a seat reads, who is paid, and what the partner may say, in every mode."""
    envs, players = chat(autoreset_mode=mode, **limits)
    heard, said, original = listened(players), [], Play.said

    def noted(play, tokens, rng):
        said.append(list(map(int, tokens)))
        original(play, tokens, rng)

    learner = policy_for(envs, seed=1)
    collector = Collector(learner, envs, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Play, "said", noted)
        rollout = collector.collect_episodes(24)
    games = {
        tuple(view + turn.tokens.tolist()): (turn, score)
        for view, turn, reply, score in heard
        if reply.terminated
    }
    assert len(games) >= 24
    for row in range(len(rollout)):
        text = rollout.tokens[row]
        turn, score = games[tuple(text[text != envs.pad_token].tolist())]
        assert rollout.scores[row].item() == pytest.approx(score)
        assert rollout.records[row]["seat"] in (0, 1)
        own = [entry for entry in turn.history if isinstance(entry, Turn)] + [turn]
        ids = np.concatenate([entry.tokens for entry in own])
        assert text[rollout.mask[row]].tolist() == ids.tolist()  # and nothing of the partner's
    assert len(said) > 2 * 24
    for tokens in said:
        stops = tokens[-1] == 4
        assert 4 not in tokens[:-1] and (stops or len(tokens) == 3)
        if limits:
            assert 2 not in tokens and (len(tokens) > 2 or not stops)
    outputs = learner.outputs(rollout.tokens, rollout.mask, action_masks=rollout.action_masks)
    found, kept = (x[rollout.mask] for x in (outputs.logprobs, rollout.logprobs))
    torch.testing.assert_close(found, kept, atol=1e-4, rtol=0)


def played(envs, players, learner, rows=3, steps=40):
    """Observations of the first rows, the learner's numbers being those of row and step."""
    numbers = np.random.default_rng(5).random((steps, 8))
    observations, _ = envs.reset(seed=3)
    texts = [observations[:rows]]
    for step in range(steps):
        actions = learner.act(observations, uniforms=numbers[step, : envs.num_envs]).actions
        observations, *_ = envs.step(actions)
        texts.append(observations[:rows])
    return np.stack(texts)


def test_a_row_knows_nothing_of_the_others():
    few, many = (chat(num_envs) for num_envs in (3, 8))
    learner = policy_for(few[0], seed=1)
    np.testing.assert_array_equal(played(*few, learner), played(*many, learner))


def test_cached_partners_equal_uncached_ones():
    envs, players = chat(8)
    learner = policy_for(envs, seed=1)
    expected = played(envs, players, learner, rows=8)
    act, encoded = players.partner.act, []

    def uncached(observations, cache=None, **options):
        encoded.append(len(observations))
        return act(observations, None, **options)

    players.partner.act = uncached
    np.testing.assert_array_equal(played(envs, players, learner, rows=8), expected)
    assert min(encoded) < 8  # of the rows that wait alone


def test_the_present_weights_play():
    """A partner that is the learner's policy knows its new weights at once."""
    envs, players = nim(8)
    policy = players.partner = policy_for(envs)
    learner = Learner(policy, envs, PPO(n_epochs=1), n_steps=8, learning_rate=0.1)
    learner.update()
    read = []
    act = policy.act

    def checking(observations, cache=None, **options):
        step, alone = (act(observations, c, **options) for c in (cache, None))
        assert np.abs(step.logprobs - alone.logprobs).max() < 1e-5
        read.append(len(observations))
        return step

    policy.act = checking
    learner.update()
    assert len(read) > 8


# ---------------------------------------------------------------- seats, groups, payments


def test_seats_are_drawn_and_a_group_shares_all():
    envs, players = nim(64, group_size=8)
    players.partner = Pool(policy_for(envs))
    players.partner.add()
    _, infos = envs.reset(seed=0)
    tables = [players._tables[row] for row in range(64)]
    for group in np.arange(64).reshape(8, 8):
        assert (
            len({(infos["prompt"][row], tables[row].seat, tables[row].number) for row in group})
            == 1
        )
    assert {(table.seat, table.number) for table in tables} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    envs, players = nim(512)
    players.partner = BestInNim()
    envs.reset(seed=0)
    seats = [players._tables[row].seat for row in range(512)]
    assert 200 < sum(seats) < 312


class UntilNought(TwoPlayerGame):
    """Goes on until seat 1 says 0."""

    def move(self, seat, text, rng):
        return Outcome(over=seat == 1 and text == "0")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("saved", [False, True])
def test_a_group_begins_with_one_first_move_while_weights_change(mode, saved):
    def made(policy=None):
        players = TwoPlayers(UntilNought, seat=1)
        options = NIM | {"prompts": ["9"], "allowed_tokens": range(10), "max_new_tokens": 99}
        envs = TextVectorEnv(2, world=players, group_size=2, autoreset_mode=mode, **options)
        players.partner = policy_for(envs) if policy is None else policy
        return envs, players.partner

    def next_opening(envs, row):
        """End one row's episode; what its next one begins with."""
        *_, terminated, _, infos = envs.step([5 * (row != 0), 5 * (row != 1)])
        assert terminated.tolist() == [row == 0, row == 1]
        if mode is AutoresetMode.NEXT_STEP:
            *_, infos = envs.step([5, 5])
        if mode is AutoresetMode.DISABLED:
            _, infos = envs.reset(options={"reset_mask": np.arange(2) == row})
        return infos["prompt"][row]

    envs, policy = made()
    envs.reset(seed=0)
    openings = []
    for draw in range(12):
        row = draw % 2
        first = next_opening(envs, row)
        strong(policy, draw)
        if saved:
            state = envs.state_dict()
            envs, _ = made(policy)
            envs.load_state_dict(state)
        assert next_opening(envs, 1 - row) == first
        assert envs._streams.groups.tolist() == [draw + 1] * 2
        openings.append(first)
    assert len(set(openings)) > 1


def test_the_record_tells_the_seat():
    told = []

    def reward(episodes):
        told.extend((e.columns["seat"], e.columns["name"], len(e.prompt)) for e in episodes)
        return [0.0] * len(episodes)

    envs, players = nim(8, prompts=[{"prompt": "9", "name": "nine"}], reward=reward)
    players.partner = BestInNim()
    envs.reset(seed=0)
    for _ in range(6):
        envs.step(np.full(8, 1))
    assert set(told) == {(0, "nine", 1), (1, "nine", 3)}


class Loses(BestInNim):
    """Takes what nobody may take."""

    def act(self, observations, cache=None, **options):
        count = len(observations)
        return Step(np.full(count, 9), np.zeros(count, np.float32), np.zeros(count, np.float32))


def test_a_game_that_the_partner_ends_at_once():
    envs, players = nim(1, seat=1)
    players.partner = Loses()
    _, infos = envs.reset(seed=0)
    assert infos["prompt"][0][1:] == "9"
    _, rewards, terminated, *_ = envs.step([1])
    assert (rewards[0], terminated[0]) == (1, True)


def test_a_partner_without_room_ends_the_game():
    """Only the partner reads what is long; the environment cannot know that it has no room."""

    class Long(TwoPlayerGame):
        def move(self, seat, text, rng):
            return Outcome(("", "a" * 12))

    players = TwoPlayers(Long, seat=0)
    envs = TextVectorEnv(1, world=players, prompts=["a"], **CHAT | {"max_turn_tokens": 1})
    players.partner = policy_for(envs)
    envs.reset(seed=0)
    ends = [envs.step([0])[3][0] for _ in range(2)]
    assert ends == [False, True]


def test_a_spent_text_ends_as_the_environment_says():
    envs, _ = chat(8, max_new_tokens=6)
    learner = policy_for(envs, seed=1)
    rollout = Collector(learner, envs, seed=0).collect_episodes(16)
    assert (rollout.endings["by_budget"] == 1).any() and rollout.terminated.all()


# ---------------------------------------------------------------- mistakes


def test_mistakes_are_named():
    envs, players = nim()
    with pytest.raises(WorldError, match=r"nobody plays the other seat: set partner = policy"):
        envs.reset(seed=0)
    with pytest.raises(WorldError, match="this world is another environment's already"):
        TextVectorEnv(4, world=players, **NIM)
    with pytest.raises(WorldError, match="no environment plays this game"):
        TwoPlayers(Nim).rules.rows  # noqa: B018
    with pytest.raises(ValueError, match="seat is 2; it must be 0, 1, or None"):
        TwoPlayers(Nim, seat=2)
    with pytest.raises(ValueError, match="temperature is 0; it must be positive"):
        TwoPlayers(Nim, temperature=0)
    with pytest.raises(ValueError, match="present is 2; a share is within"):
        Pool(policy_for(envs), present=2)
    players.partner = TransformerPolicy(TransformerConfig(9, 64, n_layer=1, n_head=1, n_embd=4))
    with pytest.raises(VocabularyMismatchError, match="the partner has 9 tokens"):
        envs.reset(seed=0)
    players.partner = TransformerPolicy(TransformerConfig(11, 9, n_layer=1, n_head=1, n_embd=4))
    with pytest.raises(WorldError, match="context is 9, and its text may have 23 tokens"):
        envs.reset(seed=0)
    small, players = nim(seat=1, max_prompt_tokens=2)
    players.partner = policy_for(small)
    with pytest.raises(PromptTooLongError, match="have 3 tokens together, max_prompt_tokens is 2"):
        small.reset(seed=0)


def test_a_game_that_fails_ends_its_row_alone():
    class Fails(Nim):
        def move(self, seat, text, rng):
            if text == "3":
                raise KeyError("three")
            return super().move(seat, text, rng)

    players = TwoPlayers(Fails, seat=0)
    envs = TextVectorEnv(2, world=players, **NIM)
    players.partner = BestInNim()
    envs.reset(seed=0, options={"prompt": "8"})
    _, _, terminated, truncated, infos = envs.step([3, 2])
    assert truncated.tolist() == [True, False] and not terminated.any()
    assert "Fails.move raised KeyError: 'three'" in infos["final_info"]["world_error"][0]
    envs.reset(seed=0, options={"prompt": "8"})
    _, _, _, truncated, _ = envs.step([1, 2])  # the partner takes three of seven
    assert truncated.tolist() == [True, False]


def test_a_changed_partner_plays_the_episodes_that_begin():
    envs, players = nim(8, seat=0)
    policy = policy_for(envs)
    players.partner = Pool(policy)
    players.partner.add()
    envs.reset(seed=0)
    before = {table.policy for table in players._tables.values()}
    assert before == set(players.partner.snapshots)
    players.partner = best = BestInNim()
    envs.step([1] * 4 + [9] * 4)
    assert {players._tables[row].policy for row in range(4)} == before
    assert {players._tables[row].policy for row in range(4, 8)} == {best}


def test_the_spec_of_an_environment_shares_its_players():
    players = TwoPlayers(Nim)
    envs = gym.make_vec("textenv/Generate-v0", num_envs=2, world=players, **NIM)
    players.partner = policy_for(envs)
    envs.reset(seed=0)
    assert copy.deepcopy(envs.unwrapped.spec).kwargs["world"] is players


def test_a_frame_is_refused():
    with pytest.raises(WorldError, match="without frame=, or let the game's words say who speaks"):
        chat(frame=ChatTemplate(), max_prompt_tokens=32)


def test_stop_strings_end_the_turns_of_both_seats():
    limits = {"max_turn_tokens": 6, "max_new_tokens": 60, "max_prompt_tokens": 12}
    strings = ["ab", "ca", "dd"]
    envs, players = chat(8, stop_strings=strings, min_new_tokens=2, **limits)
    heard, said, original = listened(players), [], Play.said

    def noted(play, tokens, rng):
        said.append("".join("abcd."[token] for token in tokens))
        original(play, tokens, rng)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Play, "said", noted)
        Collector(policy_for(envs, seed=1), envs, seed=0).collect_episodes(24)
    assert len(said) > 1.5 * len(heard)  # the partner's turns too
    for text in said:
        assert text.endswith((".", *strings)) or len(text) == 6
        assert not set(strings) & {text[i : i + 2] for i in range(len(text) - 2)}
    assert sum(text.endswith(tuple(strings)) for text in said) > 20


def test_the_check_of_environments():
    def make(**options):
        return chat(**{"num_envs": 2} | options)[0]

    def one(**options):
        players = TwoPlayers(Chat)
        env = TextEnv(world=players, **CHAT | options)
        players.partner = policy_for(env)
        return env

    skipped = {"text_is_the_answer", "the_budget_counts_chosen_tokens"}
    assert set(check_text_env(make)) >= skipped
    assert set(check_text_env(one)) >= skipped


# ---------------------------------------------------------------- exploitability


def test_probabilities_are_those_of_play():
    envs, players = nim()
    policy = players.partner = policy_for(envs)
    tree = GameTree(Nim, players.rules, [{"prompt": "5"}])
    found = turn_probabilities(policy, players, tree)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    row = tree.views.index((5,))
    observations = np.full((1, 23), 11)
    observations[0, 0] = 5
    masks = envs.action_masks()[:1]
    for number, (token,) in enumerate(tree.turns):
        cumulative = found[row, :number].sum()
        for inside in (1e-4, found[row, number] - 1e-4):
            step = policy.act(
                observations, action_masks=masks, uniforms=np.array([cumulative + inside])
            )
            assert step.actions[0] == token
            assert step.logprobs[0] == pytest.approx(np.log(found[row, number]), abs=1e-4)


def test_a_policy_of_several_tokens_a_turn():
    players = TwoPlayers(Pennies)
    envs = TextVectorEnv(
        2,
        world=players,
        tokenizer=Letters(2, stop=True),
        max_prompt_tokens=2,
        max_new_tokens=6,
        max_turn_tokens=2,
        min_new_tokens=1,
        prompts=["a"],
    )

    class Lengths(TwoPlayerGame):
        """Pays the difference of the lengths."""

        def begin(self, record, rng):
            self.first = None

        def move(self, seat, text, rng):
            if seat == 0:
                self.first = len(text)
                return Outcome(hidden=True)
            return Outcome(rewards=for_seat(0, float(self.first - len(text))), over=True)

    players.game = Lengths
    policy = policy_for(envs)
    tree = GameTree(Lengths, players.rules, [{"prompt": "a"}])
    assert tree.turns == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    found = turn_probabilities(policy, players, tree)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    short = found[:, [2, 5]].sum(1)  # a letter and the stop token
    # The best say two letters: against them a seat loses as often as it says one.
    assert exploitability(policy, players, [{"prompt": "a"}]) == pytest.approx(
        short.mean(), abs=1e-5
    )


@pytest.mark.parametrize("seat", [0, 1])
def test_a_policy_is_evaluated_by_seat(seat):
    """Of 8 the first seat cannot win, of 7 the second: the best player never loses there."""
    envs, players = nim(4, seat=seat)
    players.partner = BestInNim()
    found = evaluate(policy_for(envs), envs, [Prompt("87"[seat])] * 10)
    assert found.scores.tolist() == [-1.0] * 10


def test_a_game_is_played_on_from_any_turn():
    """With its state, whoever the partner is by now; without, it is replayed on the same turns."""
    envs, players = chat(4)
    learner = policy_for(envs, seed=1)
    observations, _ = envs.reset(seed=0)
    while envs._conversations.numbers[2] < 2:
        observations, *_ = envs.step(learner.act(observations).actions)
    row = observations[2].copy()
    starts = [envs.start_of(2, save_world=save) for save in (True, False)]
    assert starts[0].world is not None and starts[1].world is None
    starts = [Start.from_json(json.loads(json.dumps(start.to_json()))) for start in starts]
    own = players._tables[2]
    for start in starts:
        other = envs.playing([replace(start, episode_seed=5)])
        again, _ = other.reset()
        np.testing.assert_array_equal(again[0], row)
        (table,) = other._conversations.world._tables.values()
        assert table.play.state_dict() == own.play.state_dict()
        assert (table.seat, table.paid, table.read) == (own.seat, own.paid, own.read)
        for _ in range(8):
            again, *_ = other.step(learner.act(again, deterministic=True).actions)
    players.partner = strong(policy_for(envs, seed=7), seed=7)
    with pytest.raises(ReplayError, match="TwoPlayers replied differently to turn"):
        envs.playing([replace(starts[1], episode_seed=5)]).reset()
    envs.playing([replace(starts[0], episode_seed=5)]).reset()


# ---------------------------------------------------------------- play on from anywhere


def test_a_game_is_played_on_with_the_same_weights_and_refused_with_others():
    envs, players = nim(group_size=2)
    players.partner = policy = policy_for(envs)
    collector = Collector(policy, envs, seed=0)
    rollout = collector.collect_episodes(8)
    places = rollout.mask.nonzero().tolist()
    starts = [
        replace(rollout.start(s, p), episode_seed=rollout.starts[s].episode_seed) for s, p in places
    ]
    again = collector.collect_from(starts)
    for number, (s, p) in enumerate(places):
        end = int(rollout.mask[s].nonzero()[-1]) + 1
        assert (again.tokens[number, :end] == rollout.tokens[s, :end]).all()
        assert (again.rewards[number, p:end] == rollout.rewards[s, p:end]).all()
    assert max(len(start.turns) for start in starts) > 1
    strong(policy, seed=5)
    with pytest.raises(ReplayError):
        collector.collect_from(starts)
    assert len(collector.collect_episodes(8)) == 8  # the running games go on
