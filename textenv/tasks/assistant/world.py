"""The assistant's world as an environment: it asks, and pays for each correct answer."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from textenv.tasks.assistant.dialogues import Dialogue
from textenv.tasks.assistant.verdicts import correct
from textenv.worlds import Opening, Reply, Turn, World


class AssistantWorld(World):
    """A person who asks the questions of a dialogue, one after the other.

    The prompts are records of dialogues, from `world_record`. Each turn is paid 1 if the answer is
    correct and 0 if not. The next question comes whatever the answer was; later ones refer back to
    what was asked before, so the correct answer to them does not depend on earlier mistakes.
    """

    def begin(self, record: Mapping[str, Any], rng: np.random.Generator) -> Opening:
        """The first question, as messages."""
        self.asked = 1
        self.dialogue = dict(record["dialogue"])
        return [{"role": "user", "content": self._questions[0]}]

    def reply(self, turn: Turn, rng: np.random.Generator) -> Reply:
        """Pays for the answer, and asks the next question or ends."""
        check = self.dialogue["checks"][self.asked - 1]
        reward = float(correct(check, turn.text))
        questions = self._questions
        if self.asked == len(questions):
            return Reply(reward=reward, terminated=True)
        self.asked += 1
        return Reply(questions[self.asked - 1], reward=reward)

    @property
    def _questions(self) -> list[str]:
        messages = self.dialogue["messages"]
        return [message["content"] for message in messages if message["role"] == "user"]


def world_record(dialogue: Dialogue) -> dict[str, Any]:
    """A prompt for `AssistantWorld`: the first question, and the dialogue as a column."""
    return {
        "prompt": dialogue.messages(1),
        "kind": dialogue.kind,
        "dialogue": dialogue.record(),
    }
