"""The job of `textenv online`: rounds of answers, rankings, a reward model and PPO.

The folder of a run holds its checkpoints (learner, reward model, all rankings so far), one of them
from the end of each round and others from between; `journal.jsonl`, to which every ranking goes at
once; and at the end the policy, the reward model and the rankings.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from agents.algorithms.ppo import PPO
from agents.commands.online import OnlineSettings
from agents.commands.parsing import to_kept
from agents.commands.shared import Conversation, Masked
from agents.evaluation import win_rate
from agents.feedback import (
    Asked,
    Labeller,
    Ranking,
    Remembered,
    Round,
    append_rankings,
    fit_reward_model,
    fit_token_reward,
    online_rounds,
    pair_accuracy,
    rank,
    read_rankings,
    sample_answers,
    terminal_labeller,
)
from agents.feedback.online import RANKINGS, unseen
from agents.feedback.rankings import as_text
from agents.feedback.reward_modelling import RewardModelStep
from agents.jobs.begin import begin_with, reference_of, with_lora
from agents.jobs.environments import (
    environment_for,
    fit_prompts,
    room_for_prompts,
    template_of_records,
)
from agents.jobs.going_on import CHECKPOINT, SAME_COMMAND
from agents.jobs.holding_out import hold_out
from agents.jobs.labellers import named_labeller, try_labeller
from agents.jobs.machine import device_named
from agents.jobs.outputs import check_folder
from agents.jobs.preferences import asked_of, chosen_prompts
from agents.learner import Learner
from agents.optimisation.settings import falling
from agents.runs.checkpoints import Checkpoints, write_whole
from agents.runs.learner_checkpoint import write_learner
from agents.runs.saving import Saving, Schedule
from agents.runs.stages import Advance, Stages
from agents.runs.update import Update
from agents.supervised.sft import steps_of
from policies import Policy, RewardModel, tokenizer_of
from policies.templates import keep_template
from policies.token_reward import TokenReward
from textenv import ListPrompts, Prompt
from textenv.errors import CheckpointError, OptionError
from textenv.files import reason
from textenv.frames import CHAT, ChatTemplate, ModelTemplate, load_frame

CONFIG, STATE = "config.json", "state.json"
JOURNAL, RANKINGS_FILE, FRESH = "journal.jsonl", "rankings.jsonl", "fresh.jsonl"
MAY_CHANGE = ("rounds", "device", "held_out", "save_every", "keep")
"""Options that a resumed run may be given other values of."""


def run(settings: OnlineSettings) -> None:
    """Train in rounds, or resume, and compare the policy with what it began as.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console = Console()
    task, wanted, machine = settings.task, settings.answers, settings.machine
    device = device_named(machine.device)
    check_folder(task.out, "--out")
    Schedule.of(settings.saving.save_every)
    _check_same(settings)
    labeller = named_labeller(task.labeller, settings.judging, machine)
    policy = begin_with(task.policy, task.stop, task.no_bos).to(device)
    tokenizer_of(policy, f"the policy in {task.policy}")
    chosen = ListPrompts(chosen_prompts(task.prompts, task.limit, machine.seed))
    template = template_of_records(
        task.frame, policy, any(prompt.messages is not None for prompt in chosen.prompts)
    )
    if template is not None and settings.rounds.segment_tokens is not None:
        raise OptionError(
            "--segment-tokens cuts answers in two, and a conversation ends in a whole message: "
            "give prompts as texts, or leave it out"
        )
    keep_template(policy, template)
    frame = load_frame(template, tokenizer_of(policy))
    room = room_for_prompts(policy, wanted.max_new_tokens)
    fitting = fit_prompts(chosen, policy, room, wanted.long_prompts, console, frame)
    held_out, prompts = hold_out(
        asked_of(fitting, policy, frame),
        as_text,
        lambda different: min(task.held_out, different // 2),
        np.random.default_rng(machine.seed),
    )
    try_labeller(labeller, prompts[0])
    job = OnlineRun.begun(settings, policy, prompts, template, console)
    try:
        job.play(labeller.label or terminal_labeller(console), asks_people=labeller.label is None)
    except KeyboardInterrupt as error:
        error.add_note(f"The same command goes on with round {job.done + 1}; rankings are kept.")
        raise
    labeller.tell(console)
    if labeller.label is not None and held_out:
        job.compare(labeller.label, held_out)
    job.finish()


@dataclass
class OnlineRun:
    """A run with all that it is made of.

    Attributes:
        settings: The options.
        prompts: What is asked in the rounds, texts or messages.
        model: The reward model, or the rewards of tokens.
        learner: Trains the policy against it.
        rankings: All rankings of the rounds that are done.
        fresh: Those of the round in which PPO goes on; None between rounds.
        done: Number of the last round that is done.
        stages: Shows what is done.
    """

    settings: OnlineSettings
    prompts: Sequence[Asked]
    model: RewardModel
    learner: Learner
    rankings: list[Ranking]
    fresh: list[Ranking] | None
    done: int
    stages: Stages

    @classmethod
    def begun(
        cls,
        settings: OnlineSettings,
        policy: Policy,
        prompts: Sequence[Asked],
        template: ChatTemplate | ModelTemplate | None,
        console: Console,
    ) -> "OnlineRun":
        """A run at its beginning, or after the last round that was saved.

        Args:
            settings: The options.
            policy: What it begins with.
            prompts: What is asked in the rounds, texts or messages.
            template: What wraps messages; None for texts as they are.
            console: Where to show what is done.

        Raises:
            CheckpointError: What was saved cannot be read.
        """
        task, machine, wanted = settings.task, settings.machine, settings.answers
        kind = RewardModel if settings.rounds.segment_tokens is None else TokenReward
        model = kind.from_policy(policy, machine.seed, template)
        with_lora(policy, task.lora, machine.seed, task.policy)
        saved = _saved(task.out, settings.saving.keep)
        if saved is not None:
            model = kind.load(saved / "reward_model", trunk=model.trunk)
        envs = environment_for(
            policy,
            ListPrompts(list(map(_prompt, prompts))),
            model.as_reward() if isinstance(model, TokenReward) else model,
            rows=wanted.rows,
            max_new_tokens=wanted.max_new_tokens,
            masks=Masked(),
            talk=Conversation(frame=task.frame if template is None else task.frame or CHAT),
        )
        learner = Learner(
            policy,
            envs,
            PPO(n_epochs=2),
            reference=reference_of(policy, task.lora),
            kl_coef=settings.training.kl_coef,
            n_steps=wanted.max_new_tokens,
            learning_rate=partial(falling, settings.training.learning_rate),
            temperature=wanted.temperature,
            precision=machine.precision,
            seed=machine.seed,
        )
        learner.runtime_state()  # what cannot be saved says so now
        learner.rescue_folder = task.out / "interrupted"
        learner.resume_command = SAME_COMMAND
        made = cls(settings, prompts, model, learner, [], None, 0, Stages(console))
        if saved is not None:
            learner.load(saved / "learner")
            made.rankings = _rankings(saved / RANKINGS_FILE)
            if (saved / FRESH).exists():
                made.fresh = _rankings(saved / FRESH)
            made.done = _state(saved)["round"]
            console.print(f"{made.done} rounds are done.")
        return made

    def play(self, labeller: Labeller, *, asks_people: bool) -> None:
        """All rounds that are left; each is saved when it is done.

        Args:
            labeller: Ranks the answers.
            asks_people: Whether it writes on the screen itself.
        """
        rounds, wanted = self.settings.rounds, self.settings.answers
        out = self.settings.task.out
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / CONFIG, json.dumps(to_kept(self.settings), indent=2, default=str))
        options = self.settings.saving
        saving = Saving(
            Checkpoints(out / CHECKPOINT, options.keep),
            self._write,
            Schedule.of(options.save_every),
            self.stages.console,
            SAME_COMMAND,
            done=self.learner.updates_done,
            # Not a save: the reward model may be half fitted.
            rescue=lambda error: error.add_note(SAME_COMMAND),
        )

        @contextmanager
        def show(name: str, total: int, unit: str) -> Iterator[Advance]:
            quiet = asks_people and unit == RANKINGS
            with ExitStack() as stack:
                if unit != "tokens":  # rankings are kept one by one
                    stack.enter_context(saving.at_once())
                yield stack.enter_context((unseen if quiet else self.stages.bar)(name, total, unit))

        def on_update(update: Update, fresh: Sequence[Ranking]) -> None:
            self.fresh = list(fresh)
            saving.after(self.learner.updates_done)

        played: Iterator[Round] = online_rounds(
            self.learner,
            self.prompts,
            Remembered(labeller, out / JOURNAL),
            self._fit,
            rounds=rounds.rounds,
            tokens_per_round=rounds.tokens_per_round,
            prompts_per_round=rounds.prompts_per_round,
            answers_per_prompt=rounds.answers_per_prompt,
            max_new_tokens=wanted.max_new_tokens,
            segment_tokens=rounds.segment_tokens,
            rankings=self.rankings,
            first=self.done + 1,
            begun_at=0,
            begun_with=self.fresh,
            frame=self.model.frame,
            seed=self.settings.machine.seed,
            show=show,
            on_update=on_update,
        )
        with saving:
            for one in played:
                self.rankings += one.rankings
                self.done, self.fresh = one.number, None
                last = one.updates[-1] if one.updates else None
                self.stages.console.print(
                    f"Round {one.number}: {sum(len(r.pairs()) for r in one.rankings)} pairs"
                    + (f", score {last.score:.3f}" if last else "")
                    + (f", KL {last.kl:.4f} nats a token" if last and last.kl is not None else ""),
                    highlight=False,
                )
                saving.finish()

    def compare(self, labeller: Labeller, prompts: Sequence[Asked]) -> None:
        """Show how often the labeller prefers the policy's answers to those of its beginning."""
        wanted, answers = self.settings.answers, []
        assert self.learner.reference is not None
        with self.stages.bar("Answers to held-out prompts", 2 * len(prompts), "answers") as advance:
            for number, policy in enumerate((self.learner.policy, self.learner.reference)):
                some = sample_answers(
                    policy,
                    prompts,
                    1,
                    frame=self.model.frame,
                    max_new_tokens=wanted.max_new_tokens,
                    temperature=wanted.temperature,
                    seed=self.settings.machine.seed,
                    on_answers=lambda n, before=number: advance(before * len(prompts) + n),  # type: ignore[misc]
                )
                answers.append([text for (text,) in some])
        pairs = [list(both) for both in zip(*answers, strict=True)]
        ranks = np.array([ranking.ranks for ranking in rank(labeller, prompts, pairs)])
        wins = win_rate(-ranks[:, 0], -ranks[:, 1])
        self.stages.console.print(
            f"On {len(prompts)} held-out prompts the labeller prefers the answers to those of the "
            f"first policy: {wins}",
            soft_wrap=True,
            highlight=False,
        )

    def finish(self) -> None:
        """Leave policy and reward model where they are found."""
        out, console = self.settings.task.out, self.stages.console
        self.learner.policy.save(out / "policy")
        self.model.save(out / "reward_model")
        records = (json.dumps(ranking.to_record(), ensure_ascii=False) for ranking in self.rankings)
        write_whole(out / RANKINGS_FILE, "".join(f"{record}\n" for record in records))
        console.print(f"Rankings: {out / RANKINGS_FILE}", soft_wrap=True)
        console.print(f"Reward model: {out / 'reward_model'}", soft_wrap=True)
        console.print(f"Policy: {out / 'policy'}", soft_wrap=True)

    def _fit(self, rankings: Sequence[Ranking]) -> None:
        """Fit the model to all rankings, once it has been tried on the new ones."""
        training, console = self.settings.training, self.stages.console
        fresh = [r for r in rankings[len(self.rankings) :] if r.pairs()]
        if fresh:
            accuracy = pair_accuracy(self.model, fresh)
            console.print(
                f"The reward model orders the new pairs as the labeller: {accuracy}, before it "
                "learns from them.",
                highlight=False,
            )
        fit = fit_token_reward if isinstance(self.model, TokenReward) else fit_reward_model
        learned = sum(len(set(ranking.ranks)) > 1 for ranking in rankings)
        total = steps_of(learned, training.reward_epochs, training.reward_batch_size)
        with self.stages.bar("Reward model", max(total, 1), "steps") as advance:

            def on_step(step: RewardModelStep) -> None:
                advance(step.number, f"loss {step.loss:.3f}  accuracy {step.accuracy:.2f}")

            fit(
                self.model,  # type: ignore[arg-type]  # each its own kind
                rankings,
                epochs=training.reward_epochs,
                batch_size=training.reward_batch_size,
                learning_rate=training.reward_learning_rate,
                precision=getattr(torch, self.settings.machine.precision),
                seed=self.settings.machine.seed,
                on_step=on_step,
            )

    def _write(self, folder: Path) -> None:
        """Write the present state into a checkpoint."""
        write_learner(self.learner, folder / "learner")
        self.model.save(folder / "reward_model")
        append_rankings(folder / RANKINGS_FILE, self.rankings)
        if self.fresh is not None:
            append_rankings(folder / FRESH, self.fresh)
        (folder / STATE).write_text(json.dumps({"round": self.done}), encoding="utf-8")


def _prompt(asked: Asked) -> Prompt:
    """What is asked, as an environment takes it."""
    return Prompt(asked) if isinstance(asked, str) else Prompt.from_row({"prompt": list(asked)})


def _saved(out: Path, keep: int) -> Path | None:
    """What to go on from: the newest whole checkpoint, or the last round of version 0.1."""
    found = Checkpoints(out / CHECKPOINT, keep).newest()
    return found or max(out.glob("round-*"), default=None, key=lambda path: path.name)


def _rankings(path: Path) -> list[Ranking]:
    """What `append_rankings` wrote; nothing leaves an empty file."""
    return read_rankings(path) if path.stat().st_size else []


def _state(saved: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((saved / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{saved} is not a round that was saved: {reason(error)}") from error
    return state


def _check_same(settings: OnlineSettings) -> None:
    """Refuse to go on with a run under other options.

    Raises:
        OptionError: The folder's run was begun with others.
        CheckpointError: The folder's settings cannot be read.
    """
    path = settings.task.out / CONFIG
    if not path.exists():
        return
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    given = json.loads(json.dumps(to_kept(settings), default=str))
    other = [n for n in given if n not in MAY_CHANGE and given[n] != kept.get(n)]
    if other:
        flags = ", ".join(f"--{n.replace('_', '-')} {kept.get(n)}" for n in other)
        raise OptionError(
            f"the run in {settings.task.out} was begun with {flags}: give the same, or another "
            "--out"
        )
