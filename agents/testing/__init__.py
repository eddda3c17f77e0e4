"""Checks of anyone's loss function against exact gradients."""

from agents.testing.batches import LossBatch
from agents.testing.check import check_loss, leave_one_out
from agents.testing.laws import Law
from agents.testing.libraries import of_algorithm
from agents.testing.report import LossReport

__all__ = ["Law", "LossBatch", "LossReport", "check_loss", "leave_one_out", "of_algorithm"]
