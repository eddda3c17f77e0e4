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
