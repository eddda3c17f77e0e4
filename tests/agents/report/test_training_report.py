"""The report of a training run, read back."""

import math
import re
import subprocess
import sys

import numpy as np
import pytest

from agents.evaluation import Evaluation
from agents.report.figures import curve_svg
from agents.report.parts import Curve
from agents.report.training import Pair, write_training_report
from agents.runs.loggers import CSVLogger
from agents.runs.run_folder import RunFolder
from agents.runs.samples import Sample, evenly_ranked

EVIL = '<script>alert("x")</script>&'


def evaluation(scores, text="answer", reference=True):
    count = len(scores)
    return Evaluation(
        samples=[
            Sample(f"prompt {n} {EVIL}", f"{text} {n} {EVIL}", s) for n, s in enumerate(scores)
        ],
        answers=[np.array([1, 2, 3])] * count,
        logprobs=np.full(count, -3.0),
        ref_logprobs=np.full(count, -4.0 if reference else math.nan),
    )


def a_run(root, updates=30):
    run = RunFolder.create(root)
    run.write_config(
        {"learning_rate": 0.0005000000001, "policy": None, "tokens": 120_000, "save": True}
    )
    logger, evaluations = CSVLogger(run.metrics), CSVLogger(run.path / "evaluations.csv")
    for number in range(1, updates + 1):
        row = {"score": number / 100, "score_std": 0.1, "kl": 0.01 * number, "entropy": 4.0}
        row |= {"component.length": 3.0, "loss": -0.1, "rollout_seconds": 1.0}
        logger.log(1000 * number, row)
    logger.log(1000, {"score": 0.9, "kl": 0.0})  # a step that was done again
    evaluations.log(5000, {"score": 0.5})
    return run


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = a_run(tmp_path_factory.mktemp("runs"))
    before = evaluation([n / 100 for n in range(60)])
    after = evaluation([0.5] * 60, "better")
    path = write_training_report(run, before, after)
    assert path == run.path / "report.html"
    return path.read_text(encoding="utf-8")


def test_the_page_stands_alone_and_texts_are_escaped(page):
    own = re.sub(r'xmlns(:xlink)?="[^"]*"|url\(#', "", page)  # names, and parts of the same figure
    assert not re.search(r"<(script|link|img|iframe|object)|@import|url\(|https?://", own)
    assert page.count("&lt;script&gt;") == 50 * 3  # prompt, before, after


def test_results_and_gain(page):
    assert "<strong>+0.205</strong>" in page and "60 answers paired by prompt" in page
    row = re.search(r"<td[^>]*>mean score</td><td[^>]*>(.*?)</td><td[^>]*>(.*?)</td>", page)
    assert row[1].startswith("0.295 [") and row[2] == "0.500 [0.500, 0.500]"
    assert re.search(r">KL an answer \(nats\)</td><td[^>]*>1.000</td>", page)


def test_only_what_was_measured_has_a_curve(page):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert captions == [
        "Score",
        "Components of the score, unweighted",
        "KL to the reference",
        "Entropy",
        "Loss",
        "Time of an update",
    ]
    assert "evaluations on the way" in page and "fill-opacity: 0.2" in page


def test_answers_stand_side_by_side_from_the_largest_gain_to_the_smallest(page):
    gains = [float(g) for g in re.findall(r'<span class="(?:more|less|same)">(.*?)</span>', page)]
    assert len(gains) == 50 and gains == sorted(gains, reverse=True)
    assert (gains[0], gains[-1]) == (0.5, -0.09)
    first = page[page.index('<article class="pair">') :]
    assert first.index("prompt 0 ") < first.index("answer 0 ") < first.index("better 0 ")


def test_settings_are_readable(page):
    settings = dict(re.findall(r"<div><dt>(.*?)</dt><dd>(.*?)</dd></div>", page))
    assert settings["learning rate"] == "0.0005" and settings["tokens"] == "120,000"
    assert settings["save"] == "yes" and "policy" not in settings
    assert settings["python"] == ".".join(map(str, sys.version_info[:3]))


def test_without_a_reference_there_is_no_kl(tmp_path):
    sides = [evaluation([0.0, 1.0], reference=False)] * 2
    text = write_training_report(RunFolder.create(tmp_path), *sides).read_text(encoding="utf-8")
    assert "KL" not in text and "nan" not in text.lower()
    assert "no metrics.csv" in text


def test_answers_to_other_prompts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 samples before and 1 after"):
        write_training_report(RunFolder.create(tmp_path), evaluation([0, 1]), evaluation([0]))


def test_shown_pairs_are_even_in_rank():
    pairs = [Pair(Sample("p", "", 0.0), Sample("p", "", gain)) for gain in (4, 100, 2, 1, 3)]
    assert [pair.gain for pair in evenly_ranked(pairs, 3, lambda pair: pair.gain)] == [100, 3, 1]


# ---------------------------------------------------------------- figures


def test_a_band_a_gap_and_a_line():
    points = [(0, 1.0), (1, math.nan), (2, -3.0), (4, 2.0)]
    band = {"a": [(0, -9.0, 9.0), (4, -9.0, 9.0)]}
    alone, banded = (curve_svg(Curve("c", "x", "y", {"a": points}, b), "f") for b in ({}, band))
    assert "fill-opacity" not in alone and "fill-opacity: 0.2" in banded
    assert "nan" not in banded


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0], [1e-9, 2e-9], [-2e6, 5e7], []])
def test_any_numbers_can_be_drawn(values):
    svg = curve_svg(Curve("c", "x", "y", {"a": list(enumerate(values))}), "f")
    assert svg.startswith("<svg") and "nan" not in svg


def test_a_report_needs_nothing_heavy():
    """What draws is imported when something is drawn."""
    script = "import sys, agents.report.training; print({'matplotlib', 'pandas'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "set()\n"
