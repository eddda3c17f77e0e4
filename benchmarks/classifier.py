"""Held-out accuracy of a classification head on a small GPT, beside a bag of words.

A GPT reads the training texts without their labels, then learns the labels with GPT-1's head, with
and without the auxiliary loss of language modelling, and without having read anything before. The
yardstick is logistic regression on TF-IDF features with scikit-learn: words and pairs of words, or
one to three characters where words are not separated. All are examined on the same texts.

Run: taskset -c 0 python -m benchmarks.classifier reviews.jsonl --threads 1
"""

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from agents.evaluation import Interval, bootstrap_interval
from agents.jobs.holding_out import hold_out
from agents.supervised import (
    LabelledText,
    accuracy,
    classification_steps,
    labels_of,
    pretraining_steps,
    read_labelled,
)
from benchmarks.common import BF16, command_line, report
from policies import TextClassifier, TransformerConfig, TransformerPolicy
from textenv.tokenizers import train_bpe

VOCABULARY, CONTEXT = 2048, 96
HELD_OUT = 0.2
PRECISION = torch.bfloat16 if BF16 else torch.float32


def beginner(learned: Sequence[LabelledText], seed: int) -> TransformerPolicy:
    """A new GPT whose vocabulary was learned from the texts."""
    tokenizer = train_bpe([example.text for example in learned], VOCABULARY)
    shape = TransformerConfig(tokenizer.vocab_size, CONTEXT, n_layer=2, n_head=4, n_embd=128)
    return TransformerPolicy(shape, tokenizer=tokenizer, seed=seed)


def read_first(
    policy: TransformerPolicy, learned: Sequence[LabelledText], tokens: int, seed: int
) -> TransformerPolicy:
    """A copy that has read the texts."""
    policy = copy.deepcopy(policy)
    assert policy.tokenizer is not None and policy.tokenizer.stop_token is not None
    encoded = [[*policy.tokenizer.encode(e.text), policy.tokenizer.stop_token] for e in learned]
    stream = np.array([token for ids in encoded for token in ids])
    for _ in pretraining_steps(
        policy,
        stream,
        total_tokens=tokens,
        window=CONTEXT,
        batch_size=16,
        learning_rate=3e-3,
        precision=PRECISION,
        seed=seed,
    ):
        pass
    return policy


def classified(
    policy: TransformerPolicy,
    learned: Sequence[LabelledText],
    kept: Sequence[LabelledText],
    lm_weight: float,
    seed: int,
) -> Interval:
    """Held-out accuracy after learning the labels."""
    model = TextClassifier.from_policy(policy, labels_of(learned), seed)
    for _ in classification_steps(
        model,
        learned,
        lm_weight=lm_weight,
        learning_rate=5e-4,
        weight_decay=0.1,
        precision=PRECISION,
        seed=seed,
    ):
        pass
    return accuracy(model, kept)


def bag_of_words(
    learned: Sequence[LabelledText], kept: Sequence[LabelledText], characters: bool
) -> Interval:
    """Held-out accuracy of TF-IDF and logistic regression."""
    form: dict[str, Any] = {"analyzer": "char", "ngram_range": (1, 3)} if characters else {}
    features = TfidfVectorizer(**{"ngram_range": (1, 2), **form}, sublinear_tf=True, min_df=2)
    model = LogisticRegression(max_iter=1000, C=4.0)
    model.fit(features.fit_transform([e.text for e in learned]), [e.label for e in learned])
    said = model.predict(features.transform([e.text for e in kept]))
    return bootstrap_interval([float(a == e.label) for a, e in zip(said, kept, strict=True)])


def measure(arguments: Any) -> Iterator[Mapping[str, Any]]:
    """A row for each way to classify, for each split."""
    examples = read_labelled(arguments.texts)
    for seed in range(arguments.repeats):
        kept, learned = hold_out(
            examples, lambda e: e.text, lambda n: round(HELD_OUT * n), np.random.default_rng(seed)
        )
        new = beginner(learned, seed)
        begin = time.perf_counter()
        read = read_first(new, learned, arguments.pretrain_tokens, seed)
        reading = time.perf_counter() - begin
        both = (learned, kept)
        ways = {
            "read first, L2 + 0.5 L1": (partial(classified, read, *both, 0.5, seed), reading),
            "read first, L2 alone": (partial(classified, read, *both, 0.0, seed), reading),
            "new, L2 alone": (partial(classified, new, *both, 0.0, seed), 0.0),
            "TF-IDF + logistic regression": (
                partial(bag_of_words, *both, arguments.characters),
                0.0,
            ),
        }
        for name, (way, before) in ways.items():
            begin = time.perf_counter()
            found = way()._asdict()
            seconds = before + time.perf_counter() - begin
            yield {"way": name, "split": seed, "texts": len(kept), **found, "seconds": seconds}


def main() -> None:
    """Train and examine all of them on as many splits as asked for."""
    parser = command_line(__doc__ or "")
    parser.add_argument("texts", type=Path, help="records with a 'text' and a 'label'")
    parser.add_argument("--pretrain-tokens", type=int, default=1_500_000)
    parser.add_argument("--characters", action="store_true", help="words are not separated")
    parser.set_defaults(repeats=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report("classifier", measure(arguments), pretrain_tokens=arguments.pretrain_tokens)


if __name__ == "__main__":
    main()
