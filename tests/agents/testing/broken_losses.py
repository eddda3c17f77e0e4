"""Mistakes that released trainers made without a word, one function each.

Each returns what `check_loss` takes: the loss, the advantages and the other arguments. Around them
stands a healthy GRPO-like loss, so that the mistake is all that is wrong.
"""

import torch

from agents import losses, returns
from agents.testing import Law, leave_one_out

# --- six that the rules were written with ---------------------------------------------------------


def clipped(batch, mask=None):
    """PPO's surrogate of each token, (S, L)."""
    spread = batch.advantages
    mask = batch.mask if mask is None else mask
    return losses.clipped_surrogate(batch.logprobs, batch.old_logprobs, spread, mask, 0.2, 0.2)


def accumulation_is_forgotten():
    """The parts of a step are each a mean of their own, and their gradients are summed."""

    def loss(batch):
        return -losses.sequence_sum(clipped(batch), batch.mask)

    return loss, leave_one_out, {"accumulates": True}


def accumulation_divides_twice():
    """The loss divides by the parts, and the trainer around it again: a quarter of a quarter."""

    def loss(batch):
        return -losses.sequence_sum(clipped(batch), batch.mask) / batch.parts**2

    return loss, leave_one_out, {"accumulates": True}


def the_loss_is_divided_twice():
    """By the number of answers after their mean has been taken."""

    def loss(batch):
        return -losses.sequence_mean(clipped(batch), batch.mask) / len(batch)

    return loss, leave_one_out, {}


def the_coefficient_has_no_effect():
    """The KL term is computed and reported, but the loss that is returned is the one before."""

    def loss(batch):
        found = -losses.sequence_sum(clipped(batch), batch.mask)
        kl = losses.kl_k2(batch.logprobs, batch.ref_logprobs, batch.mask)
        _reported = found + batch.kl_coef * losses.sequence_sum(kl, batch.mask)
        return found

    return loss, leave_one_out, {"kl_coef": 0.1}


def the_end_token_is_zeroed():
    """The stop token is the padding token, and the log-probabilities of padding are set to 0."""

    def loss(batch):
        logprobs = batch.logprobs.where(batch.tokens != 5, 0.0)
        old = batch.old_logprobs.where(batch.tokens != 5, 0.0)
        ratio = torch.where(batch.mask, logprobs - old, 0.0).exp()
        return -losses.sequence_sum(ratio * batch.advantages[:, None], batch.mask)

    return loss, leave_one_out, {}


def tokens_became_samples():
    """The paper averages over the tokens of the batch, the loss over each answer first."""

    def loss(batch):
        return -losses.sequence_mean(clipped(batch), batch.mask)

    def centred(batch):
        return returns.group_standardised(batch.scores, batch.groups)

    due = Law("group", "the group's spread", "tokens of the batch")
    return loss, centred, {"formula": due}


def prompts_are_in_the_mask():
    """Everything up to the last token is learned from."""

    def loss(batch):
        mask = batch.mask.flip(1).cumsum(1).flip(1) > 0
        return -losses.sequence_sum(clipped(batch, mask), mask)

    return loss, leave_one_out, {}


FIRST_SIX = {
    "accumulation": (accumulation_is_forgotten, "scale by accumulation"),
    "accumulation, a third": (accumulation_divides_twice, "scale by accumulation"),
    "divided twice": (the_loss_is_divided_twice, "divided twice"),
    "coefficient": (the_coefficient_has_no_effect, "kl_coef has no effect"),
    "end token": (the_end_token_is_zeroed, "end token"),
    "mean": (tokens_became_samples, "mean is 'tokens of each answer'"),
    "prompt": (prompts_are_in_the_mask, "prompt tokens"),
}

# --- six that were written when the rules stood ---------------------------------------------------


def steps_without_advantages():
    """Step by step: only the answer at the end of each group's list gets its advantage."""

    def last_alone(batch):
        last = batch.groups != batch.groups.roll(-1)
        return torch.where(last, leave_one_out(batch), 0.0)

    def loss(batch):
        return -losses.sequence_sum(clipped(batch), batch.mask)

    return loss, last_alone, {}


def group_ids_differ():
    """The number that should name the prompt counts the answers of two workers on from each other.

    Answers 0 and 1 of a group were made by one worker, the others by another, and each worker's
    prompts have numbers of its own.
    """

    def by_worker(batch):
        inside = torch.arange(len(batch)) % 2
        return returns.group_standardised(batch.scores, 2 * batch.groups + inside)

    def loss(batch):
        return -losses.sequence_mean(clipped(batch), batch.mask)

    return loss, by_worker, {}


def normalised_twice_with_sub_sampling():
    """Standardised in each group, the larger half kept, standardised again over what is kept."""

    def again(batch):
        once = returns.group_standardised(batch.scores, batch.groups)
        kept = once.abs() >= once.abs().median()
        twice = (once - once[kept].mean()) / (once[kept].std(correction=0) + 1e-8)
        return torch.where(kept, twice, 0.0)

    def loss(batch):
        return -losses.sequence_mean(clipped(batch), batch.mask)

    return loss, again, {}


def only_the_kl_is_left():
    """The importance weight of the answer is made of log-probabilities without gradient."""

    def loss(batch):
        moved = torch.where(batch.mask, batch.logprobs.detach() - batch.old_logprobs, 0.0)
        ratio = (moved.sum(1) / batch.lengths).exp()
        kl = losses.kl_k2(batch.logprobs, batch.ref_logprobs, batch.mask)
        per_token = batch.kl_coef * kl - (ratio * batch.advantages)[:, None]
        return losses.sequence_mean(per_token, batch.mask)

    return loss, leave_one_out, {"kl_coef": 0.1}


def a_kl_estimator_with_another_gradient():
    """k1 is unbiased as a number, and its gradient in a loss is 0 in expectation."""

    def loss(batch):
        kl = losses.kl_k1(batch.logprobs, batch.ref_logprobs, batch.mask)
        return losses.sequence_sum(batch.kl_coef * kl - clipped(batch), batch.mask)

    return loss, leave_one_out, {"kl_coef": 0.1}


SECOND_SIX = {
    "step-wise": (steps_without_advantages, "have no gradient"),
    "group ids": (group_ids_differ, "group"),
    "normalised twice": (normalised_twice_with_sub_sampling, "twice"),
    "only KL": (only_the_kl_is_left, "only the KL term"),
    "KL estimator": (a_kl_estimator_with_another_gradient, "another gradient"),
}
"""The sixth, ids encoded anew, is a learner's and not a loss's: test_check_agent finds it."""
