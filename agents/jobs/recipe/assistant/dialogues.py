"""What the assistant's recipe asks: dialogues through a template, and who pays for their turns."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.supervised import Example
from policies import RewardModel
from textenv import Prompt
from textenv.frames import ChatTemplate
from textenv.rewards import StepBatch, dense
from textenv.tasks import assistant
from textenv.worlds import Reply, Turn

TEMPLATES = {
    "en": ChatTemplate(),
    "zh": ChatTemplate(user="问：{content}\n答：", answer="{content}"),
}
"""How a conversation is written in each language."""


def demonstrations(talks: Sequence[assistant.Dialogue], template: ChatTemplate) -> list[Example]:
    """Dialogues with the references as answers."""
    return [Example.from_record(talk.record(), template) for talk in talks]


def prompts_of(talks: Sequence[assistant.Dialogue], number: int | None = None) -> list[Prompt]:
    """The questions of dialogues as prompts, with the references as earlier answers.

    Args:
        talks: The dialogues.
        number: Which question of each, from 1; all of them if None.
    """
    return [
        Prompt.from_row(talk.prompt_record(one))
        for talk in talks
        for one in range(1, len(talk.exchanges) + 1)
        if number in (None, one)
    ]


class Unpaid(assistant.AssistantWorld):
    """The dialogues without the program's verdicts as rewards; they are told in the infos."""

    def reply(self, turn: Turn, rng: np.random.Generator) -> Reply:
        """See `AssistantWorld`."""
        reply = super().reply(turn, rng)
        return replace(reply, reward=0.0, info={**reply.info, "correct": reply.reward})


def score_turns(model: RewardModel, max_turn_tokens: int) -> Any:
    """A reward that is paid at the end of each turn: the model's score of the answer.

    The model reads the conversation up to there, ids as they were chosen.

    Args:
        model: Its vocabulary is the environment's.
        max_turn_tokens: Longest turn.
    """

    def score(batch: StepBatch) -> NDArray[np.float64]:
        before = 0 if batch.turn_starts is None else batch.turn_starts
        said = batch.lengths - batch.prompt_lengths - before
        ends = batch.stopped | batch.ended | (said >= max_turn_tokens)
        scores = np.zeros(len(batch))
        if ends.any():
            until = batch.lengths - batch.stopped  # the model puts its stop token there itself
            texts = zip(batch.tokens[ends], until[ends], strict=True)
            scores[ends] = model.score_ids(
                [ids[:end].tolist() for ids, end in texts],
                answers=(said - batch.stopped)[ends].tolist(),
            )
        return scores

    return dense(score, "reward_model")
