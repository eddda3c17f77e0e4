"""How large a run of the recipe of the assistant is."""

from dataclasses import dataclass
from typing import ClassVar

from agents.jobs.recipe.settings import StageSettings


@dataclass(frozen=True)
class AssistantSettings(StageSettings):
    """Those of the recipe of the assistant; the defaults fit seven minutes on two processor cores.

    Attributes:
        corpus_texts: Documents to pretrain on; they are read again until `pretrain_tokens`.
        held_out_texts: Documents that nothing learns from, for the perplexity.
        conversation_tokens: Longest conversation behind its first question.
        label_noise: Probability with which the simulated labeller takes a good answer for a bad
            one, or a bad one for a good one.
        judged_demonstrations: Comparisons of two answers that SFT learns from beside the dialogues.
        read_texts: Documents that SFT goes on reading beside the demonstrations, so that it forgets
            less.
        ai_prompts: Prompts whose answers the SFT model ranks.
        played_dialogues: Dialogues that PPO draws from.
        ppo_epochs: Passes of PPO over each rollout.
        ptx_batch: Windows of pretraining text in each optimiser step of PPO-ptx.
        online_rounds: Rounds of online feedback.
        online_prompts: Prompts that are answered and labelled in a round.
        eval_dialogues: Held-out dialogues; every stage answers all questions in them.
    """

    takes_time: ClassVar[tuple[str, ...]] = (
        *StageSettings.takes_time,
        "judged_demonstrations",
        "ai_prompts",
        "online_prompts",
        "eval_dialogues",
    )

    vocab_size: int = 1024
    context: int = 160
    max_new_tokens: int = 20
    temperature: float = 0.8
    corpus_texts: int = 20_000
    held_out_texts: int = 1000
    conversation_tokens: int = 112
    pretrain_tokens: int = 4_000_000
    pretrain_rate: float = 2.5e-3
    demonstrations: int = 6000
    judged_demonstrations: int = 3000
    read_texts: int = 2000
    sft_epochs: int = 1
    sft_rate: float = 5e-4
    ranked_prompts: int = 3000
    label_noise: float = 0.05
    ai_prompts: int = 1000
    reward_model_rate: float = 5e-4
    ppo_tokens: int = 40_000
    ppo_rows: int = 64
    ppo_rate: float = 3e-4
    played_dialogues: int = 5000
    ppo_epochs: int = 2
    kl_coef: float = 0.05
    ptx_batch: int = 4
    online_rounds: int = 3
    online_prompts: int = 400
    eval_dialogues: int = 400
