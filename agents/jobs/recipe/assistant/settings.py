"""How large a run of the recipe of the assistant is."""

from dataclasses import dataclass
from typing import ClassVar

from agents.jobs.recipe.settings import StageSettings


@dataclass(frozen=True)
class AssistantSettings(StageSettings):
    """Those of the recipe of the assistant; the defaults take eight minutes of two cores.

    Attributes:
        corpus_texts: Documents to pretrain on; they are read again until `pretrain_tokens`.
        held_out_texts: Documents that nothing learns from.
        conversation_tokens: Longest conversation behind its first question.
        careful_demonstrations: Further demonstrations of what to decline and what not.
        sft_documents: Documents that SFT goes on reading beside the demonstrations, so that it
            forgets less.
        label_noise: Probability with which the simulated labeller takes a good answer for a bad
            one, or a bad one for a good one.
        dpo_rankings: Rankings that DPO learns from: those of the labeller, and in RLAIF those of
            the SFT model.
        played_dialogues: Dialogues that PPO draws from.
        ppo_episodes: Dialogues of a rollout.
        ppo_epochs: Passes of PPO over each rollout.
        ptx_batch: Windows of pretraining text in each optimiser step of PPO-ptx.
        online_rounds: Rounds of online feedback.
        online_prompts: Prompts that are answered and labelled in a round.
        eval_dialogues: Held-out dialogues; every stage answers all questions in them.
    """

    takes_time: ClassVar[tuple[str, ...]] = (
        *StageSettings.takes_time,
        "dpo_rankings",
        "online_prompts",
        "eval_dialogues",
    )

    vocab_size: int = 1024
    context: int = 160
    max_new_tokens: int = 20
    temperature: float = 1.0
    corpus_texts: int = 20_000
    held_out_texts: int = 1000
    conversation_tokens: int = 112
    pretrain_tokens: int = 4_000_000
    pretrain_batch: int = 4
    pretrain_optimizer: str = "muon"
    pretrain_rate: float = 4e-3
    demonstrations: int = 400
    careful_demonstrations: int = 150
    sft_documents: int = 500
    sft_epochs: int = 1
    sft_rate: float = 5e-4
    ranked_prompts: int = 6000
    label_noise: float = 0.0
    reward_model_epochs: int = 2
    reward_model_rate: float = 5e-4
    dpo_rankings: int = 2000
    dpo_rate: float = 5e-5
    played_dialogues: int = 20_000
    ppo_tokens: int = 150_000
    ppo_rows: int = 64
    ppo_episodes: int = 1024
    ppo_epochs: int = 2
    ppo_rate: float = 2e-4
    kl_coef: float = 0.1
    ptx_batch: int = 4
    online_rounds: int = 3
    online_prompts: int = 400
    eval_dialogues: int = 500
