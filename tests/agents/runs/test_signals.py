"""Signals that ask a run to end."""

import os
import signal

import pytest

from agents.runs.signals import Asked, Stopped


def test_a_signal_is_noted_where_nobody_reads_what_is_said():
    """As after `textenv train 2>&1 | tee log` and Ctrl-C, of which tee dies too."""
    reads, writes = os.pipe()
    os.close(reads)
    kept = os.dup(2)
    asked = Asked()
    try:
        os.dup2(writes, 2)
        asked(signal.SIGINT, None)
    finally:
        os.dup2(kept, 2)
        os.close(writes)
        os.close(kept)
    assert asked.by is signal.SIGINT
    with pytest.raises(Stopped):
        asked(signal.SIGTERM, None)
