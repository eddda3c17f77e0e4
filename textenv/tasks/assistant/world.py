"""The assistant's world as an environment: it asks, and pays for each correct answer."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from textenv.errors import WorldError
from textenv.tasks.assistant.dialogues import KINDS, Dialogue, dialogues
from textenv.tasks.assistant.verdicts import correct
from textenv.worlds import Opening, Reply, Turn, World


class AssistantWorld(World):
    """A person who asks the questions of a dialogue, one after the other.

    The prompts are records of `world_record`, or they are drawn anew by `english_questions` or
    `chinese_questions`:

        gym.make_vec(
            "textenv/Generate-v0",
            num_envs=8,
            world="textenv.tasks.assistant:AssistantWorld",
            prompts="textenv.tasks.assistant:english_questions",
            frame=ChatTemplate(),
            ...
        )

    Each turn is paid 1 if the answer is correct and 0 if not. The next question comes whatever the
    answer was. What is correct then follows from the questions, not from earlier mistakes.
    """

    def begin(self, record: Mapping[str, Any], rng: np.random.Generator) -> Opening:
        """The first question, as messages."""
        if "dialogue" not in record:
            raise WorldError(
                "the prompt has no column 'dialogue': make the prompts with "
                "textenv.tasks.assistant.world_record"
            )
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


def english_questions(rng: np.random.Generator) -> dict[str, Any]:
    """A prompt for `AssistantWorld` that is drawn from all training dialogues in English."""
    return _drawn("en", rng)


def chinese_questions(rng: np.random.Generator) -> dict[str, Any]:
    """A prompt for `AssistantWorld` that is drawn from all training dialogues in Chinese."""
    return _drawn("zh", rng)


def _drawn(code: str, rng: np.random.Generator) -> dict[str, Any]:
    names = [kind.name for kind in KINDS if not kind.held_out]
    kind = names[int(rng.integers(len(names)))]
    (dialogue,) = dialogues(code, "training", 1, int(rng.integers(2**31)), [kind])
    return world_record(dialogue)
