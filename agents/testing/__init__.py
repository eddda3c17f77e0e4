"""Checks of anyone's loss function against exact gradients."""

from agents.testing.batches import LossBatch
from agents.testing.check import LossReport, check_loss, leave_one_out
from agents.testing.laws import Law
from agents.testing.libraries import of_algorithm

__all__ = ["Law", "LossBatch", "LossReport", "check_loss", "leave_one_out", "of_algorithm"]
