"""Search over the beginnings of answers: best-first, Monte Carlo tree search, best of n."""

from agents.search.answering import BySearch, generate
from agents.search.answers import Scored, SingleAnswers
from agents.search.best_first import BestFirst
from agents.search.best_of import BestOf
from agents.search.budget import Budget, Spent
from agents.search.collecting import SearchCollector
from agents.search.expert_iteration import ExpertIteration, Regularised, visit_counts
from agents.search.leaves import ByBoth, ByContinuations, ByStopping, ByValue, LeafValue
from agents.search.mcts import MCTS, MinMax, best, mean, puct
from agents.search.moves import Branching, BySegment, ByToken
from agents.search.reading import PrefixReader
from agents.search.searching import Found, Search, search
from agents.search.tree import Node, Tree

__all__ = [
    "MCTS",
    "BestFirst",
    "BestOf",
    "Branching",
    "Budget",
    "ByBoth",
    "ByContinuations",
    "BySearch",
    "BySegment",
    "ByStopping",
    "ByToken",
    "ByValue",
    "ExpertIteration",
    "Found",
    "LeafValue",
    "MinMax",
    "Node",
    "PrefixReader",
    "Regularised",
    "Scored",
    "Search",
    "SearchCollector",
    "SingleAnswers",
    "Spent",
    "Tree",
    "best",
    "generate",
    "mean",
    "puct",
    "search",
    "visit_counts",
]
