"""The recipe on real text: openings of sentences, answered by the rests.

text -> pretrained -> sft -> preferences -> reward_model -> ppo, ppo_ptx
                                 `-> dpo
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agents import PPO, Learner, PPOPtx
from agents.commands.shared import Conversation, Masked, Saved
from agents.evaluation import evaluate
from agents.feedback import (
    Ranking,
    append_rankings,
    preference_rollout,
    rank,
    sample_answers,
    split_rankings,
)
from agents.jobs.environments import environment_for
from agents.jobs.recipe.languages import LANGUAGES, Language
from agents.jobs.recipe.settings import Settings
from agents.jobs.recipe.staged import HELD_OUT_SHARE, StagedRun, some, write
from agents.optimisation.settings import falling
from agents.runs.stages import Stages
from agents.runs.update import Update
from agents.supervised import Example
from agents.supervised.sft import held_out_answer_loss
from policies import RewardModel, SeparateValue, TransformerPolicy
from textenv import Prompt, TextVectorEnv

STAGES = ("vocabulary", "pretrained", "sft", "preferences", "reward_model", "dpo", "ppo", "ppo_ptx")


class Recipe(StagedRun[Settings]):
    """One run; see `StagedRun`."""

    version = 2

    def __init__(
        self, settings: Settings, folder: Path, stages: Stages, saving: Saved | None = None
    ):
        super().__init__(settings, folder, stages, saving)
        self.language: Language = LANGUAGES[settings.language]()
        self.training_prompts, self.held_out_prompts = self.language.prompts()

    def texts(self, part: str) -> Iterable[str]:
        """Sentences."""
        return self.language.training if part == "training" else self.language.held_out

    # ---------------------------------------------------------------- stages

    def run(self) -> None:
        """Make all stages that are not made yet."""
        for make in (
            self.vocabulary,
            self.pretrained,
            self.sft,
            self.preferences,
            self.reward_model,
            self.dpo,
        ):
            make()
        for name in ("ppo", "ppo_ptx"):
            self.ppo(name)

    def sft(self) -> TransformerPolicy:
        """The pretrained model, fine-tuned on demonstrations."""

        def make(folder: Path) -> None:
            policy = self.pretrained()
            examples = [
                Example(((opening, False), (rest, True)))
                for opening, rest in self.language.demonstrations(self.settings.demonstrations)
            ]
            cut = len(examples) // 10
            learned = examples[cut:]
            seen = {example.question for example in learned}
            kept = [example for example in examples[:cut] if example.question not in seen]
            self.fine_tune(policy, learned)
            write(folder / "numbers.json", {"loss": held_out_answer_loss(policy, kept)})
            policy.save(folder)

        return self.policy("sft", make, ("demonstrations", "sft_*"), "pretrained")

    def preferences(self) -> list[Ranking]:
        """Answers of the SFT model, ranked by the labeller."""
        s = self.settings

        def make(folder: Path) -> None:
            prompts = some(self.training_prompts, s.ranked_prompts, seed=s.seed)
            total = len(prompts) * s.answers_per_prompt
            with self.stages.bar("Answers to rank", total, "answers") as advance:
                answers = sample_answers(
                    self.sft(),
                    prompts,
                    s.answers_per_prompt,
                    max_new_tokens=s.max_new_tokens,
                    temperature=1.0,  # more variety to learn from
                    seed=s.seed,
                    on_answers=advance,
                )
            append_rankings(
                folder / "rankings.jsonl", rank(self.language.labeller, prompts, answers)
            )

        wanted = ("ranked_prompts", "answers_per_prompt", "max_new_tokens")
        return self.rankings("preferences", make, wanted, "sft")

    def reward_model(self) -> RewardModel:
        """The SFT model with a scalar head, fitted to the rankings, 0 on average on SFT's."""

        def make(folder: Path) -> None:
            rankings = self.preferences()
            model = RewardModel.from_policy(self.sft(), self.settings.seed)
            write(folder / "numbers.json", self.fit_reward_model(model, rankings))
            model.save(folder)

        folder = self.made("reward_model", make, ("reward_model_*",), "preferences")
        return RewardModel.load(folder).to(self.device)

    def dpo(self) -> TransformerPolicy:
        """The SFT model after DPO on the same rankings that the reward model has learned from."""

        def make(folder: Path) -> None:
            policy = self.sft()
            learned, _ = split_rankings(self.preferences(), HELD_OUT_SHARE, self.settings.seed)
            assert policy.tokenizer is not None
            self.prefer(
                "DPO", policy, preference_rollout(learned, policy.tokenizer, policy.context)
            )
            policy.save(folder)

        return self.policy("dpo", make, ("dpo_*",), "preferences")

    def ppo(self, name: str) -> TransformerPolicy:
        """The SFT model after PPO against the reward model, without (`ppo`) or with pretraining.

        The critic is a network of its own that begins as the reward model.
        """
        s = self.settings

        def make(folder: Path) -> None:
            actor, reward_model = self.sft(), self.reward_model()
            common: dict[str, Any] = {"n_epochs": 2, "minibatch_tokens": 1024}
            algorithm = PPO(**common)
            if name == "ppo_ptx":
                algorithm = PPOPtx(
                    **common,
                    stream=self.stream("training"),
                    ptx_coef=s.ptx_coef,
                    ptx_window=s.context,
                    ptx_batch=s.pretrain_batch,
                )
            learner = Learner(
                SeparateValue(actor, reward_model.as_critic()),
                self.environment(actor, reward_model, self.training_prompts),
                algorithm,
                reference=actor.frozen_copy(),
                kl_coef=s.kl_coef,
                learning_rate=partial(falling, s.ppo_rate),
                precision=s.precision,
                n_steps=s.max_new_tokens,
                temperature=s.temperature,
                seed=s.seed,
            )
            asked = self.evaluation_prompts()[: max(2, s.eval_prompts // 3)]
            envs = self.environment(actor, reward_model, [prompt.text for prompt in asked])
            point = partial(self._point, actor, learner, envs, asked)
            points: list[list[float]] = []

            def follow(update: Update) -> None:
                if update.tokens >= len(points) * s.ppo_tokens / s.curve_points:
                    points.append(point())

            title = name.upper().replace("_", "-")
            updates = self.reinforce(
                title, learner, begin=lambda: points.append(point()), after=follow, also=points
            )
            write(folder / "history.json", {"updates": updates, "points": points})
            actor.save(folder)

        wanted = ["ppo_*", "kl_coef", "temperature", "curve_points"]
        wanted += ["ptx_*"] if name == "ppo_ptx" else []
        return self.policy(name, make, wanted, "reward_model")

    # ---------------------------------------------------------------- what the stages share

    def environment(
        self, policy: TransformerPolicy, reward: Any, prompts: Sequence[str]
    ) -> TextVectorEnv:
        """Where a policy answers prompts."""
        s = self.settings
        return environment_for(
            policy,
            list(prompts),
            reward,
            rows=s.ppo_rows,
            max_new_tokens=s.max_new_tokens,
            masks=Masked(),
            talk=Conversation(),
        )

    def evaluation_prompts(self) -> list[Prompt]:
        """The held-out prompts that every stage answers."""
        chosen = some(self.held_out_prompts, self.settings.eval_prompts, seed=0)
        return [Prompt(text) for text in chosen]

    def _point(
        self,
        actor: TransformerPolicy,
        learner: Learner,
        envs: TextVectorEnv,
        asked: Sequence[Prompt],
    ) -> list[float]:
        """KL of an answer, the reward model's score and the judge's, at this moment."""
        done = evaluate(
            actor,
            envs,
            asked,
            reference=learner.reference,
            temperature=self.settings.temperature,
            seed=self.settings.seed,
        )
        judged = [self.language.judge(sample.prompt, sample.text) for sample in done.samples]
        return [done.kl_per_answer, float(done.scores.mean()), float(np.mean(judged))]
