"""Learners score and differentiate under the grammar that the answers were sampled under."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from agents import GRPO, PPO, Learner
from agents.collector import Collector
from agents.commands.shared import Conversation, Masked
from agents.jobs.conversation import Continuation, Sampling, Voice
from agents.jobs.environments import environment_for, rules_of
from agents.rollout import Rollout
from policies import TransformerPolicy
from textenv import TextVectorEnv
from textenv.errors import OptionError
from textenv.grammars import JsonSchema, Regex

SCHEMA = JsonSchema({"type": "array", "items": {"type": "integer"}, "maxItems": 3})


def whole(episodes):
    return [len(e.text) if e.finish_reason == "stop" else -100.0 for e in episodes]


def make(rows=8, **arguments):
    chosen = {"grammar": SCHEMA, "prompts": ["a", "bc"], "max_new_tokens": 10, "reward": whole}
    return TextVectorEnv(rows, **{**chosen, **arguments})


def policy_for(envs):
    return TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16, seed=0)


def test_the_first_ratio_is_one_and_the_gradient_is_that_of_the_narrowed_law():
    envs = make()
    policy = policy_for(envs)
    rollout = Collector(policy, envs, seed=0).collect_steps(40)
    outputs = policy.outputs(rollout.tokens, rollout.mask, action_masks=rollout.action_masks)
    assert (outputs.logprobs - rollout.logprobs).abs().max() < 1e-5
    # The same from plain logits: a softmax over what could be chosen, and over nothing else.
    hidden = policy.hidden_before(
        rollout.tokens, rollout.mask, (rollout.tokens != policy.pad_token).sum(1)
    )
    logits = policy.logits(hidden).masked_fill(~rollout.action_masks, -torch.inf)
    plain = logits.log_softmax(-1).gather(1, rollout.tokens[rollout.mask][:, None]).squeeze(1)
    weights = [*policy.transformer.parameters()]
    mine = torch.autograd.grad(outputs.logprobs.sum(), weights, retain_graph=True)
    theirs = torch.autograd.grad(plain.sum(), weights)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert sum(float(a.abs().sum()) for a in mine) > 0


def test_rollouts_keep_each_mask_once_in_bits():
    envs = make()
    collector = Collector(policy_for(envs), envs, seed=0)
    for rollout in (collector.collect_steps(40), collector.collect_episodes(30)):
        table = rollout.mask_table
        assert table.dtype == torch.uint8 and table.shape[1] == 33  # 257 bits
        assert len(table.unique(dim=0)) == len(table) < rollout.num_tokens / 3
        assert rollout.action_masks.shape == (rollout.num_tokens, 257)
        assert rollout.action_masks.gather(1, rollout.tokens[rollout.mask][:, None]).all()
    used = {0, *collector._open["mask_ids"].ravel().tolist()}
    used.update(*(sequence["mask_ids"].tolist() for sequence in collector._closed))
    assert len(collector._masks) == len(used)  # the others are forgotten


def test_packed_and_plain_masks_go_together():
    envs = make()
    packed = Collector(policy_for(envs), envs, seed=0).collect_steps(9)
    bits = np.unpackbits(packed.mask_table.numpy(), axis=1, count=257).astype(bool)
    plain = replace(packed, mask_table=torch.from_numpy(bits), mask_size=None)
    none = replace(packed, mask_table=None, mask_ids=None, mask_size=None)
    both = Rollout.cat([plain, packed, none])
    every = torch.ones_like(packed.action_masks)
    expected = torch.cat([plain.action_masks, packed.action_masks, every])
    assert torch.equal(both.action_masks, expected)
    again = Rollout.from_state_dict(packed.state_dict())
    assert torch.equal(again.action_masks, packed.action_masks)
    some = packed.select(torch.tensor([2, 0]))
    assert torch.equal(some.mask_table, packed.mask_table) and some.mask_size == 257


@pytest.mark.parametrize(
    ("algorithm", "length"), [(PPO(), {"n_steps": 13}), (GRPO(), {"n_episodes": 16})]
)
def test_a_learner_goes_on_from_its_checkpoint_bit_by_bit(algorithm, length):
    def learner():
        envs = make(group_size=4 if isinstance(algorithm, GRPO) else 1)
        return Learner(policy_for(envs), envs, algorithm, seed=0, **length)

    one, other = learner(), learner()
    next(one.updates(total_tokens=10_000))
    weights = copy.deepcopy(one.policy.state_dict())
    state = copy.deepcopy(one.state_dict())
    other.policy.load_state_dict(weights)
    other.load_state_dict(state)
    a, b = (next(learner.updates(total_tokens=10_000)) for learner in (one, other))
    assert a.score == b.score
    assert torch.equal(a.rollout.tokens, b.rollout.tokens)
    assert torch.equal(a.rollout.logprobs, b.rollout.logprobs)


def test_continuations_keep_to_the_grammar():
    envs = make(group_size=1)
    collector = Collector(policy_for(envs), envs, seed=0)
    rollout = collector.collect_episodes(6)
    place = int(rollout.mask[0].nonzero()[1])
    again = collector.collect_from([rollout.start(0, place)], n=5)
    assert (again.scores > -100).all() and len(again) == 5


def test_a_policy_learns_under_a_grammar():
    envs = make(16, grammar=Regex("(yes|no)(, (yes|no))?"), max_new_tokens=12, group_size=8)
    learner = Learner(policy_for(envs), envs, GRPO(), learning_rate=1e-2, n_episodes=32, seed=0)
    scores = [update.score for update in learner.updates(total_tokens=6_000)]
    assert scores[0] < 6.5 < 7.5 < scores[-1] <= 8  # "yes, yes" has eight characters


def test_a_policy_without_masks_is_told_that_its_answers_are_unfinished():
    envs = make(4, prompts=["a"])
    envs.reset(seed=0)
    _, rewards, over, _, infos = envs.step(np.full(4, ord("x")))
    assert over.all() and (rewards == -100).all()
    assert set(infos["final_info"]["finish_reason"]) == {"grammar_unfinished"}


def test_commands_refuse_a_grammar_before_anything_runs_and_hand_it_on():
    policy = policy_for(make())
    with pytest.raises(OptionError, match=r"does not compile.*at 1\(8\)"):
        rules_of(Masked(grammar="regex:a("), policy, 9)
    with pytest.raises(OptionError, match="min_new_tokens"):
        rules_of(Masked(grammar="regex:a+", min_new_tokens=3), policy, 9)
    masks = Masked(grammar="regex:a{1,3}")
    envs = environment_for(
        policy, ["b"], whole, rows=2, max_new_tokens=6, masks=masks, talk=Conversation()
    )
    mask = envs.reset(seed=0)[1]["action_mask"]
    assert mask.sum(1).tolist() == [1, 1] and mask[:, ord("a")].all()
    voice = Voice(policy, Sampling(6, **rules_of(masks, policy, 6)), np.random.default_rng(0))
    assert set(Continuation(voice).answer("b", lambda piece: None)) == {"a"}
