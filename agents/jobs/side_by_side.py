"""Two policies in one conversation, which answer each text on the same random numbers."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agents.jobs.conversation import Chat, Continuation, Show
from policies.sampling import sample_gumbel
from textenv.seeding import keyed_generator


@dataclass
class SideBySide:
    """Asks both, one after the other; the conversation goes on with the first one's answer.

    Each token of an answer has one random number, the same for both. So policies that differ little
    say the same up to where they really differ; see `policies.sampling.sample_gumbel`.

    Attributes:
        talkers: The two, by the names that stand in front of their answers; of one kind.
        seed: Of the random numbers; other ones each time if None.
        answers: What the two have said last, in their order; empty before.
    """

    talkers: Mapping[str, Chat | Continuation]
    seed: int | None = None
    answers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._seed = secrets.randbits(64) if self.seed is None else self.seed
        self._asked = 0

    @property
    def first(self) -> Chat | Continuation:
        """The one whose conversation goes on."""
        return next(iter(self.talkers.values()))

    def answer(self, text: str, show: Show) -> str:
        """The first one's answer to `text`; both are shown. Raises as the talkers do."""
        self._asked += 1
        before = list(self.first.messages) if isinstance(self.first, Chat) else []
        self.answers = []
        for number, (name, talker) in enumerate(self.talkers.items()):
            show(f"\n\n[{name}] " if number else f"[{name}] ")
            if isinstance(talker, Chat):
                talker.messages = list(before)
            numbers = keyed_generator(self._seed, self._asked)
            talker.voice = replace(talker.voice, generator=numbers, sampler=sample_gumbel)
            self.answers.append(talker.answer(text, show))
        return self.answers[0]

    @property
    def asked(self) -> list[dict[str, str]] | None:
        """The messages, the system message included, that both of two last answers are to.

        None if there are no two, or results of tools stand between and differ.
        """
        first, second = self.talkers.values()
        if len(self.answers) < 2 or not (isinstance(first, Chat) and isinstance(second, Chat)):
            return None
        if first.messages[:-1] != second.messages[:-1]:
            return None
        system = [] if first.system is None else [{"role": "system", "content": first.system}]
        return [*system, *first.messages[:-1]]

    def go_on_with_the_second(self) -> None:
        """The conversation goes on as the second one has answered."""
        first, second = self.talkers.values()
        assert isinstance(first, Chat) and isinstance(second, Chat)
        first.messages = list(second.messages)

    def reset(self) -> None:
        """Forget what was said."""
        self.answers = []
        for talker in self.talkers.values():
            talker.reset()
