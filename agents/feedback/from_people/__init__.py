"""Feedback that people give in a terminal beside rankings: key presses, comparisons, answers."""
