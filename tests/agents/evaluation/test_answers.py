import math

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from agents.evaluation import Evaluation, answer_prompts, evaluate
from agents.runs.samples import Sample
from policies import TransformerConfig, TransformerPolicy
from textenv import Prompt, TextVectorEnv
from textenv.rewards import dense, weighted

PROMPTS = [Prompt("ab"), Prompt("c", {"bonus": 10.0}), Prompt("defg"), Prompt("h"), Prompt("ij")]


def length_and_bonus(episodes):
    return [len(e.tokens) + e.columns.get("bonus", 0.0) for e in episodes]


ARGUMENTS = {
    "prompts": ["unused"],
    "reward": length_and_bonus,
    "max_new_tokens": 6,
    "stop_tokens": tuple(range(0, 256, 4)),  # so that lengths differ
}


def environment(**changes) -> TextVectorEnv:
    return TextVectorEnv(2, **ARGUMENTS | changes)


@pytest.fixture(scope="module")
def policy() -> TransformerPolicy:
    config = TransformerConfig(vocab_size=environment().pad_token, context=16, n_layer=1)
    policy = TransformerPolicy(config, seed=1)
    with torch.no_grad():
        policy.transformer.token_embedding.weight.mul_(2)  # far from uniform
    return policy


def test_every_prompt_is_answered_once_and_scored(policy):
    envs = environment()
    result = evaluate(policy, envs, PROMPTS, reference=policy)
    assert [sample.prompt for sample in result.samples] == [p.text for p in PROMPTS]
    lengths = [len(answer) for answer in result.answers]
    assert len(set(lengths)) > 1 and max(lengths) <= 6
    bonus = np.array([0, 10, 0, 0, 0])
    assert result.scores == pytest.approx(lengths + bonus)
    for sample, answer in zip(result.samples, result.answers, strict=True):
        ended = answer[-1] in envs.stop_tokens
        text = envs.tokenizer.decode((answer[:-1] if ended else answer).tolist())
        assert sample.text == text
        assert ended or len(answer) == 6
        assert not set(answer[:-1]) & set(envs.stop_tokens)


def test_logprobs_are_those_of_the_answers(policy):
    result = evaluate(policy, environment(), PROMPTS, temperature=0.7)
    for prompt, answer, logprob in zip(PROMPTS, result.answers, result.logprobs, strict=True):
        ids = [*prompt.text.encode(), *answer]
        hidden = policy.hidden_states(torch.tensor(ids), torch.tensor([len(ids)]))
        table = (policy.logits(hidden) / 0.7).log_softmax(-1)
        first = len(prompt.text)
        expected = sum(table[at - 1, ids[at]].item() for at in range(first, len(ids)))
        assert logprob == pytest.approx(expected, abs=1e-4)
    assert np.isnan(result.ref_logprobs).all()


def test_the_seed_decides_and_the_policys_own_generator_is_left_alone(policy):
    before = policy.generator.bit_generator.state
    one, same, other = (
        evaluate(policy, environment(), PROMPTS, seed=seed).samples for seed in (0, 0, 1)
    )
    assert one == same != other
    assert policy.generator.bit_generator.state == before


def test_an_answer_does_not_depend_on_the_number_of_rows(policy):
    """Each prompt has numbers of its own, so two policies can be compared on equal ones."""
    narrow, wide = (evaluate(policy, TextVectorEnv(rows, **ARGUMENTS), PROMPTS) for rows in (1, 4))
    assert narrow.samples == wide.samples
    assert narrow.logprobs == pytest.approx(wide.logprobs, abs=1e-5)


def test_an_answer_depends_on_its_prompt_and_on_how_often_that_was_asked_alone(policy):
    asked = [*PROMPTS, PROMPTS[0]]
    there = evaluate(policy, environment(), asked).samples
    backwards = evaluate(policy, environment(), asked[::-1]).samples
    alone = evaluate(policy, environment(), PROMPTS[1:2]).samples
    assert backwards[1:-1] == there[1:-1][::-1]
    # The first answer to a prompt that is asked twice is the first one in either order.
    assert (backwards[0], backwards[-1]) == (there[0], there[-1]) and there[0] != there[-1]
    assert alone == there[1:2]
    renamed = [Prompt(prompt.text, {"number": 5}) for prompt in PROMPTS]
    assert [s.text for s in evaluate(policy, environment(), renamed).samples] == [
        s.text for s in there[:-1]
    ]


def test_kl_against_itself_is_zero_and_positive_against_another(policy):
    itself = evaluate(policy, environment(), PROMPTS, reference=policy)
    assert itself.kl_per_answer == 0
    other = TransformerPolicy(policy.config, seed=2)
    assert evaluate(policy, environment(), PROMPTS * 10, reference=other).kl_per_token > 0.1


def test_masks_hold_in_sampling_and_in_log_probabilities(policy):
    only = ord("x")
    others = [token for token in range(policy.vocab_size) if token != only]
    envs = environment(forbidden_tokens=others, stop_tokens=())
    result = evaluate(policy, envs, PROMPTS)
    assert {sample.text for sample in result.samples} == {"xxxxxx"}
    assert result.logprobs == pytest.approx(np.zeros(5))  # there was no choice
    lengths = map(len, evaluate(policy, environment(min_new_tokens=4), PROMPTS).answers)
    assert min(lengths) >= 4


def test_numbers_by_hand():
    ids = [np.array([1, 2, 1, 2]), np.array([3]), np.array([1, 2, 3])]
    samples = [Sample("p", "t", score) for score in (0.0, 1.0, 2.0)]
    result = Evaluation(samples, ids, np.array([-1.0, -2.0, -3.0]), np.array([-3.0, -2.0, -5.0]))
    assert result.scores.mean() == 1
    assert result.num_tokens == 8
    assert result.tokens_per_answer == pytest.approx(8 / 3)
    assert result.kl_per_answer == pytest.approx(4 / 3)
    assert result.kl_per_token == pytest.approx(4 / 8)
    assert result.reference_perplexity == pytest.approx(math.exp(10 / 8))
    assert result.distinct_2 == pytest.approx(3 / 5)  # 12 21 12 | | 12 23
    assert set(result.numbers()) >= {"score", "score_low", "score_high", "kl_per_token"}


def test_refuses_no_prompts(policy):
    with pytest.raises(ValueError, match="no prompts"):
        evaluate(policy, environment(), [])


def test_the_mode_and_the_running_episodes_of_the_environment_do_not_matter(policy):
    expected = evaluate(policy, environment(), PROMPTS).samples
    for mode in AutoresetMode:
        envs = environment(autoreset_mode=mode)
        observations, _ = envs.reset(seed=3)
        assert evaluate(policy, envs, PROMPTS).samples == expected
        assert (envs.step([1, 2])[0][:, : len("unused")] == observations[:, : len("unused")]).all()


def test_rewards_stand_at_the_tokens_that_were_paid_for(policy):
    step_pay = dense(lambda batch: batch.actions / 256)
    reward = weighted(steps=(1.0, step_pay), end=(1.0, length_and_bonus))
    envs = environment(reward=reward, max_new_tokens=6)
    numbers = [np.random.default_rng(seed) for seed in (0, 1)]
    answers = answer_prompts(policy, envs, PROMPTS[:2], temperature=1.0, generators=numbers)
    for row, (sample, bonus) in enumerate(zip(answers.samples, (0, 10), strict=True)):
        chosen = answers.tokens[row, answers.mask[row]]
        expected = chosen / 256
        expected[-1] += len(chosen) + bonus
        assert answers.rewards[row, answers.mask[row]] == pytest.approx(expected)
        assert sample.score == pytest.approx(expected.sum())
    assert (answers.rewards[~answers.mask] == 0).all()
    assert (answers.rewards[answers.mask] != 0).any()


def test_temperature_zero_takes_the_likeliest_tokens(policy):
    results = [
        evaluate(policy, environment(), PROMPTS, reference=policy, temperature=0, seed=seed)
        for seed in (0, 1)
    ]
    for prompt, answer, other in zip(PROMPTS, *(r.answers for r in results), strict=True):
        ids = list(prompt.text.encode())
        for token in answer.tolist():
            assert token == policy.act([ids], deterministic=True).actions[0]
            ids.append(token)
        assert answer.tolist() == other.tolist()
    assert results[0].kl_per_answer == 0
    assert (results[0].logprobs < 0).all()  # at temperature 1
