"""Training by several processes, which compute together what one would.

ranks   the processes: their number, and what they tell each other
shares  which rows of a batch each of them reads
launch  the group of a command that torchrun started
"""

from agents.distribution.ranks import Ranks

__all__ = ["Ranks"]
