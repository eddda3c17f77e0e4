"""Feedback that a language model gives: comparisons, critiques and revisions, instructions."""
