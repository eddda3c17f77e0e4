"""Stock Stable-Baselines3 PPO: our policy and buffer against what its users write today.

Both sides are the released `PPO`, with the same network and weights (model S), 32 rows, prompts of
16 to 32 tokens, answers of 64, one rollout of 2,048 tokens and four epochs over it in minibatches
of 256. The peer reads the whole observation with a transformer as features extractor, `MlpPolicy`
and the plain buffer. Both have Adam's fused kernel. A round of the peer takes four minutes or more.

Run: taskset -c 0 python -m benchmarks.sb3 --threads 1
"""

import time

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv

from agents.sb3 import SB3TokenPolicy, TrajectoryBuffer, to_vec_env
from benchmarks.common import (
    MAX_ANSWER,
    ROWS,
    Ids,
    as_gpt2,
    command_line,
    config,
    interleaved,
    make_policy,
    median,
    random_prompts,
    ratio,
    report,
)
from textenv import TextVectorEnv

TOKENS, EPOCHS, MINIBATCH = ROWS * MAX_ANSWER, 4, 256


class WholeText(BaseFeaturesExtractor):
    """The usual way: the network reads all of the padded observation, every time."""

    def __init__(self, observation_space):
        super().__init__(observation_space, config("S").n_embd)
        self.pad_token = int(observation_space.high.max())
        self.network = as_gpt2(make_policy("S")).transformer

    def forward(self, observations):
        """Features (n, n_embd) of observations (n, L)."""
        ids = observations.long()
        inside = ids != self.pad_token
        hidden = self.network(
            input_ids=ids.masked_fill(~inside, 0), attention_mask=inside.long(), use_cache=False
        ).last_hidden_state
        return hidden[torch.arange(len(ids)), inside.sum(1) - 1]


def evenness(episodes):
    """Share of even ids: a reward of zeros alone would make Adam's moments denormal numbers."""
    return [float((episode.tokens % 2 == 0).mean()) for episode in episodes]


def environment() -> VecEnv:
    """Fixed answers to random prompts."""
    vocab_size = config("S").vocab_size
    return to_vec_env(
        TextVectorEnv(
            ROWS,
            prompts=[{"tokens": prompt} for prompt in random_prompts(512, vocab_size)],
            reward=evenness,
            tokenizer=Ids(vocab_size),
            max_new_tokens=MAX_ANSWER,
        )
    )


class Timed(PPO):
    """Stock PPO that notes when the rollout ended."""

    def train(self) -> None:
        """The four epochs."""
        self.rollout_end = time.perf_counter()
        super().train()


def rates(model: Timed):
    """Tokens per second of a rollout and its four epochs; the split goes to `model.split`."""
    model.split = []

    def run() -> float:
        begin = time.perf_counter()
        model.learn(TOKENS, reset_num_timesteps=False)
        end = time.perf_counter()
        model.split.append((model.rollout_end - begin, end - model.rollout_end))
        return TOKENS / (end - begin)

    return run


def main() -> None:
    """Measure both sides in turn."""
    arguments = command_line(__doc__).parse_args()
    torch.set_num_threads(arguments.threads)
    shared = {
        "n_steps": MAX_ANSWER,
        "batch_size": MINIBATCH,
        "n_epochs": EPOCHS,
        "learning_rate": 1e-4,
        "seed": 0,
        "device": "cpu",
    }
    models = {
        "textenv": Timed(
            SB3TokenPolicy,
            environment(),
            rollout_buffer_class=TrajectoryBuffer,
            policy_kwargs={"policy": make_policy("S")},
            **shared,
        ),
        "whole text": Timed(
            "MlpPolicy",
            environment(),
            policy_kwargs={
                "features_extractor_class": WholeText,
                "net_arch": [],
                "optimizer_kwargs": {"eps": 1e-5, "fused": True},
            },
            **shared,
        ),
    }
    figures = interleaved({name: rates(m) for name, m in models.items()}, arguments.repeats)
    rows = [
        {
            "side": name,
            "tokens/s": median(figures[name]),
            "rollout s": median([rollout for rollout, _ in model.split]),
            "four epochs s": median([epochs for _, epochs in model.split]),
            "ratio": ratio(figures, name, "whole text"),
        }
        for name, model in models.items()
    ]
    report("sb3", rows, seed=0, repeats=arguments.repeats)


if __name__ == "__main__":
    main()
