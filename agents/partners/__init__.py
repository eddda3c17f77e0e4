"""The other player is a policy: a frozen copy, earlier weights, or the learner's present ones.

    players = TwoPlayers(Nim)
    envs = TextVectorEnv(64, world=players, prompts=..., max_turn_tokens=1, ...)
    policy = TransformerPolicy.for_env(envs)
    players.partner = policy                    # the present weights: both seats learn
    players.partner = policy.frozen_copy()      # an opponent that stays as it is
    players.partner = Pool(policy)              # earlier weights; pool.add() adds the present ones

The rules of the game are a class of yours, `textenv.worlds.TwoPlayerGame`. Not covered: more than
two players, and partners that are encoder-decoders.
"""

from agents.partners.exploitability import exploitability, turn_probabilities
from agents.partners.pool import Pool
from agents.partners.two_players import TwoPlayers

__all__ = ["Pool", "TwoPlayers", "exploitability", "turn_probabilities"]
