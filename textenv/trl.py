"""Reward functions written for TRL's trainers, unmodified, as rewards.

A function is called by keyword as the GRPO and RLOO trainers of TRL 1.x call it: `prompts`,
`completions`, `completion_ids` (lists of ids, a sampled stop token included), every column of the
prompts' records (a list, None where a record lacks it), `trainer_state` (None: there is no
trainer), `log_extra` and `log_metric` (which log nothing), and with a world of
`textenv.tools.from_trl_environment` its objects as `environments`. The value None says that the
function does not apply to that episode: a weighted sum leaves it out, and an episode to which no
function applies has no score.

As in TRL, `async` functions run in an event loop of their own on a thread; two of them in a
weighted sum run one after the other. For reward models, which TRL takes by name or as modules, use
`policies.ClassifierReward`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from textenv.background import wait_for
from textenv.episode import Episode
from textenv.reward_adapters import Adapter, check_callable, is_async
from textenv.worlds import Turn

NOT_COLUMNS = {"prompt", "completion", "completion_ids"}
"""What TRL leaves out of the columns too."""


class FromTRL(Adapter):
    """A TRL reward function as a reward; see `from_trl`."""

    may_abstain: ClassVar[bool] = True

    def _check(self, function: Any) -> None:
        check_callable(function)  # async ones are welcome

    def __call__(self, episodes: Sequence[Episode]) -> Any:
        """The function's value for each episode."""
        values = self.function(
            **_columns(episodes),
            **_environments(episodes),
            prompts=self.prompts(episodes),
            completions=self.completions(episodes),
            completion_ids=[episode.tokens.tolist() for episode in episodes],
            trainer_state=None,
            log_extra=_log_nothing,
            log_metric=_log_nothing,
        )
        return wait_for(values) if is_async(self.function) else values

    def prompts(self, episodes: Sequence[Episode]) -> list[Any]:
        """The prompts in TRL's standard format: texts."""
        return [episode.prompt for episode in episodes]

    def completions(self, episodes: Sequence[Episode]) -> list[Any]:
        """The answers in TRL's standard format: texts, without the stop token."""
        return [episode.text for episode in episodes]


class FromTRLChat(FromTRL):
    """A TRL reward function that reads messages as a reward; see `from_trl_chat`."""

    def prompts(self, episodes: Sequence[Episode]) -> list[Any]:
        """The prompts in TRL's conversational format: lists of messages."""
        return [messages_of({**e.columns, "prompt": e.prompt}) for e in episodes]

    def completions(self, episodes: Sequence[Episode]) -> list[Any]:
        """The answers in TRL's conversational format: lists of messages."""
        return [_answer(episode) for episode in episodes]


def from_trl(function: Callable[..., Any], name: str | None = None) -> FromTRL:
    """A reward from a TRL reward function in the standard format: prompts and answers are texts.

    >>> def exact(completions, answer, **kwargs):
    ...     return [float(c == a) for c, a in zip(completions, answer)]
    >>> from_trl(exact)
    FromTRL(exact)

    Raises:
        InvalidRewardError: It cannot be called.
    """
    return FromTRL(function, name)


def from_trl_chat(function: Callable[..., Any], name: str | None = None) -> FromTRLChat:
    """A reward from a TRL reward function in the conversational format.

    Its completions are lists of one message, `[{"role": "assistant", "content": text}]`, as for the
    functions in `trl.rewards`; of a conversation they are all turns and replies. Its prompts are
    the lists in the records' column `messages`. Without that column, a prompt is one message of the
    user with the whole text.

    >>> def polite(completions, **kwargs):
    ...     return [float("please" in completion[0]["content"]) for completion in completions]
    >>> from_trl_chat(polite)
    FromTRLChat(polite)

    Raises:
        InvalidRewardError: It cannot be called.
    """
    return FromTRLChat(function, name)


def messages_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A record's prompt in TRL's conversational format: its `messages`, or one of the user."""
    return record.get("messages") or [{"role": "user", "content": record["prompt"]}]


def _columns(episodes: Sequence[Episode]) -> dict[str, list[Any]]:
    names = {name for episode in episodes for name in episode.columns} - NOT_COLUMNS
    return {name: [episode.columns.get(name) for episode in episodes] for name in sorted(names)}


def _answer(episode: Episode) -> list[dict[str, Any]]:
    if not episode.turns:
        return [{"role": "assistant", "content": episode.text}]
    messages = []
    for entry in episode.turns:
        role = "assistant" if isinstance(entry, Turn) else entry.role
        texts = [entry.text] if isinstance(entry.text, str) else entry.text
        # An end that says nothing is no message.
        kept = texts if isinstance(entry, Turn) else filter(None, texts)
        messages += [{"role": role, "content": text} for text in kept]
    return messages


def _environments(episodes: Sequence[Episode]) -> dict[str, list[Any]]:
    """The objects that `textenv.tools.from_trl_environment` has made for the episodes, if any."""
    objects = [getattr(episode.world, "environment", None) for episode in episodes]
    return {} if None in objects else {"environments": objects}


def _log_nothing(name: str, value: object) -> None:
    """Stand in for TRL's `log_extra` and `log_metric`."""
