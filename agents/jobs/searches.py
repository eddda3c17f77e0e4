"""The searches that a command line names."""

from collections.abc import Mapping

from agents.commands.evaluate import Searching
from agents.evaluation.answers import Answerer
from agents.search import (
    MCTS,
    BestFirst,
    BestOf,
    Budget,
    ByContinuations,
    BySearch,
    ByToken,
    ByValue,
    Search,
)
from policies import Policy
from textenv.errors import OptionError

SAMPLE = "sample"


def searches(wanted: Searching) -> dict[str, Answerer | None]:
    """Who answers, by the names of the rows; None samples.

    Raises:
        OptionError: Something is said of a search, and none is wanted.
    """
    names = list(dict.fromkeys(wanted.search))
    if not set(names) - {SAMPLE}:
        if wanted != Searching(search=wanted.search):
            raise OptionError(
                "--expansions, --by-value and --moves say how to search: name a --search, such as "
                "--search mcts"
            )
        return {"": None}
    leaf = ByValue() if wanted.by_value else ByContinuations()
    branching = ByToken(wanted.moves)
    known: dict[str, Search] = {
        "best-of-n": BestOf(),
        "best-first": BestFirst(branching=branching, leaf=leaf),
        "mcts": MCTS(branching=branching, leaf=leaf),
    }
    budget = Budget(wanted.expansions)
    return {n: BySearch(known[n], budget) if n in known else None for n in names}


def check_values(policies: Mapping[str, Policy]) -> None:
    """Refuse to judge by a value head that finds all texts alike, as a new one does.

    Raises:
        OptionError: One of the policies has such a head.
    """
    for name, policy in policies.items():
        if not policy.value_head.weight.any():
            raise OptionError(
                f"--by-value: the value head of {name} was never trained, and finds all beginnings "
                "alike: leave out --by-value, or train the policy with PPO or A2C"
            )
