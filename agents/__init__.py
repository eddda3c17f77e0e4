"""What learns: returns, losses, rollouts, the learner and the algorithms.

The names are in `__init__.pyi`; each is imported when it is first asked for, so that the command
line can read settings without torch.
"""

import lazy_loader

from textenv.imports import deferred

losses = deferred("agents.losses")
returns = deferred("agents.returns")
preference_losses = deferred("agents.preference_losses")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
