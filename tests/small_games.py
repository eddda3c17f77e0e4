"""Games for two whose best play is known."""

import numpy as np

from textenv.stop_strings import StopStrings
from textenv.tokenizers import CharacterTokenizer
from textenv.worlds import Outcome, TurnRules, TwoPlayerGame


def rules_of(alphabet, may_say=None, budget=20, max_tokens=1, stop_strings=()):
    """Rules of turns that a stop token, the last id, ends too; it can be chosen if all can."""
    tokenizer = CharacterTokenizer(alphabet)
    is_stop = np.zeros(tokenizer.vocab_size, dtype=bool)
    is_stop[-1] = True
    allowed = np.ones((2, tokenizer.vocab_size), dtype=bool)
    if may_say is not None:
        allowed[:] = False
        allowed[:, tokenizer.encode(may_say)] = True
    return TurnRules(
        tokenizer=tokenizer,
        is_stop=is_stop,
        stop_strings=StopStrings(stop_strings, tokenizer),
        allowed=allowed,
        min_tokens=0,
        max_tokens=max_tokens,
        budget=budget,
        rows=1,
        length=30,
    )


def for_seat(seat, reward):
    """A zero-sum game's rewards, by what `seat` gets."""
    return (reward, -reward) if seat == 0 else (-reward, reward)


class Nim(TwoPlayerGame):
    """Take 1 to 3; who takes the last one wins. The prompt is the heap, and so is every reply."""

    def begin(self, record, rng):
        self.left = int(record["prompt"])

    def move(self, seat, text, rng):
        taken = int(text) if text.isdecimal() else 0
        if not 1 <= taken <= min(3, self.left):
            return Outcome(rewards=for_seat(seat, -1.0), over=True)
        self.left -= taken
        if self.left == 0:
            return Outcome(rewards=for_seat(seat, 1.0), over=True)
        return Outcome(str(self.left))


def best_in_nim(left):
    """What to take: a multiple of 4 should be left; any legal number where it cannot be."""
    return left % 4 or 1


class Pennies(TwoPlayerGame):
    """Both show h or t at once; seat 0 wants equal sides. In equilibrium both show h with 1/3."""

    pays = {"hh": 1.0, "ht": -0.5, "th": -0.5, "tt": 0.25}  # noqa: RUF012

    def begin(self, record, rng):
        self.first = ""
        return "=", "#"

    def move(self, seat, text, rng):
        if seat == 0:
            self.first = text
            return Outcome(hidden=True)
        return Outcome(
            f"{self.first}{text}", rewards=for_seat(0, self.pays[self.first + text]), over=True
        )


class Kuhn(TwoPlayerGame):
    """Kuhn's poker (1950): one card each of three, pass or bet; `record["cards"]` are the two."""

    stakes = {"pp": 1, "pbp": 1, "pbb": 2, "bp": 1, "bb": 2}  # noqa: RUF012

    def begin(self, record, rng):
        self.cards, self.said = record["cards"], ""
        return self.cards[0], self.cards[1]

    def move(self, seat, text, rng):
        self.said += text
        if self.said not in self.stakes:
            return Outcome()
        first_wins = self.cards[0] > self.cards[1]
        if self.said in ("pbp", "bp"):  # somebody gave up
            first_wins = self.said == "bp"
        stake = self.stakes[self.said]
        return Outcome(rewards=for_seat(0, float(stake if first_wins else -stake)), over=True)


DEALS = [{"prompt": "", "cards": a + b} for a in "123" for b in "123" if a != b]
