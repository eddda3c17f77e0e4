"""The benchmark of over-optimisation: its verdict by hand, and a run of a few updates."""

import numpy as np
import pytest
import torch

from benchmarks import over_optimisation as bench
from policies import worst_case

torch.set_num_threads(1)


def test_a_pair_counts_once():
    table = bench.worth()
    assert abs(table.mean()) < 1e-12
    a, b, c = (bench.LETTERS.index(letter) for letter in "abc")
    assert bench.gold("abab") == pytest.approx(table[a, b] + table[b, a])
    assert bench.gold("abc") == pytest.approx(table[a, b] + table[b, c])
    assert bench.gold("a") == 0


def made_run(golds, proxies, kls, noise=0.0):
    """A run whose means are given."""
    drawn = np.random.default_rng(0).normal(size=(len(golds), bench.ROWS)) * noise
    gold = np.array(golds, float)[:, None] + drawn
    proxy = np.array(proxies, float)[:, None] + drawn
    return bench.Run(np.array(kls, float), proxy, gold, np.array(0.7), np.zeros((0, 3)))


def test_what_has_fallen_and_what_has_risen():
    golds = [0, 2, 4, 5, 5, 5, 3, 2, 1, 1, 1]
    run = made_run(golds, range(11), [3 * i for i in range(11)], noise=0.5)
    found = bench.verdict(run)
    assert found.best_kl == pytest.approx(12) and found.end_kl == pytest.approx(27)
    assert found.fall == pytest.approx(4, abs=0.3) and found.rise == pytest.approx(5, abs=0.3)
    # Half of three updates' answers on each side, deviation 0.5.
    expected = 1.96 * np.sqrt(2 * 0.25 / (3 * bench.ROWS / 2))
    assert found.fall_error == pytest.approx(expected, rel=0.2)
    assert found.shown
    steady = made_run(sorted(golds), range(11), range(11), noise=0.5)
    assert bench.verdict(steady).fall == 0 and not bench.verdict(steady).shown
    both = made_run(golds, golds, range(11), noise=0.5)
    assert not bench.verdict(both).shown  # the proxy has fallen too


def test_where_a_run_is_stopped():
    golds = [0, 2, 4, 5, 5, 5, 3, 2, 1, 1, 1]
    run = made_run(golds, range(11), [3 * i for i in range(11)])
    # 15 nats are exceeded by the seventh update (18); its policy gave the answers from then on.
    beyond, judged = bench.stopped(run).values()
    assert beyond == pytest.approx((2 + 1 + 1) / 3)
    # The best mean of three ends with the sixth update.
    assert judged == pytest.approx((3 + 2 + 1) / 3)


def test_a_few_updates_that_are_kept(tmp_path, monkeypatch):
    for name, value in {"DATA": (24,), "DRAWN": 1000, "UPDATES": 3, "NUMBERS": (1, 4)}.items():
        monkeypatch.setattr(bench, name, value)
    proxy = bench.Proxy(size=16, comparisons=24, combine=worst_case)
    monkeypatch.setattr(bench, "TRAINED", (proxy,))
    world = bench.World(0)
    done = bench.kept(world, proxy, tmp_path)
    assert done.gold.shape == done.proxy.shape == (3, bench.ROWS) and done.kl[0] == 0
    assert done.kl[2] > 0 and done.gold[0].std() > 1
    assert done.chosen[0].tolist()[0] == 0 and done.chosen[1, 1] > done.chosen[0, 1]
    again = bench.kept(bench.World(0), proxy, tmp_path)  # nothing is drawn again
    assert all(np.array_equal(a, b) for a, b in zip(done, again, strict=True))
    assert world.answers[0] and not {":"} & set("".join(world.answers))
