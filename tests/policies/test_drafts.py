"""Answers that were encoded ahead: the choices are those of plain steps, with fewer passes."""

import numpy as np
import pytest
import torch
from hf_models import make
from letters import Letters
from two_turns import Echo

from agents.collector import collector_from, in_order
from benchmarks import exact as oracle
from benchmarks.common import Ids, make_policy
from policies import TransformerConfig, TransformerPolicy, kernels
from policies.drafts import AT_LEAST, Drafts
from policies.sampling import sample, sample_gumbel
from textenv import Prompt, TextVectorEnv
from textenv.starts import Start

torch.set_num_threads(1)
ways = pytest.mark.parametrize("compiles", [True, False])


@pytest.fixture
def way(compiles, monkeypatch):
    if not compiles:
        monkeypatch.setattr(kernels, "kernels_fit", lambda x: False)


def letters_policy(seed=0, context=32, letters=5):
    shape = TransformerConfig(letters + 1, context, n_layer=2, n_head=2, n_embd=16)
    policy = TransformerPolicy(shape, tokenizer=Letters(letters, stop=True), seed=seed)
    with torch.no_grad():
        policy.transformer.token_embedding.weight.mul_(10)
    return policy


def letters_envs(rows, **changes):
    options = {"tokenizer": Letters(5, stop=True), "max_new_tokens": 24, "prompts": ["a"]}
    options["max_prompt_tokens"] = 5
    return TextVectorEnv(rows, reward=lambda es: [0.0] * len(es), **options | changes)


def play(policy, envs, prompts, drafts=None, sampler=sample_gumbel, temperature=1.0):
    """The rollout in the order of the prompts, the answers, and the collector."""
    numbers = np.random.default_rng(3).random((len(prompts), envs.max_new_tokens))
    starts = [Start(Prompt(p), draw_seed=k, episode_seed=k) for k, p in enumerate(prompts)]
    collector = collector_from(policy, envs, starts, temperature, uniforms=numbers, sampler=sampler)
    if drafts is not None:
        collector.read_ahead(dict(enumerate(drafts)))
    rollout = in_order(collector.collect_episodes(len(prompts)))
    pairs = zip(rollout.tokens, rollout.mask, strict=True)
    return rollout, [tokens[mask].numpy() for tokens, mask in pairs], collector


def same(rollout, other):
    assert torch.equal(rollout.tokens, other.tokens)
    torch.testing.assert_close(rollout.logprobs, other.logprobs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rollout.values, other.values, atol=1e-5, rtol=1e-5)
    assert torch.equal(rollout.scores, other.scores)


@ways
def test_with_every_answer_as_draft_the_answers_are_those_of_plain_steps(way):
    envs = TextVectorEnv(40, **oracle.OPTIONS)
    every = [t[m].numpy() for t, m in zip(oracle.TOKENS, oracle.MASK, strict=True)]
    for seed in range(3):
        policy = oracle.make_policy(seed)
        for sampler in (sample, sample_gumbel):
            plain, answers, _ = play(policy, envs, ["a"] * 40, sampler=sampler)
            drafted, _, _ = play(policy, envs, ["a"] * 40, every, sampler=sampler)
            same(drafted, plain)
    assert len({tuple(answer.tolist()) for answer in answers}) > 5


@ways
@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.7])
def test_the_answers_of_another_policy_as_drafts(way, temperature):
    prompts = ["abc", "d", "aab", "cdea", "d", "b", "edcba"]
    envs = letters_envs(3, min_new_tokens=5)
    _, drafts, _ = play(letters_policy(), envs, prompts, temperature=temperature)
    later = letters_policy()
    with torch.no_grad():
        pairs = zip(later.parameters(), letters_policy(1).parameters(), strict=True)
        for parameter, other in pairs:
            parameter.lerp_(other, 0.15)
    plain, answers, before = play(later, envs, prompts, temperature=temperature)
    drafted, _, after = play(later, envs, prompts, drafts, temperature=temperature)
    same(drafted, plain)
    differ = [not np.array_equal(a, d) for a, d in zip(answers, drafts, strict=True)]
    assert any(differ) or temperature == 0
    counted = after.cache.drafts
    assert 0 < counted.kept_tokens <= counted.read_tokens
    assert before.cache.drafts is None


def test_a_draft_that_is_kept_takes_few_passes(monkeypatch):
    policy = make_policy("S")
    with torch.no_grad():
        policy.transformer.token_embedding.weight.mul_(3)
    envs = TextVectorEnv(
        4,
        prompts=["1"],
        reward=lambda es: [0.0] * len(es),
        tokenizer=Ids(4096),
        max_prompt_tokens=3,
        max_new_tokens=32,
        stop_tokens=(),
    )
    prompts = ["1 2 3", "7", "4 5", "4 5"]
    passes, extend = [], TransformerPolicy.extend
    monkeypatch.setattr(
        TransformerPolicy, "extend", lambda *given: (passes.append(1), extend(*given))[1]
    )
    plain, answers, before = play(policy, envs, prompts)
    assert len(passes) == 32
    passes.clear()
    drafted, _, after = play(policy, envs, prompts, answers)
    same(drafted, plain)
    # As much again as was kept: 8 tokens, then 9, then 15 to the end.
    assert len(passes) <= 4
    assert after.cache.drafts.kept_tokens >= 4 * (31 - len(passes))
    assert after.cache.encoded_tokens == before.cache.encoded_tokens
    # Drafts of which nothing is kept: what is read in vain is little.
    wrong = [(answer + 1) % 4096 for answer in answers]
    drafted, _, after = play(policy, envs, prompts, wrong)
    same(drafted, plain)
    assert after.cache.drafts.kept_tokens == 0
    assert after.cache.drafts.read_tokens == 4 * AT_LEAST


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "t5"])
def test_models_of_hugging_face_read_ahead_too(family):
    policy = make(family, Letters(6, stop=True))
    asked = ["abf", "b", "aaf"]
    envs = letters_envs(3, tokenizer=policy.tokenizer, max_new_tokens=12, min_new_tokens=8)
    plain, answers, _ = play(policy, envs, asked)
    answers[0][3:] = 0
    drafted, _, after = play(policy, envs, asked, answers)
    same(drafted, plain)
    # An encoder-decoder keeps other things of a text: it takes plain steps.
    assert (after.cache.drafts.kept_tokens > 0) == (family != "t5")


def test_in_a_conversation_the_first_turn_is_read_ahead():
    envs = TextVectorEnv(
        2,
        world=Echo,
        prompts=["c"],
        tokenizer=Letters(6, stop=True),
        max_prompt_tokens=2,
        max_turns=2,
        max_turn_tokens=2,
        max_new_tokens=6,
    )
    for seed in range(4):
        policy = letters_policy(seed, letters=6)
        plain, answers, _ = play(policy, envs, ["c", "d"])
        drafted, _, _ = play(policy, envs, ["c", "d"], answers)
        same(drafted, plain)


def test_states_of_older_weights_are_forgotten():
    policy, texts = letters_policy(), np.full((1, 12), 6)
    draft = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
    cache = policy.new_cache(1, 12)
    cache.drafts = Drafts(1, 12)
    cache.drafts.give(0, draft)
    for length in range(1, 11):
        if length == 5:
            with torch.no_grad():
                policy.transformer.token_embedding.weight.mul_(0.5)
        texts[0, :length] = draft[:length]
        torch.testing.assert_close(
            policy.last_hidden(texts, cache), policy.last_hidden(texts), atol=1e-5, rtol=1e-5
        )
    assert cache.drafts.kept_tokens > 0
