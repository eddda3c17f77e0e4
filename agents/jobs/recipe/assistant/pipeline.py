"""The recipe of the assistant: every stage on dialogues of a closed world.

documents -> pretrained -> sft -> preferences -> reward_model -> ppo, ppo_ptx, online
                                       `-> dpo
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from agents import PPO, Learner, PPOPtx
from agents.feedback import (
    Ranking,
    append_rankings,
    fit_reward_model,
    laid_flat,
    preference_rollout,
    sample_answers,
    split_rankings,
    standardise,
)
from agents.jobs.recipe.assistant.dialogues import (
    TEMPLATES,
    Unpaid,
    demonstrations,
    prompts_of,
    score_turns,
)
from agents.jobs.recipe.assistant.judging import agreement, ranked_by_likelihood
from agents.jobs.recipe.assistant.labelling import (
    ranked_by_verdicts,
    with_strays,
    without_strays,
)
from agents.jobs.recipe.assistant.settings import AssistantSettings
from agents.jobs.recipe.staged import HELD_OUT_SHARE, StagedRun, some, write
from agents.optimisation.settings import falling
from agents.supervised import Example
from agents.supervised.sft import held_out_answer_loss
from policies import RewardModel, SeparateValue, TransformerConfig, TransformerPolicy
from textenv import Prompt, TextVectorEnv
from textenv.frames import ChatTemplate, Frame, Message
from textenv.tasks import assistant

STAGES = (
    "vocabulary",
    "pretrained",
    "sft",
    "preferences",
    "reward_model",
    "dpo",
    "ppo",
    "ppo_ptx",
    "ai_preferences",
    "rlaif",
    "online",
)
MOST_TURNS = 4
SAME_OPENING = 4
"""Dialogues of a rollout that begin with the same question, which an update reads once."""
CAREFUL_KINDS = ("unknown_person", "unknown_fact", "how_to", "unsafe")
"""What is to be declined, and what only sounds so."""
REPLAYED = 2
"""Older rankings of a round of online feedback, for each fresh one."""
KEPT_DEMONSTRATIONS = 200
"""Demonstrations that are held out, for the loss of SFT."""
DEMONSTRATED, KEPT, RANKED, PLAYED, LABELLED, CAREFUL = range(6)
"""What training dialogues are drawn for: each use has draws of its own."""


class AssistantRecipe(StagedRun[AssistantSettings]):
    """One run; see `StagedRun`.

    DPO and PPO compare log-probabilities, so they compute in float32 whatever the precision is.
    """

    version = 2
    # At half a million tokens of these documents GPT-2's form is 0.3 nats behind.
    network = TransformerConfig.llama

    def texts(self, part: str) -> Iterable[str]:
        """Documents of the world."""
        s = self.settings
        counts = {"training": s.corpus_texts, "held_out": s.held_out_texts}
        seed = list(counts).index(part)
        return islice(assistant.documents(s.language, seed), counts[part])

    def read(self, count: int) -> list[str]:
        """Documents of another draw, for SFT."""
        return list(islice(assistant.documents(self.settings.language, seed=2), count))

    def talks(
        self, use: int, count: int, kinds: Sequence[str] | None = None
    ) -> list[assistant.Dialogue]:
        """Training dialogues."""
        s = self.settings
        return assistant.dialogues(s.language, "training", count, 10 * s.seed + use, kinds)

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
            self.ai_preferences,
            self.rlaif,
        ):
            make()
        for name in ("ppo", "ppo_ptx"):
            self.ppo(name)
        self.online()

    def sft(self) -> TransformerPolicy:
        """The pretrained model, fine-tuned on dialogues whose answers are the references."""
        s = self.settings

        def make(folder: Path) -> None:
            policy = self.pretrained()
            kept = demonstrations(self.talks(KEPT, KEPT_DEMONSTRATIONS), self.template)
            talks = self.talks(DEMONSTRATED, s.demonstrations)
            talks += self.talks(CAREFUL, s.careful_demonstrations, CAREFUL_KINDS)
            shown = demonstrations(talks, self.template)
            shown += [Example(((text, True),)) for text in self.read(s.sft_documents)]
            self.fine_tune(policy, shown)
            write(folder / "numbers.json", {"loss": held_out_answer_loss(policy, kept)})
            policy.save(folder)

        return self.policy("sft", make, ("demonstrations", "careful_*", "sft_*"), "pretrained")

    def preferences(self) -> list[Ranking]:
        """Answers of the SFT model to one question of each dialogue, ranked by the verdicts."""
        s = self.settings

        def make(folder: Path) -> None:
            prompts = one_of_each(self.talks(RANKED, s.ranked_prompts), s.seed)
            ranked = self._ranked(self.sft(), prompts, s.seed)
            append_rankings(folder / "rankings.jsonl", ranked)

        wanted = ("ranked_prompts", "answers_per_prompt", "max_new_tokens", "label_noise")
        return self.rankings("preferences", make, wanted, "sft")

    def reward_model(self) -> RewardModel:
        """The SFT model with a scalar head, fitted to the rankings.

        Its scores are standardised on answers of SFT: the critic fits values of their size.
        """

        def make(folder: Path) -> None:
            rankings = self.preferences()
            model = RewardModel.from_policy(self.sft(), self.settings.seed, self.template)
            write(folder / "numbers.json", self.fit_reward_model(model, rankings))
            standardise(model, *laid_flat(rankings))
            model.save(folder)

        folder = self.made("reward_model", make, ("reward_model_*",), "preferences")
        return RewardModel.load(folder).to(self.device)

    def dpo(self) -> TransformerPolicy:
        """The SFT model after DPO on the same rankings that the reward model has learned from."""

        def rankings() -> list[Ranking]:
            return without_strays(self.preferences())

        return self._preferred("dpo", "DPO", rankings, "preferences")

    def ppo(self, name: str) -> TransformerPolicy:
        """The SFT model after PPO against the reward model, without (`ppo`) or with pretraining.

        Episodes are whole dialogues: the reward model pays for each turn when it ends.
        """
        s = self.settings

        def make(folder: Path) -> None:
            actor, model = self.sft(), self.reward_model()
            algorithm = PPO(**self._ppo)
            if name == "ppo_ptx":
                algorithm = PPOPtx(
                    **self._ppo,
                    stream=self.stream("training"),
                    ptx_coef=s.ptx_coef,
                    ptx_window=s.context,
                    ptx_batch=s.ptx_batch,
                )
            learner = self._learner(actor, model, algorithm)
            title = name.upper().replace("_", "-")
            write(folder / "history.json", {"updates": self.reinforce(title, learner)})
            actor.save(folder)

        wanted = ["ppo_*", "played_*", "kl_coef", "temperature", "conversation_tokens"]
        wanted += ["ptx_*"] if name == "ppo_ptx" else []
        return self.policy(name, make, wanted, "reward_model")

    def ai_preferences(self) -> list[Ranking]:
        """The first of the ranked answers, ranked by the SFT model itself instead of verdicts."""
        s = self.settings

        def make(folder: Path) -> None:
            rankings = without_strays(self.preferences()[: s.dpo_rankings])
            prompts = one_of_each(self.talks(RANKED, s.ranked_prompts), s.seed)[: s.dpo_rankings]
            with self.stages.bar("AI feedback", len(rankings), "prompts") as advance:
                ranked = ranked_by_likelihood(self.sft(), rankings, self.frame, "SFT")
                advance(len(rankings))
            append_rankings(folder / "rankings.jsonl", ranked)
            found = agreement(prompts, ranked)
            write(folder / "numbers.json", {"agreement": found._asdict()})

        return self.rankings("ai_preferences", make, ("dpo_rankings",), "preferences")

    def rlaif(self) -> TransformerPolicy:
        """The SFT model after DPO on its own preferences."""
        return self._preferred("rlaif", "RLAIF", self.ai_preferences, "ai_preferences")

    def online(self) -> TransformerPolicy:
        """PPO whose reward model is fitted again to labels of fresh answers in every round."""
        s = self.settings

        def make(folder: Path) -> None:
            actor, model = self.sft(), self.reward_model()
            learner = self._learner(actor, model, PPO(**self._ppo))
            known = self.preferences()
            updates: list[list[float]] = []
            for number in range(s.online_rounds):
                talks = self.talks(LABELLED, s.online_rounds * s.online_prompts)
                prompts = one_of_each(talks[number :: s.online_rounds], s.seed)
                fresh = self._ranked(actor, prompts, s.seed + number + 1)
                # Some of the old ones, so that what they taught is not forgotten.
                learned = fresh + some(known, REPLAYED * len(fresh), s.seed + number)
                fit_reward_model(model, learned, learning_rate=s.reward_model_rate / 2)
                standardise(model, *laid_flat(learned))
                known += fresh
                title = f"Online round {number + 1} of {s.online_rounds}"
                updates += self.reinforce(title, learner, (number + 1) / s.online_rounds)
            write(folder / "history.json", {"updates": updates})
            actor.save(folder)

        wanted = ("ppo_*", "played_*", "kl_coef", "temperature", "conv*_tokens", "online_*")
        return self.policy("online", make, wanted, "reward_model")

    # ---------------------------------------------------------------- what the stages share

    @property
    def template(self) -> ChatTemplate:
        """How conversations are written."""
        return TEMPLATES[self.settings.language]

    @property
    def frame(self) -> Frame:
        """The template for the vocabulary."""
        return self.template.frame(self.vocabulary())

    @property
    def _ppo(self) -> dict[str, Any]:
        return {"n_epochs": self.settings.ppo_epochs, "minibatch_tokens": 4096}

    def answers(
        self,
        policy: TransformerPolicy,
        asked: Sequence[Sequence[Message]],
        n: int = 1,
        *,
        temperature: float,
        seed: int,
        on_answers: Callable[[int], object] = lambda count: None,
    ) -> list[list[str]]:
        """Some answers to each conversation, which goes through the template."""
        return sample_answers(
            policy,
            asked,
            n,
            max_new_tokens=self.settings.max_new_tokens,
            temperature=temperature,
            seed=seed,
            on_answers=on_answers,
            frame=self.frame,
        )

    def _ranked(
        self, policy: TransformerPolicy, prompts: Sequence[Prompt], seed: int
    ) -> list[Ranking]:
        s = self.settings
        total = len(prompts) * s.answers_per_prompt
        with self.stages.bar("Answers to rank", total, "answers") as advance:
            answers = self.answers(
                policy,
                [prompt.messages or () for prompt in prompts],
                s.answers_per_prompt,
                temperature=1.0,  # more variety to learn from
                seed=seed,
                on_answers=advance,
            )
        return ranked_by_verdicts(prompts, with_strays(answers, seed), s.label_noise, seed)

    def _preferred(self, name: str, title: str, rankings: Any, before: str) -> TransformerPolicy:
        """The SFT model after DPO on rankings."""

        def make(folder: Path) -> None:
            policy = self.sft()
            s = self.settings
            known = rankings()[: s.dpo_rankings]
            learned, _ = split_rankings(known, HELD_OUT_SHARE, s.seed)
            learned = [ranking for ranking in learned if len(set(ranking.ranks)) > 1]
            rollout = preference_rollout(learned, self.vocabulary(), policy.context, self.frame)
            self.prefer(title, policy, rollout, "float32")
            policy.save(folder)

        return self.policy(name, make, ("dpo_*",), before)

    def _learner(self, actor: TransformerPolicy, model: RewardModel, algorithm: PPO) -> Learner:
        s = self.settings
        return Learner(
            SeparateValue(actor, model.as_critic()),
            self.conversations(actor, model),
            algorithm,
            reference=actor.frozen_copy(),
            kl_coef=s.kl_coef,
            learning_rate=partial(falling, s.ppo_rate),
            n_episodes=s.ppo_episodes,
            temperature=s.temperature,
            seed=s.seed,
        )

    def conversations(self, policy: TransformerPolicy, model: RewardModel) -> TextVectorEnv:
        """Where a policy talks to the world, and the reward model pays for each turn."""
        s = self.settings
        return TextVectorEnv(
            s.ppo_rows,
            prompts=[
                assistant.world_record(talk) for talk in self.talks(PLAYED, s.played_dialogues)
            ],
            world=Unpaid,
            reward=score_turns(model, s.max_new_tokens),
            frame=self.template,
            tokenizer=policy.tokenizer,
            max_turns=MOST_TURNS,
            max_turn_tokens=s.max_new_tokens,
            max_new_tokens=s.conversation_tokens,
            max_prompt_tokens=s.context - s.conversation_tokens,
            group_size=SAME_OPENING,
        )


def one_of_each(talks: Sequence[assistant.Dialogue], seed: int) -> list[Prompt]:
    """A question of each dialogue, drawn at random, as a prompt."""
    generator = np.random.default_rng([seed, 13])
    numbers = [int(generator.integers(len(talk.exchanges))) + 1 for talk in talks]
    return [prompts_of([talk], number)[0] for talk, number in zip(talks, numbers, strict=True)]
