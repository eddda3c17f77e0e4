"""Credit over time: returns and generalised advantages, by token, by turn and by answer."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from agents.shapes import check_aligned
from textenv.errors import UnmetNeedError

F = TypeVar("F", bound=Callable[..., Any])


def _check_rollout(mask: Tensor, bootstrap_values: Tensor, **arrays: Tensor) -> None:
    """Check (S, L) arrays and their (S,) bootstrap values."""
    check_aligned(mask, **arrays)
    if mask.dim() != 2:
        raise ValueError(f"mask must be (sequences, tokens), got shape {tuple(mask.shape)}")
    if bootstrap_values.shape != mask.shape[:1]:
        raise ValueError(
            f"bootstrap_values has shape {tuple(bootstrap_values.shape)}, but mask has "
            f"{tuple(mask.shape)}: it needs one value for each sequence"
        )
    if not bootstrap_values.is_floating_point():
        raise ValueError(f"bootstrap_values must be floats, got {bootstrap_values.dtype}")


def _zeros(mask: Tensor, rewards: Tensor, bootstrap_values: Tensor) -> Tensor:
    """Zeros of the shape of `mask` that lose no digit of the rewards."""
    dtype = torch.promote_types(rewards.dtype, bootstrap_values.dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device)


def _columns_backwards(mask: Tensor) -> list[int]:
    """The positions at which any sequence has a chosen token, last first.

    Other columns change nothing: prompts and tool outputs cost no step of the recursion.
    """
    # One copy to the CPU here; asking each column of a GPU would wait for it every time.
    positions: list[int] = mask.any(dim=0).nonzero().flatten().flip(0).tolist()
    return positions


@torch.no_grad()
def discounted_returns(
    rewards: Tensor, mask: Tensor, bootstrap_values: Tensor, gamma: float
) -> Tensor:
    """The discounted sum of the rewards from each chosen token on.

        G_t = r_t + gamma * G_{t+1},    G_T = bootstrap value

    where t counts chosen tokens only. What lies between two of them is skipped without a discount,
    and so are rewards outside the mask. Sutton & Barto, "Reinforcement Learning" (2018), section
    3.3.

    Use it where the gradient must be unbiased (`REINFORCE`). With gamma = 1 every token gets the
    sum of all rewards that follow, with gamma = 0 its own reward alone. Subtract values, or use
    `gae`, to reduce the variance.

    Args:
        rewards: (S, L), the reward paid for choosing each token.
        mask: (S, L) bool.
        bootstrap_values: (S,) floats, the value after the last chosen token; 0 where terminated.
        gamma: Discount for each chosen token.

    Returns:
        (S, L), the wider dtype of `rewards` and `bootstrap_values`, 0 outside the mask.

    Raises:
        ValueError: If shapes disagree or a dtype is wrong.
    """
    _check_rollout(mask, bootstrap_values, rewards=rewards)
    returns = _zeros(mask, rewards, bootstrap_values)
    running = bootstrap_values.to(returns.dtype)
    for p in _columns_backwards(mask):
        # Where the agent did not choose, a row keeps its sum: no reward and no discount.
        running = torch.where(mask[:, p], rewards[:, p] + gamma * running, running)
        returns[:, p] = running
    # A column holds the running sums of all rows, also of those that chose nothing there.
    return torch.where(mask, returns, 0.0)


@torch.no_grad()
def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_values: Tensor,
    gamma: float,
    lam: float,
    turns: Tensor | None = None,
    mid_turn: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimation.

        delta_t = r_t + gamma * V_{t+1} - V_t
        A_t     = delta_t + gamma * lam * A_{t+1},    A_T = 0

    where t counts chosen tokens only, so V_{t+1} is the value before the *next chosen* token.
    Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage Estimation"
    (2016), arXiv:1506.02438. `gae(...) + values` is the TD(lambda) target of the values.

    Use it where a value head is trained (`PPO`, `A2C`). With lam = 0 it is the one-step error
    delta_t: little variance, but the values' errors bias it. With lam = 1 it is
    `discounted_returns(...) - values`: no bias where the episode terminated, but the variance of
    the returns. Use `leave_one_out` or the other group functions where there are no values, and
    `gae_by_turn` where a step should be a turn.

    Args:
        rewards: (S, L), the reward paid for choosing each token.
        values: (S, L), the value of the text before each token.
        mask: (S, L) bool.
        bootstrap_values: (S,) floats, the value after the last chosen token; 0 where terminated.
        gamma: Discount for each chosen token.
        lam: From 0 (trusts the values) to 1 (trusts the rewards).
        turns: Not used, since a step is a token; here so that `gae_by_turn` can take its place.
        mid_turn: Not used either.

    Returns:
        (S, L), the wider dtype of `rewards` and `bootstrap_values`, 0 outside the mask.

    Raises:
        ValueError: If shapes disagree or a dtype is wrong.
    """
    _check_rollout(mask, bootstrap_values, rewards=rewards, values=values)
    advantages = _zeros(mask, rewards, bootstrap_values)
    next_value, running = bootstrap_values, advantages.new_zeros(len(mask))
    for p in _columns_backwards(mask):
        # Rewards and values may be NaN outside the mask; `where` below lets no NaN into `running`.
        delta = rewards[:, p] + gamma * next_value - values[:, p]
        running = torch.where(mask[:, p], delta + gamma * lam * running, running)
        # Kept over tool outputs, so that V_{t+1} is the value before the next *chosen* token.
        next_value = torch.where(mask[:, p], values[:, p], next_value)
        advantages[:, p] = running
    return torch.where(mask, advantages, 0.0)


# ---------------------------------------------------------------- steps of several tokens


def _with_steps(begins: Callable[[Tensor, Tensor | None], Tensor]) -> Callable[[F], F]:
    """Let a credit say where its steps begin, for who fits the values that it reads there."""

    def marked(credit: F) -> F:
        vars(credit)["begins"] = begins
        return credit

    return marked


def turn_begins(turns: Tensor | None) -> Tensor:
    """Where a turn begins: True at the first chosen token of each, shape (S, L), bool.

    A rollout may begin in the middle of a turn. Its first chosen token counts as a beginning then.

    Args:
        turns: (S, L) int64, the turn of each chosen token, -1 where nobody chose.

    Raises:
        UnmetNeedError: `turns` is None.
    """
    turns = _told(turns)
    before = turns.cummax(1).values.roll(1, 1)  # the latest turn that is chosen before each place
    before[:, 0] = -1
    return turns > before


def answer_begins(mask: Tensor) -> Tensor:
    """True at the first chosen token of each sequence; `mask` and the result are (S, L) bool."""
    return mask & (mask.cumsum(1) == 1)


@torch.no_grad()
def turn_returns(rewards: Tensor, turns: Tensor | None) -> Tensor:
    """The sum of the rewards from the beginning of each turn to the end, undiscounted.

        G_k = sum of the rewards for the tokens of turns k, k + 1, ...

    Use it to judge a turn by what followed it, and not by what earlier turns had earned; see
    `by_turn`.

    Args:
        rewards: (S, L), the reward paid for choosing each token.
        turns: (S, L) int64, the turn of each chosen token, -1 where nobody chose.

    Returns:
        (S, L), G_k at every token of turn k, 0 where nobody chose.

    Raises:
        UnmetNeedError: `turns` is None.
        ValueError: If shapes disagree.
    """
    turns = _told(turns)
    mask = turns >= 0
    check_aligned(mask, rewards=rewards)
    step_of, is_step = _numbered(turn_begins(turns))
    paid = _sums(rewards, mask, step_of, is_step)
    following = paid.flip(1).cumsum(1).flip(1)
    return torch.where(mask, following.gather(1, step_of), 0.0)


@_with_steps(lambda mask, turns: turn_begins(turns))
@torch.no_grad()
def gae_by_turn(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_values: Tensor,
    gamma: float,
    lam: float,
    turns: Tensor | None,
    mid_turn: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimation whose step is a turn.

        R_k     = sum of the rewards for the tokens of turn k
        delta_k = R_k + gamma * V_{k+1} - V_k
        A_k     = delta_k + gamma * lam * A_{k+1}

    V_k is the value before the *first chosen* token of turn k; the bootstrap value follows the last
    turn. gamma and lambda act once a turn, however many tokens the turn has, and every token of the
    turn gets A_k. A turn is one action of a Markov decision process whose states are the texts at
    which turns begin (Sutton, Precup & Singh, "Between MDPs and semi-MDPs", 1999; for language
    models Zhou et al., "ArCHer", 2024, arXiv:2402.19446, whose critic is one of utterances, too).

    Use it in conversations, with a critic at turn borders: fit the values where `turn_begins` alone
    (`PPO` does so). There is less to learn for the critic than with `gae`, and a turn's tokens are
    not told apart. With turns of one token it is `gae`, with one turn `gae_by_answer`. With
    gamma = lam = 1 it is `turn_returns(...) - V_k`.

    A turn that the end of a rollout cuts is bootstrapped with the value of the text so far, without
    a discount (`mid_turn`). The next rollout begins there, and fits that value.

    Args:
        rewards: (S, L), the reward paid for choosing each token.
        values: (S, L), the value of the text before each token; read at the beginnings of turns.
        mask: (S, L) bool.
        bootstrap_values: (S,) floats, the value after the last chosen token; 0 where terminated.
        gamma: Discount for each turn.
        lam: From 0 (trusts the values) to 1 (trusts the rewards).
        turns: (S, L) int64, the turn of each chosen token, -1 where nobody chose.
        mid_turn: (S,) bool, True where the last turn goes on in the next rollout; None says that
            all turns are over.

    Returns:
        (S, L), the wider dtype of `rewards` and `bootstrap_values`, 0 outside the mask.

    Raises:
        UnmetNeedError: `turns` is None.
        ValueError: If shapes disagree or a dtype is wrong.
    """
    turns = _told(turns)
    check_aligned(mask, turns=turns)
    if not torch.equal(turns >= 0, mask):
        raise ValueError("turns must be -1 where mask is False, and a turn's number where it is")
    begins = turn_begins(turns)
    return _gae_of_steps(
        rewards, values, mask, bootstrap_values, gamma, lam, begins=begins, mid_step=mid_turn
    )


@_with_steps(lambda mask, turns: answer_begins(mask))
@torch.no_grad()
def gae_by_answer(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_values: Tensor,
    gamma: float = 1.0,
    lam: float = 1.0,
    turns: Tensor | None = None,
    mid_turn: Tensor | None = None,
) -> Tensor:
    """Return minus the value at the beginning, the same for all tokens: an episode is one action.

        A = sum of all rewards + bootstrap value - V_1

    V_1 is the value before the first chosen token. Ahmadian et al., "Back to Basics" (2024),
    arXiv:2402.14740, argue for one action an answer where the score comes at its end.

    Use it where only the whole answer is judged and a value of the prompt is the baseline; the
    values are fitted where `answer_begins` alone. In a conversation it praises the last turn for
    what an earlier one earned, too; `gae_by_turn` tells them apart.

    Args:
        rewards: (S, L), the reward paid for choosing each token.
        values: (S, L), the value of the text before each token; read at the first chosen one.
        mask: (S, L) bool.
        bootstrap_values: (S,) floats, the value after the last chosen token; 0 where terminated.
        gamma: Not used, since there is one step; here so that it can take the place of `gae`.
        lam: Not used either.
        turns: Not used either.
        mid_turn: Not used either.

    Returns:
        (S, L), the wider dtype of `rewards` and `bootstrap_values`, 0 outside the mask.

    Raises:
        ValueError: If shapes disagree or a dtype is wrong.
    """
    return _gae_of_steps(
        rewards, values, mask, bootstrap_values, 1.0, 1.0, begins=answer_begins(mask)
    )


def _gae_of_steps(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_values: Tensor,
    gamma: float,
    lam: float,
    *,
    begins: Tensor,
    mid_step: Tensor | None = None,
) -> Tensor:
    """`gae` over steps of several tokens, which begin where `begins` (S, L) is True."""
    _check_rollout(mask, bootstrap_values, rewards=rewards, values=values)
    step_of, is_step = _numbered(begins)  # what follows is (S, steps) until it is spread again
    paid = _sums(rewards, mask, step_of, is_step)
    if mid_step is not None:  # what `gae` will take off the bootstrap value is added here
        last = mid_step[:, None] & (is_step.cumsum(1) == is_step.sum(1, keepdim=True)) & is_step
        paid = paid + torch.where(last, (1 - gamma) * bootstrap_values[:, None], 0.0)
    at_begins = _sums(values, begins, step_of, is_step)
    advantages = gae(paid, at_begins, is_step, bootstrap_values, gamma, lam)
    return torch.where(mask, advantages.gather(1, step_of), 0.0)


def _numbered(begins: Tensor) -> tuple[Tensor, Tensor]:
    """The step of each place, (S, L) from 0, and which steps each sequence has, (S, steps) bool."""
    number = begins.cumsum(1)
    counts = begins.sum(1)
    steps = torch.arange(max([1, *counts.tolist()]), device=begins.device)
    return (number - 1).clamp(min=0), steps < counts[:, None]


def _sums(x: Tensor, where: Tensor, step_of: Tensor, is_step: Tensor) -> Tensor:
    """The sum of `x` over the places of each step at which `where` is True, (S, steps)."""
    if not x.is_floating_point():
        x = x.double()
    nothing = x.new_zeros(is_step.shape)
    return nothing.scatter_add(1, step_of, torch.where(where, x, 0.0))


def _told(turns: Tensor | None) -> Tensor:
    if turns is None:
        raise UnmetNeedError(
            "credit by turn needs the turn of each chosen token, and this rollout does not know "
            "it: rollouts of a Collector do; give one of your own `Rollout.turns`"
        )
    return turns
