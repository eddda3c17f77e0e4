"""What a search may spend on one prompt, and what it has spent."""

from dataclasses import dataclass

from textenv.errors import OptionError


@dataclass(frozen=True)
class Budget:
    """Bounds for the search of one prompt; it ends when the first of them is reached.

    A step looks at several leaves together, so `encoded_tokens` may be passed by what one step
    reads. The others hold exactly, but that an answer is finished and scored if none was.

    Attributes:
        expansions: Beginnings that are read, and whose moves are then known.
        visits: Leaves that are visited: beginnings that are read, and finished answers.
        encoded_tokens: Tokens that the policy encodes, those of the prompt and of continuations
            included.
        reward_calls: Different answers that are scored.

    Raises:
        OptionError: All are None, or one is not positive.
    """

    expansions: int | None = 200
    visits: int | None = None
    encoded_tokens: int | None = None
    reward_calls: int | None = None

    def __post_init__(self) -> None:
        """Refuse a search without an end."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if not given or min(given.values()) < 1:
            raise OptionError(
                f"a search with {self} has no end, or cannot begin: give a bound or more, each of "
                "them 1 or more"
            )

    def left(self, spent: "Spent", calls_each: int) -> int:
        """How many leaves may still be visited, if each may need this many reward calls."""
        lefts = [2**31]
        if self.expansions is not None:
            lefts.append(self.expansions - spent.expansions)
        if self.visits is not None:
            lefts.append(self.visits - spent.visits)
        if self.encoded_tokens is not None and spent.encoded_tokens >= self.encoded_tokens:
            lefts.append(0)
        if self.reward_calls is not None:
            lefts.append((self.reward_calls - spent.reward_calls) // max(calls_each, 1))
        return max(min(lefts), 0)


@dataclass
class Spent:
    """What a search has spent so far; see `Budget` for the meaning of each."""

    expansions: int = 0
    visits: int = 0
    encoded_tokens: int = 0
    reward_calls: int = 0


SOME = Budget()
"""The budget of a search that is given none."""
