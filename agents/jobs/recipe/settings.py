"""How large a run of the recipe is."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from agents.optimisation.settings import PrecisionName


@dataclass(frozen=True)
class Size:
    """Shape of the network, shared by all stages."""

    n_layer: int
    n_head: int
    n_embd: int


SIZES = {"small": Size(2, 3, 96), "medium": Size(3, 4, 128), "large": Size(4, 5, 160)}


@dataclass(frozen=True)
class StageSettings:
    """What is done in each stage, whatever the task.

    Attributes:
        language: `en` or `zh`.
        size: One of `SIZES`.
        seed: Of everything random.
        vocab_size: Of the byte-pair encoding.
        context: Tokens of the longest text: two examples, a prompt and an answer.
        max_new_tokens: Longest answer.
        temperature: Of all sampling.
        pretrain_tokens: To be predicted in pretraining.
        pretrain_batch: Windows of a step of pretraining.
        pretrain_optimizer: One of `agents.supervised.optimisers.OPTIMISERS`.
        pretrain_rate: Peak learning rate of pretraining.
        demonstrations: Examples of SFT.
        sft_epochs: Passes over them.
        sft_rate: Peak learning rate of SFT.
        ranked_prompts: Prompts whose answers are ranked.
        answers_per_prompt: K, how many answers are ranked at a time.
        reward_model_epochs: Passes over the rankings.
        reward_model_rate: Peak learning rate of the reward model.
        ppo_tokens: To be chosen in PPO, and again in PPO-ptx.
        ppo_rows: Answers written at a time.
        ppo_rate: Learning rate at the start; falls to a tenth.
        kl_coef: Weight of the KL to the SFT model.
        ptx_coef: Weight of the pretraining text in PPO-ptx.
        dpo_rate: Learning rate of DPO.
        dpo_beta: Leash of DPO.
        dpo_epochs: Passes of DPO over the rankings.
        best_of: n of best-of-n.
        device: Where to compute.
        precision: Number format of the matrix products of training.
        takes_time: Names of the settings that say how much is done.
    """

    takes_time: ClassVar[tuple[str, ...]] = (
        "pretrain_tokens",
        "demonstrations",
        "ranked_prompts",
        "ppo_tokens",
    )

    language: str = "en"
    size: str = "medium"
    seed: int = 0
    vocab_size: int = 4096
    context: int = 96
    max_new_tokens: int = 24
    temperature: float = 0.8
    pretrain_tokens: int = 900_000
    pretrain_batch: int = 8
    pretrain_optimizer: str = "adamw"
    pretrain_rate: float = 2.5e-3
    demonstrations: int = 3000
    sft_epochs: int = 2
    sft_rate: float = 5e-4
    ranked_prompts: int = 1500
    answers_per_prompt: int = 4
    reward_model_epochs: int = 2
    reward_model_rate: float = 1e-3
    ppo_tokens: int = 40_000
    ppo_rows: int = 96
    ppo_rate: float = 5e-4
    kl_coef: float = 0.25
    ptx_coef: float = 1.0
    dpo_rate: float = 1e-4
    dpo_beta: float = 0.1
    dpo_epochs: int = 1
    best_of: int = 8
    device: str = "cpu"
    precision: PrecisionName = "float32"

    def scaled(self, budget: float) -> Self:
        """The same with `budget` times as much of everything that takes time."""
        return replace(
            self, **{name: round(getattr(self, name) * budget) for name in self.takes_time}
        )


@dataclass(frozen=True)
class Settings(StageSettings):
    """Those of the recipe on real text; the defaults fit six minutes on two processor cores.

    Attributes:
        eval_prompts: Held-out prompts that every stage answers.
        curve_points: Evaluations along PPO, for the over-optimisation curve.
    """

    takes_time: ClassVar[tuple[str, ...]] = (*StageSettings.takes_time, "eval_prompts")

    eval_prompts: int = 400
    curve_points: int = 6
