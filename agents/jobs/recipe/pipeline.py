"""The stages of the recipe for one size and seed, each from what the one before has left.

    text -> pretrained -> sft -> preferences -> reward_model -> ppo, ppo_ptx
                                     `-> dpo

Ouyang et al., "Training language models to follow instructions with human feedback" (2022). Each
stage is a folder that is made once (`caching`), so that a run which was stopped goes on there.
"""

import fnmatch
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents import DPO, PPO, Learner, PPOPtx, Trainer
from agents.commands.shared import Conversation, Masked
from agents.evaluation import evaluate
from agents.feedback import (
    Ranking,
    append_rankings,
    calibration,
    laid_flat,
    normalise,
    pair_accuracy,
    preference_rollout,
    rank,
    read_rankings,
    reward_model_steps,
    sample_answers,
    split_rankings,
)
from agents.jobs.environments import environment_for
from agents.jobs.machine import device_named
from agents.jobs.recipe.caching import cached, key_of, made_from
from agents.jobs.recipe.languages import LANGUAGES, Language
from agents.jobs.recipe.settings import SIZES, Settings
from agents.optimisation.settings import falling
from agents.runs.stages import Stages
from agents.supervised import Example, open_stream, pretraining_steps, sft_steps, write_stream
from agents.supervised.sft import held_out_answer_loss, steps_of
from policies import RewardModel, SeparateValue, TransformerConfig, TransformerPolicy
from textenv import Prompt, TextVectorEnv
from textenv.tokenizers import TiktokenTokenizer, load_tokenizer, train_bpe

RECIPE = 2
"""To be raised when the code below makes something else of the same settings."""

STAGES = ("vocabulary", "pretrained", "sft", "preferences", "reward_model", "dpo", "ppo", "ppo_ptx")

HELD_OUT_SHARE = 0.15
"""Of the rankings, to measure the reward model on."""
SFT_BATCH, RANKING_BATCH, PRETRAIN_BATCH = 16, 16, 8


class Recipe:
    """One run: its settings, its folder, and what its stages have made.

    Args:
        settings: How large it is.
        folder: Where the stages leave what they make.
        stages: Shows progress.
    """

    def __init__(self, settings: Settings, folder: Path, stages: Stages):
        self.settings, self.folder, self.stages = settings, folder, stages
        self.device = device_named(settings.device)
        self.dtype = getattr(torch, settings.precision)
        self.language: Language = LANGUAGES[settings.language]()
        self._shown: set[str] = set()
        self.training_prompts, self.held_out_prompts = self.language.prompts()

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

    def vocabulary(self) -> TiktokenTokenizer:
        """A byte-pair encoding of the training text, and the text as ids."""
        s = self.settings

        def make(folder: Path) -> None:
            with self.stages.bar("Vocabulary", s.vocab_size, "tokens") as advance:
                tokenizer = train_bpe(self.language.training, s.vocab_size)
                tokenizer.save(folder / "tokenizer.json")
                write_stream(folder / "training.tokens", self.language.training, tokenizer)
                write_stream(folder / "held_out.tokens", self.language.held_out, tokenizer)
                advance(s.vocab_size)

        self._cached("vocabulary", make, ("vocab_size",))
        tokenizer = load_tokenizer(str(self.folder / "vocabulary" / "tokenizer.json"))
        assert isinstance(tokenizer, TiktokenTokenizer)
        return tokenizer

    def stream(self, part: str) -> NDArray[np.integer]:
        """Ids of the text that is `training` or `held_out`."""
        return open_stream(self.folder / "vocabulary" / f"{part}.tokens", self.vocabulary())

    def pretrained(self) -> TransformerPolicy:
        """A GPT that has read the training text."""
        s = self.settings

        def make(folder: Path) -> None:
            tokenizer = self.vocabulary()
            shape = TransformerConfig(tokenizer.vocab_size, s.context, **asdict(SIZES[s.size]))
            policy = TransformerPolicy(shape, tokenizer=tokenizer, seed=s.seed).to(self.device)
            steps = pretraining_steps(
                policy,
                self.stream("training"),
                total_tokens=s.pretrain_tokens,
                window=s.context,
                batch_size=PRETRAIN_BATCH,
                learning_rate=s.pretrain_rate,
                precision=self.dtype,
                seed=s.seed,
            )
            with self.stages.bar("Pretraining", s.pretrain_tokens, "tokens") as advance:
                for step in steps:
                    advance(step.tokens, f"loss {step.loss:.2f}")
            policy.save(folder)

        self._cached("pretrained", make, ("size", "seed", "context", "pretrain_*"), "vocabulary")
        return TransformerPolicy.load(self.folder / "pretrained").to(self.device)

    def sft(self) -> TransformerPolicy:
        """The pretrained model, fine-tuned on demonstrations."""
        s = self.settings

        def make(folder: Path) -> None:
            policy = self.pretrained()
            examples = [
                Example(((opening, False), (rest, True)))
                for opening, rest in self.language.demonstrations(s.demonstrations)
            ]
            cut = len(examples) // 10
            learned = examples[cut:]
            seen = {example.question for example in learned}
            kept = [example for example in examples[:cut] if example.question not in seen]
            total = steps_of(len(learned), s.sft_epochs, SFT_BATCH)
            steps = sft_steps(
                policy,
                learned,
                epochs=s.sft_epochs,
                batch_size=SFT_BATCH,
                learning_rate=s.sft_rate,
                precision=self.dtype,
                seed=s.seed,
            )
            self._show("SFT", total, steps)
            _write(folder / "numbers.json", {"loss": held_out_answer_loss(policy, kept)})
            policy.save(folder)

        self._cached("sft", make, ("demonstrations", "sft_*"), "pretrained")
        return TransformerPolicy.load(self.folder / "sft").to(self.device)

    def preferences(self) -> list[Ranking]:
        """Answers of the SFT model, ranked by the labeller."""
        s = self.settings

        def make(folder: Path) -> None:
            prompts = self._some(self.training_prompts, s.ranked_prompts, seed=s.seed)
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
        self._cached("preferences", make, wanted, "sft")
        return read_rankings(self.folder / "preferences" / "rankings.jsonl")

    def reward_model(self) -> RewardModel:
        """The SFT model with a scalar head, fitted to the rankings, 0 on average on SFT's."""
        s = self.settings

        def make(folder: Path) -> None:
            learned, kept = split_rankings(self.preferences(), HELD_OUT_SHARE, s.seed)
            model = RewardModel.from_policy(self.sft(), s.seed)
            steps = reward_model_steps(
                model,
                learned,
                epochs=s.reward_model_epochs,
                batch_size=RANKING_BATCH,
                learning_rate=s.reward_model_rate,
                precision=self.dtype,
                seed=s.seed,
            )
            total = steps_of(len(learned), s.reward_model_epochs, RANKING_BATCH)
            self._show("Reward model", total, steps)
            normalise(model, *laid_flat(kept))
            numbers = {
                "accuracy": pair_accuracy(model, kept)._asdict(),
                "calibration": asdict(calibration(model, kept)),
            }
            _write(folder / "numbers.json", numbers)
            model.save(folder)

        self._cached("reward_model", make, ("reward_model_*",), "preferences")
        return RewardModel.load(self.folder / "reward_model").to(self.device)

    def dpo(self) -> TransformerPolicy:
        """The SFT model after DPO on the same rankings that the reward model has learned from."""
        s = self.settings

        def make(folder: Path) -> None:
            policy = self.sft()
            learned, _ = split_rankings(self.preferences(), HELD_OUT_SHARE, s.seed)
            assert policy.tokenizer is not None
            rollout = preference_rollout(learned, policy.tokenizer, policy.context)
            rollout = rollout.to(policy.device)
            algorithm = DPO(beta=s.dpo_beta, minibatch_tokens=1024)
            trainer = Trainer(
                policy,
                algorithm,
                reference=policy.frozen_copy(),
                learning_rate=partial(falling, s.dpo_rate),
                precision=s.precision,
                seed=s.seed,
            )
            with self.stages.bar("DPO", s.dpo_epochs, "epochs") as advance:
                rollout = trainer.with_reference(rollout)
                for epoch in range(s.dpo_epochs):
                    _, metrics = trainer.learn_from(rollout, epoch / s.dpo_epochs)
                    advance(epoch + 1, f"pair accuracy {metrics['pair_accuracy']:.2f}")
            policy.save(folder)

        self._cached("dpo", make, ("dpo_*",), "preferences")
        return TransformerPolicy.load(self.folder / "dpo").to(self.device)

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
                    ptx_batch=PRETRAIN_BATCH,
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
            history = self._learn(learner, name, actor, reward_model)
            _write(folder / "history.json", history)
            actor.save(folder)

        wanted = ["ppo_*", "kl_coef", "temperature", "curve_points"]
        wanted += ["ptx_*"] if name == "ppo_ptx" else []
        self._cached(name, make, wanted, "reward_model")
        return TransformerPolicy.load(self.folder / name).to(self.device)

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
        chosen = self._some(self.held_out_prompts, self.settings.eval_prompts, seed=0)
        return [Prompt(text) for text in chosen]

    def _learn(
        self, learner: Learner, name: str, actor: TransformerPolicy, model: RewardModel
    ) -> dict[str, list[list[float]]]:
        """PPO to the end; returns its learning curve and its over-optimisation curve."""
        s = self.settings
        updates: list[list[float]] = []
        points: list[list[float]] = []
        asked = self.evaluation_prompts()[: max(2, s.eval_prompts // 3)]
        envs = self.environment(actor, model, [prompt.text for prompt in asked])
        with self.stages.bar(name.upper().replace("_", "-"), s.ppo_tokens, "tokens") as advance:
            points.append(self._point(actor, learner, envs, asked))
            while learner.tokens_done < s.ppo_tokens:
                # Not `updates`, which saves the learner when it is stopped: this stage is then made
                # anew, and what is said of resuming is said by the whole recipe.
                update = learner.update(learner.tokens_done / s.ppo_tokens)
                assert update.kl is not None  # there is a reference
                updates.append([update.tokens, update.score, update.kl, update.entropy])
                advance(update.tokens, f"score {update.score:.2f}  KL {update.kl:.3f}/token")
                if update.tokens >= len(points) * s.ppo_tokens / s.curve_points:
                    points.append(self._point(actor, learner, envs, asked))
        return {"updates": updates, "points": points}

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

    def _show(self, name: str, total: int, steps: Iterable[Any]) -> None:
        with self.stages.bar(name, total, "steps") as advance:
            for step in steps:
                advance(step.number, f"loss {step.loss:.3f}")

    def _cached(
        self, name: str, make: Callable[[Path], object], settings: Sequence[str], before: str = ""
    ) -> None:
        """Make the stage `name` if it was not made from these settings and the stage `before`."""
        shaped_by = [RECIPE, self.settings.language, self.settings.precision, name]
        if before:
            shaped_by.append(made_from(self.folder / before))
        known = asdict(self.settings)
        for pattern in settings:
            shaped_by += [[option, known[option]] for option in fnmatch.filter(known, pattern)]
        if cached(self.folder / name, key_of(*shaped_by), make) and name not in self._shown:
            self.stages.console.print(f"{name}: made before", soft_wrap=True)
        self._shown.add(name)

    @staticmethod
    def _some(items: Sequence[str], count: int, seed: int) -> list[str]:
        """`count` of the items, or all of them, in random order."""
        order = np.random.default_rng([seed, 7]).permutation(len(items))[:count]
        return [items[i] for i in order]


def _write(path: Path, numbers: Any) -> None:
    path.write_text(json.dumps(numbers), encoding="utf-8")
