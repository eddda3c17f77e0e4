"""Every rule for learners holds for ours, and for each there is a learner that breaks it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from letters import Letters

from agents import GRPO, Learner, Rollout, losses, returns
from agents.jobs.holding_out import hold_out
from agents.sb3 import SB3TokenPolicy, Trajectories, to_vec_env
from policies import TransformerConfig, TransformerPolicy
from textenv import TextEnv, TextVectorEnv
from textenv.testing import AGENT_RULES, LEARNING_RULES, TRAINING_RULES, check_agent

torch.set_num_threads(1)
ARGUMENTS = {
    "prompts": ["a", "bcd", "fe"],
    "reward": lambda episodes: [0.0] * len(episodes),
    "tokenizer": Letters(8, stop=True),
    "max_new_tokens": 6,
}


def mean_id(episodes):
    return [e.tokens.mean() for e in episodes]


def make_env():
    return TextEnv(**ARGUMENTS)


class Ours:
    """Any policy of ours, as `check_agent` wants it."""

    sampling_temperature = logprob_temperature = 0.7

    def __init__(self):
        self.policy = TransformerPolicy(TransformerConfig(9, 9, 2, 2, 16), seed=1)
        with torch.no_grad():
            for parameter in self.policy.parameters():
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
                parameter.add_(0.3 * noise)
        self.cache = self.policy.new_cache(64, 9)

    def sample(self, observations, action_masks=None):
        step = self.policy.act(
            observations,
            self.cache if len(observations) == 64 else None,
            temperature=self.sampling_temperature,
            action_masks=action_masks,
        )
        return step.actions, step.logprobs

    def logprobs(self, observations, actions, action_masks=None):
        texts = Trajectories.from_observations(
            torch.from_numpy(observations), 9, torch.from_numpy(actions)
        )
        masks = None if action_masks is None else torch.from_numpy(action_masks)
        outputs = self.policy.outputs(
            texts.tokens, texts.mask, temperature=self.logprob_temperature, action_masks=masks
        )
        return outputs.logprobs[texts.mask].detach().numpy()

    def advantages(self, rewards, values, mask, next_values, terminated, truncated):
        after = np.where(terminated, 0.0, next_values)
        arrays = (torch.from_numpy(x) for x in (rewards, values, mask, after))
        return returns.gae(*arrays, gamma=1.0, lam=1.0).numpy()

    def loss(self, logprobs, old, advantages, mask):
        arrays = (torch.from_numpy(x) for x in (logprobs, old, advantages, mask))
        return losses.ppo_clip(*arrays, 0.2, 0.2).item()

    def kl(self, logprobs, ref_logprobs, mask):
        return losses.kl_k3(*(torch.from_numpy(x) for x in (logprobs, ref_logprobs, mask))).numpy()

    def standardise(self, values, mask):
        return returns.standardise(torch.from_numpy(values), torch.from_numpy(mask)).numpy()

    def learner(self, **options):
        envs = TextVectorEnv(8, group_size=4, **ARGUMENTS | {"reward": mean_id})
        return Learner(self.policy, envs, GRPO(), **{"n_episodes": 8, "seed": 0} | options)

    def compare(self, scores, penalties, groups):
        tokens = torch.arange(len(scores))[:, None].repeat(1, 2)
        mask = torch.tensor([False, True]).repeat(len(scores), 1)
        scored = Rollout.from_log(tokens, mask, torch.from_numpy(scores), torch.from_numpy(groups))
        scored = replace(scored, scores=torch.from_numpy(scores))
        learner = self.learner()
        learner.collector.collect_episodes = lambda count: scored
        rollout = learner.collect()
        kept = rollout.tokens[:, 0]
        penalties = torch.from_numpy(penalties)[kept, None] * rollout.mask
        learned, _ = learner.learn_from(replace(rollout, penalties=penalties))
        advantages = np.zeros(len(scores))
        advantages[kept] = learned.advantages
        return advantages

    def update(self):
        self.training = getattr(self, "training", None) or self.learner(learning_rate=1e-2)
        rollout = self.training.update().rollout
        return rollout.advantages[:, None].expand(rollout.mask.shape), rollout.mask

    def split(self, texts):
        held_out, learned = hold_out(
            texts, lambda text: text, lambda different: different // 4, np.random.default_rng(0)
        )
        return learned, held_out


class PaddingChosen(Ours):
    def sample(self, observations, action_masks=None):
        actions, logprobs = super().sample(observations, action_masks)
        return np.full_like(actions, 9), logprobs


class ProbabilitiesForLogprobs(Ours):
    def sample(self, observations, action_masks=None):
        actions, logprobs = super().sample(observations, action_masks)
        return actions, np.exp(logprobs)


class TemperatureAtSamplingOnly(Ours):
    logprob_temperature = 1.0


class Dropout(Ours):
    def logprobs(self, observations, actions, action_masks=None):
        logprobs = super().logprobs(observations, actions, action_masks)
        return logprobs + 0.01 * np.random.default_rng().random(len(logprobs))


class PositionsFromTheEndOfTheBatch(Ours):
    """Left padding whose positions count: the longest row of the batch shifts all others."""

    def logprobs(self, observations, actions, action_masks=None):
        logprobs = super().logprobs(observations, actions, action_masks)
        lengths = (observations != 9).sum(1)
        return logprobs - 0.01 * (lengths.max() - lengths)


class PositionsFromTheWidth(Ours):
    """Left padding to the width of the array; the same for all rows, whatever batch they are in."""

    def logprobs(self, observations, actions, action_masks=None):
        logprobs = super().logprobs(observations, actions, action_masks)
        return logprobs - 0.01 * observations.shape[1]


class TopThreeAtScoringOnly(Ours):
    def logprobs(self, observations, actions, action_masks=None):
        logprobs = super().logprobs(observations, actions, action_masks)
        return np.where(logprobs > -2.0, logprobs, -50.0)


class GreedyWithHonestNumbers(Ours):
    """Takes the likeliest token and stores its true log-probability: the ratio is still 1."""

    def sample(self, observations, action_masks=None):
        step = self.policy.act(
            observations, temperature=0.7, action_masks=action_masks, deterministic=True
        )
        return step.actions, step.logprobs


class MaskForgottenAtSampling(Ours):
    def sample(self, observations, action_masks=None):
        return super().sample(observations)


class MaskForgottenAtScoring(Ours):
    def logprobs(self, observations, actions, action_masks=None):
        return super().logprobs(observations, actions)


class Unmasked(Ours):
    def sample(self, observations):
        return super().sample(observations)


class TerminationBootstraps(Ours):
    def advantages(self, rewards, values, mask, next_values, terminated, truncated):
        none = np.zeros_like(terminated)
        return super().advantages(rewards, values, mask, next_values, none, truncated)


class TruncationEnds(Ours):
    def advantages(self, rewards, values, mask, next_values, terminated, truncated):
        ended = terminated | truncated
        return super().advantages(rewards, values, mask, next_values, ended, truncated)


class TruncationByTheWidth(Ours):
    def advantages(self, rewards, values, mask, next_values, terminated, truncated):
        full = mask[:, -1]
        return super().advantages(rewards, values, mask, next_values, terminated | ~full, truncated)


class EveryTokenIsAStep(Ours):
    def advantages(self, rewards, values, mask, next_values, terminated, truncated):
        within = mask.argmax(1)[:, None] <= np.arange(mask.shape[1])
        last = mask.shape[1] - mask[:, ::-1].argmax(1)[:, None]
        within &= np.arange(mask.shape[1]) < last
        return super().advantages(rewards, values, within, next_values, terminated, truncated)


class MaskedByMultiplication(Ours):
    def loss(self, logprobs, old, advantages, mask):
        return float(-(np.exp(logprobs - old) * advantages * mask).sum() / mask.sum())


class Ascends(Ours):
    def loss(self, logprobs, old, advantages, mask):
        return -super().loss(logprobs, old, advantages, mask)


class ReverseKL(Ours):
    def kl(self, logprobs, ref_logprobs, mask):
        return super().kl(ref_logprobs, logprobs, mask)


class KLMaskOffByOne(Ours):
    def kl(self, logprobs, ref_logprobs, mask):
        return np.where(np.roll(mask, 1, axis=1), logprobs - ref_logprobs, 0.0)


class SampleDeviation(Ours):
    def standardise(self, values, mask):
        x = values[mask]
        with np.errstate(all="ignore"):
            deviation = np.sqrt(((x - x.sum() / max(len(x), 1)) ** 2).sum() / np.int64(len(x) - 1))
            return np.where(mask, (values - x.sum() / max(len(x), 1)) / deviation, 0.0)


class GroupsOfOne(Ours):
    def compare(self, scores, penalties, groups):
        return np.zeros(3) if len(set(groups)) == 3 else super().compare(scores, penalties, groups)


class PenaltiesInTheDeviation(Ours):
    def compare(self, scores, penalties, groups):
        if len(set(groups)) == len(groups):
            raise ValueError("groups of one")
        arrays = (torch.from_numpy(x) for x in (scores - penalties, groups))
        return returns.group_standardised(*arrays).numpy()


class NoScoreIsZero(Ours):
    def compare(self, scores, penalties, groups):
        return super().compare(np.nan_to_num(scores), penalties, groups)


class ScoresInFloat32(Ours):
    def compare(self, scores, penalties, groups):
        return super().compare(scores.astype(np.float32).astype(np.float64), penalties, groups)


class Frozen(Ours):
    def learner(self, **options):
        return super().learner(**options | {"learning_rate": 0.0})


class CutEpisodes(Ours):
    """The advantages of answers that did not end within five tokens are lost."""

    def update(self):
        advantages, mask = super().update()
        return torch.where(mask.sum(1, keepdim=True) < 3, advantages, 0.0), mask


class HeldOutByLine(Ours):
    def split(self, texts):
        return texts[:56], texts[56:]


BROKEN = [
    (PaddingChosen, "chosen_tokens_are_actions"),
    (ProbabilitiesForLogprobs, "logprobs_are_logprobs"),
    (Dropout, "logprobs_twice_agree"),
    (PositionsFromTheEndOfTheBatch, "a_text_alone_reads_as_in_a_batch"),
    (PositionsFromTheWidth, "the_amount_of_padding_does_not_matter"),
    (TopThreeAtScoringOnly, "probabilities_sum_to_one"),
    (TemperatureAtSamplingOnly, "logprobs_repeat_sampling"),
    (GreedyWithHonestNumbers, "samples_follow_the_probabilities"),
    (MaskForgottenAtSampling, "masked_tokens_are_never_chosen"),
    (MaskForgottenAtScoring, "masks_hold_in_the_update_too"),
    (TerminationBootstraps, "terminated_episodes_are_worth_no_more"),
    (TruncationEnds, "truncated_episodes_bootstrap"),
    (TruncationByTheWidth, "short_sequences_are_cut_where_they_were_cut"),
    (EveryTokenIsAStep, "tokens_of_others_are_no_steps"),
    (MaskedByMultiplication, "only_chosen_tokens_are_in_the_loss"),
    (Ascends, "better_choices_become_likelier"),
    (ReverseKL, "the_kl_is_that_of_policy_to_reference"),
    (KLMaskOffByOne, "the_kl_is_masked_where_the_tokens_are"),
    (SampleDeviation, "standardising_survives_few_values"),
    (GroupsOfOne, "groups_of_one_are_refused"),
    (PenaltiesInTheDeviation, "penalties_keep_their_size"),
    (NoScoreIsZero, "an_answer_without_score_is_left_out"),
    (ScoresInFloat32, "large_scores_keep_their_differences"),
    (Frozen, "an_update_changes_the_policy"),
    (CutEpisodes, "what_was_chosen_is_learned_from"),
    (HeldOutByLine, "held_out_texts_are_not_trained_on"),
]
ARITHMETIC = {rule.__name__ for rule in LEARNING_RULES + TRAINING_RULES}


def test_our_policy_keeps_every_rule():
    assert check_agent(Ours(), make_env) == {}


@pytest.mark.parametrize(("agent", "rule"), BROKEN)
def test_a_broken_learner_is_caught_by_name(agent, rule):
    with pytest.raises(AssertionError, match=f"^{rule}: "):
        check_agent(agent(), make_env)


class EncodedAnew(Ours):
    """What was said is written out and encoded again: two letters become one id."""

    def logprobs(self, observations, actions, action_masks=None):
        again = np.full_like(observations, 9)
        for row, text in enumerate(observations):
            written = ARGUMENTS["tokenizer"].decode(text[text != 9].tolist())
            ids = ARGUMENTS["tokenizer"].encode(written.replace("aa", "h").replace("bc", "g"))
            again[row, : len(ids)] = ids
        return super().logprobs(again, actions, action_masks)


def test_ids_that_are_encoded_anew_are_caught():
    """A silent fault of released trainers; the others are in testing/broken_losses.py."""
    with pytest.raises(AssertionError, match=r"^logprobs_repeat_sampling: "):
        check_agent(EncodedAnew(), make_env)


def test_every_rule_is_broken_by_somebody():
    rules = AGENT_RULES + LEARNING_RULES + TRAINING_RULES
    assert [rule for _, rule in BROKEN] == [rule.__name__ for rule in rules]


def test_a_learner_without_masks_is_checked_for_the_rest():
    skipped = check_agent(Unmasked(), make_env)
    assert set(skipped) == {"masked_tokens_are_never_chosen", "masks_hold_in_the_update_too"}


def test_a_learner_of_another_library():
    """Stable-Baselines3's interface, in a few lines."""
    envs = to_vec_env(TextVectorEnv(1, **ARGUMENTS))
    spaces = envs.observation_space, envs.action_space
    torch.manual_seed(0)
    model = SB3TokenPolicy(*spaces, lambda _: 1e-3, n_layer=1, n_head=2, n_embd=16)

    class Theirs:
        @torch.no_grad()
        def sample(self, observations, action_masks=None):
            actions, _, logprobs = model(torch.from_numpy(observations), action_masks=action_masks)
            return actions.numpy(), logprobs.numpy()

        @torch.no_grad()
        def logprobs(self, observations, actions, action_masks=None):
            arguments = torch.from_numpy(observations), torch.from_numpy(actions), action_masks
            return model.evaluate_actions(*arguments)[1].numpy()

    assert set(check_agent(Theirs(), make_env)) == ARITHMETIC
