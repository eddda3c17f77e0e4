"""Held-out accuracy of a reward model on Anthropic's hh-rlhf, beside a bag of words.

A small GPT reads the chosen dialogues of the training split, becomes a reward model and learns from
the pairs of the same split. The yardstick is logistic regression on the difference of the TF-IDF
features (words and pairs of words) of the two answers, with scikit-learn. Both are examined on the
same held-out pairs; no prompt is in both parts.

Run: taskset -c 0 python -m benchmarks.reward_model harmless-base-test.jsonl.gz --threads 1
"""

import time
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from agents.evaluation import bootstrap_interval
from agents.feedback import (
    calibration,
    pair_accuracy,
    read_rankings,
    reward_model_steps,
    split_rankings,
)
from agents.supervised import pretraining_steps
from benchmarks.common import command_line, report
from policies import TransformerConfig, TransformerPolicy
from policies.reward_model import RewardModel
from textenv.tokenizers import train_bpe

VOCABULARY, CONTEXT = 2048, 128
HELD_OUT = 0.2


def pretrained(training, tokens: int, seed: int) -> TransformerPolicy:
    """A GPT that has read the chosen dialogues of `training`."""
    dialogues = [f"{ranking.prompt}{ranking.answers[0]}" for ranking in training]
    tokenizer = train_bpe(dialogues, VOCABULARY)
    shape = TransformerConfig(tokenizer.vocab_size, CONTEXT, n_layer=2, n_head=4, n_embd=128)
    policy = TransformerPolicy(shape, tokenizer=tokenizer, seed=seed)
    stream = [t for text in dialogues for t in (*tokenizer.encode(text), tokenizer.stop_token)]
    for step in pretraining_steps(
        policy,
        np.array(stream),
        total_tokens=tokens,
        window=CONTEXT,
        batch_size=8,
        learning_rate=2e-3,
        seed=seed,
    ):
        last = step
    print(f"{len(stream)} tokens of dialogues; loss after {tokens}: {last.loss:.2f}")
    return policy


def bag_of_words(training, held_out) -> np.ndarray:
    """Whether logistic regression has each held-out pair in the right order."""
    texts = [answer for ranking in training for answer in ranking.answers]
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2).fit(texts)

    def differences(rankings):
        better, worse = (features.transform([r.answers[i] for r in rankings]) for i in (0, 1))
        return better - worse

    x = differences(training)
    sign = np.where(np.arange(x.shape[0]) % 2, 1, -1)  # both orders, so that both classes are there
    model = LogisticRegression(fit_intercept=False, max_iter=1000)
    model.fit(x.multiply(sign[:, None]).tocsr(), sign)
    margins = model.decision_function(differences(held_out))
    return (margins > 0) + 0.5 * (margins == 0)


def main() -> None:
    """Train both on as many splits as asked for."""
    parser = command_line(__doc__)
    parser.add_argument("preferences", type=Path)
    parser.add_argument("--pretrain-tokens", type=int, default=600_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.set_defaults(repeats=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rankings = read_rankings(args.preferences)
    rows, errors = [], []
    for seed in range(args.repeats):
        training, held_out = split_rankings(rankings, HELD_OUT, seed)
        begin = time.perf_counter()
        words = bootstrap_interval(bag_of_words(training, held_out))
        words_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        policy = pretrained(training, args.pretrain_tokens, seed)
        model = RewardModel.from_policy(policy, seed)
        for _ in reward_model_steps(
            model,
            training,
            epochs=args.epochs,
            learning_rate=args.learning_rate,
            seed=seed,
        ):
            pass
        seconds = time.perf_counter() - begin
        accuracy = pair_accuracy(model, held_out)
        errors.append(calibration(model, held_out).error)
        for side, interval, took in (
            ("reward model", accuracy, seconds),
            ("TF-IDF + logistic regression", words, words_seconds),
        ):
            row = {"side": side, "split": seed, "pairs": len(held_out)}
            rows.append(row | interval._asdict() | {"seconds": took})
    report(
        "reward_model",
        rows,
        calibration_errors=errors,
        parameters=sum(p.numel() for p in model.parameters()),
        vocabulary=VOCABULARY,
        context=CONTEXT,
        pretrain_tokens=args.pretrain_tokens,
        epochs=args.epochs,
        learning_rate=args.learning_rate,
    )


if __name__ == "__main__":
    main()
