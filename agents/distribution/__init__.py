"""Training by several processes, which compute together what one would.

ranks            the processes: their number, and what they tell each other
shares           which rows of a batch each of them reads
launch           the group of a command that torchrun started
sharded          networks that no rank holds as a whole
gathering        their weights, all together for a while
checkpoints      checkpoints that all ranks write
rows             their running episodes as those of one
tensor_parallel  layers of one network on several ranks
optimizers       the state of an optimiser in a checkpoint
optimizer_files  the parts of a sharded network's optimiser on disk
"""

from agents.distribution.ranks import Ranks

__all__ = ["Ranks"]
