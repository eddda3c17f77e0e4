"""Training by several processes, which compute together what one would.

ranks   the processes: their number, and what they tell each other
shares  which sequences of a minibatch each of them reads
"""

from agents.distribution.ranks import Ranks

__all__ = ["Ranks"]
