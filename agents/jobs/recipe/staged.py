"""What the recipes of all tasks share: stages that are made once, and how each one is trained.

    texts -> vocabulary -> pretrained -> sft -> preferences -> reward_model -> ppo ...

Ouyang et al., "Training language models to follow instructions with human feedback" (2022). Each
stage is a folder that is made once (`caching`), so that a run which was stopped goes on there.
"""

import fnmatch
import json
import shutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from agents import DPO, Learner, Trainer
from agents.commands.shared import Saved
from agents.feedback import (
    Ranking,
    calibration,
    laid_flat,
    normalise,
    pair_accuracy,
    read_rankings,
    reward_model_steps,
    split_rankings,
)
from agents.feedback.reward_modelling import with_pairs
from agents.jobs.machine import device_named
from agents.jobs.recipe.caching import cached, key_of, made_from
from agents.jobs.recipe.settings import SIZES, StageSettings
from agents.jobs.recipe.unfinished import UnfinishedStages
from agents.optimisation.settings import PrecisionName, falling
from agents.rollout import Rollout
from agents.runs.checkpoints import damage
from agents.runs.learner_checkpoint import POLICY, read_learner, write_learner
from agents.runs.stages import Stages
from agents.runs.state_files import read_state, write_state
from agents.runs.update import Update
from agents.supervised import (
    Example,
    FitStep,
    Fitting,
    open_stream,
    pretraining_steps,
    sft_steps,
    write_stream,
)
from agents.supervised.optimisers import OPTIMISERS
from agents.supervised.pretraining import steps_of_tokens
from agents.supervised.sft import learnable, steps_of
from policies import Policy, RewardModel, TransformerConfig, TransformerPolicy
from textenv.errors import DamagedCheckpointWarning
from textenv.tokenizers import TiktokenTokenizer, load_tokenizer, train_bpe

HELD_OUT_SHARE = 0.15
"""Of the rankings, to measure the reward model on."""
SFT_BATCH = RANKING_BATCH = 16

S = TypeVar("S", bound=StageSettings)
T = TypeVar("T")


class StagedRun(ABC, Generic[S]):
    """One run: its settings, its folder, and what its stages have made.

    Args:
        settings: How large it is.
        folder: Where the stages leave what they make.
        stages: Shows progress.
        saving: How often a stage is saved while it is being made.

    Attributes:
        version: To be raised when the code makes something else of the same settings.
        network: Makes the network's shape.
    """

    version: ClassVar[int]
    network: ClassVar[Callable[..., TransformerConfig]] = TransformerConfig

    def __init__(self, settings: S, folder: Path, stages: Stages, saving: Saved | None = None):
        self.settings, self.folder, self.stages = settings, folder, stages
        self._unfinished = UnfinishedStages(folder, saving or Saved(), stages.console)
        self.device = device_named(settings.device)
        self.dtype = getattr(torch, settings.precision)
        self._shown: set[str] = set()

    @abstractmethod
    def texts(self, part: str) -> Iterable[str]:
        """The text to pretrain on, of the part `training` or `held_out`."""

    @abstractmethod
    def run(self) -> None:
        """Make all stages that are not made yet."""

    # ---------------------------------------------------------------- the first stages

    def vocabulary(self) -> TiktokenTokenizer:
        """A byte-pair encoding of the training text, and the text as ids."""
        s = self.settings

        def make(folder: Path) -> None:
            with self.stages.bar("Vocabulary", s.vocab_size, "tokens") as advance:
                tokenizer = train_bpe(self.texts("training"), s.vocab_size)
                tokenizer.save(folder / "tokenizer.json")
                for part in ("training", "held_out"):
                    write_stream(folder / f"{part}.tokens", self.texts(part), tokenizer)
                advance(s.vocab_size)

        self.made("vocabulary", make, ("vocab_size", "*_texts"))
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
            shape = self.network(tokenizer.vocab_size, s.context, **asdict(SIZES[s.size]))
            policy = TransformerPolicy(shape, tokenizer=tokenizer, seed=s.seed).to(self.device)
            fitting = Fitting(
                policy,
                steps=steps_of_tokens(s.pretrain_tokens, s.context, s.pretrain_batch),
                learning_rate=s.pretrain_rate,
                optimizer=OPTIMISERS[s.pretrain_optimizer],
                precision=self.dtype,
                seed=s.seed,
            )
            with (
                self.stages.bar("Pretraining", s.pretrain_tokens, "tokens") as advance,
                self._unfinished.part().saving(fitting) as saving,
            ):
                for step in pretraining_steps(
                    policy,
                    self.stream("training"),
                    total_tokens=s.pretrain_tokens,
                    window=s.context,
                    batch_size=s.pretrain_batch,
                    seed=s.seed,
                    fitting=fitting,
                ):
                    advance(step.tokens, f"loss {step.loss:.2f}")
                    saving.after(step.number)
            policy.save(folder)

        return self.policy("pretrained", make, ("size", "seed", "context", "pretrain_*"))

    # ---------------------------------------------------------------- how stages are trained

    def fine_tune(self, policy: TransformerPolicy, examples: Sequence[Example]) -> None:
        """SFT of `policy` on demonstrations."""
        s = self.settings
        examples = learnable(policy, examples)
        fitting = Fitting(
            policy,
            steps=steps_of(len(examples), s.sft_epochs, SFT_BATCH),
            learning_rate=s.sft_rate,
            precision=self.dtype,
            seed=s.seed,
        )
        steps = sft_steps(
            policy,
            examples,
            epochs=s.sft_epochs,
            batch_size=SFT_BATCH,
            seed=s.seed,
            fitting=fitting,
        )
        self._fit("SFT", fitting, steps)

    def fit_reward_model(self, model: RewardModel, rankings: Sequence[Ranking]) -> dict[str, Any]:
        """Fit `model` to most of the rankings, 0 on average on the others.

        Returns:
            Its accuracy and calibration on those, for JSON.
        """
        s = self.settings
        learned, kept = split_rankings(rankings, HELD_OUT_SHARE, s.seed)
        fitting = Fitting(
            model,
            steps=steps_of(len(with_pairs(learned)), s.reward_model_epochs, RANKING_BATCH),
            learning_rate=s.reward_model_rate,
            precision=self.dtype,
            seed=s.seed,
        )
        steps = reward_model_steps(
            model,
            learned,
            epochs=s.reward_model_epochs,
            batch_size=RANKING_BATCH,
            seed=s.seed,
            fitting=fitting,
        )
        self._fit("Reward model", fitting, steps)
        normalise(model, *laid_flat(kept))
        return {
            "accuracy": pair_accuracy(model, kept)._asdict(),
            "calibration": asdict(calibration(model, kept)),
        }

    def prefer(
        self,
        name: str,
        policy: Policy,
        rollout: Rollout,
        precision: PrecisionName | None = None,
    ) -> None:
        """DPO of `policy` on preferences, `name` in the progress; in the settings' precision."""
        s = self.settings
        rollout = rollout.to(policy.device)
        trainer = Trainer(
            policy,
            DPO(beta=s.dpo_beta, minibatch_tokens=1024),
            reference=policy.frozen_copy(),
            learning_rate=partial(falling, s.dpo_rate),
            precision=precision or s.precision,
            seed=s.seed,
        )
        part = self._unfinished.part()
        done = 0
        rollout = trainer.with_reference(rollout)  # computed while the policy is at its beginning
        if part.saved is not None:
            policy.load_weights(part.saved / POLICY)
            trainer.load_state_dict(read_state(part.saved, "trainer"))
            done = part.numbers["epochs"]

        def write(folder: Path) -> None:
            policy.save(folder / POLICY)
            write_state(folder, "trainer", trainer.state_dict())

        with (
            self.stages.bar(name, s.dpo_epochs, "epochs") as advance,
            part.saving_by(write, done, lambda: {"epochs": done}, rescue=_half_done) as saving,
        ):
            for epoch in range(done, s.dpo_epochs):
                _, metrics = trainer.learn_from(rollout, epoch / s.dpo_epochs)
                done = epoch + 1
                advance(done, f"pair accuracy {metrics['pair_accuracy']:.2f}")
                saving.after(done)

    def reinforce(
        self,
        name: str,
        learner: Learner,
        until: float = 1.0,
        begin: Callable[[], object] = int,
        after: Callable[[Update], object] = lambda update: None,
        also: list[Any] | None = None,
    ) -> list[list[float]]:
        """PPO, `name` in the progress; returns tokens, score, KL and entropy of each update.

        Args:
            name: What is trained.
            learner: What trains it.
            until: Share of `ppo_tokens` at which to stop.
            begin: Called before the first update; not where it goes on.
            after: Called after each update.
            also: What `begin` and `after` add to, as JSON holds it; it goes on with the updates.
        """
        total = self.settings.ppo_tokens
        updates: list[list[float]] = []
        also = [] if also is None else also
        part = self._unfinished.part()
        if part.saved is not None:
            read_learner(learner, part.saved)
            updates, also[:] = part.numbers["updates"], part.numbers["also"]
        else:
            begin()
        with (
            self.stages.bar(name, round(until * total), "tokens") as advance,
            part.saving_by(
                partial(write_learner, learner),
                learner.updates_done,
                lambda: {"updates": updates, "also": also},
                rescue=_half_done,
            ) as saving,
        ):
            while learner.tokens_done < until * total:
                # Not `updates`, which saves the learner where it would be alone.
                update = learner.update(learner.tokens_done / total)
                assert update.kl is not None  # there is a reference
                updates.append([update.tokens, update.score, update.kl, update.entropy])
                advance(update.tokens, f"score {update.score:.2f}  KL {update.kl:.3f}/token")
                after(update)
                saving.after(update.number)
        return updates

    def _fit(self, name: str, fitting: Fitting, steps: Iterable[FitStep]) -> None:
        """Take the steps that are left, `name` in the progress."""
        with (
            self.stages.bar(name, fitting.steps, "steps") as advance,
            self._unfinished.part().saving(fitting) as saving,
        ):
            for step in steps:
                advance(step.number, f"loss {step.loss:.3f}")
                saving.after(step.number)

    # ---------------------------------------------------------------- folders

    def policy(
        self,
        name: str,
        make: Callable[[Path], object],
        settings: Sequence[str],
        before: str = "vocabulary",
    ) -> TransformerPolicy:
        """The policy that the stage `name` leaves; see `made`."""
        return TransformerPolicy.load(self.made(name, make, settings, before)).to(self.device)

    def rankings(
        self, name: str, make: Callable[[Path], object], settings: Sequence[str], before: str
    ) -> list[Ranking]:
        """The rankings that the stage `name` leaves; see `made`."""
        return read_rankings(self.made(name, make, settings, before) / "rankings.jsonl")

    def made(
        self, name: str, make: Callable[[Path], object], settings: Sequence[str], before: str = ""
    ) -> Path:
        """The folder of a stage, made if it was not from these settings and the stage `before`.

        Args:
            name: Name of the stage and of its folder.
            make: Fills an empty folder.
            settings: Patterns of the names of the settings that shape it.
            before: The stage that it is made from.
        """
        shaped_by = [self.version, self.settings.language, self.settings.precision, name]
        if before:
            shaped_by.append(made_from(self.folder / before))
        known = asdict(self.settings)
        for pattern in settings:
            shaped_by += [[option, known[option]] for option in fnmatch.filter(known, pattern)]
        if name not in self._shown:
            self._check(self.folder / name)
        key = key_of(*shaped_by)
        with self._unfinished.stage(name, key):
            made_before = cached(self.folder / name, key, make)
        if made_before and name not in self._shown:
            self.stages.console.print(f"{name}: made before", soft_wrap=True)
        self._shown.add(name)
        return self.folder / name

    def _check(self, folder: Path) -> None:
        """Remove what a stage has left if it is damaged: it is then made anew."""
        wrong = damage(folder)
        if wrong is not None:
            warnings.warn(
                f"the stage {folder} is damaged: {wrong}. It is made anew.",
                DamagedCheckpointWarning,
                stacklevel=3,
            )
            shutil.rmtree(folder)

    def numbers(self, stage: str, name: str = "numbers") -> Any:
        """What a stage has measured, from its file `name`.json."""
        return json.loads((self.folder / stage / f"{name}.json").read_text(encoding="utf-8"))


def _half_done(error: BaseException) -> None:
    """An error within an update is no reason to save: the weights may be those of half of it."""


def some(items: Sequence[T], count: int, seed: int) -> list[T]:
    """`count` of the items, or all of them, in random order."""
    order = np.random.default_rng([seed, 7]).permutation(len(items))[:count]
    return [items[i] for i in order]


def write(path: Path, numbers: Any) -> None:
    """Write plain numbers as JSON."""
    path.write_text(json.dumps(numbers), encoding="utf-8")
