"""The job behind `textenv train`: PPO on a task, before and after compared, a run folder."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from rich.console import Console

from agents import PPO, Learner, PPOPtx
from agents.evaluation import Evaluation, Interval, bootstrap_interval, evaluate
from agents.jobs import speeches
from agents.jobs.environments import environment_for
from agents.runs.learner_checkpoint import POLICY, REFERENCE
from agents.runs.loggers import CSVLogger, TensorBoardLogger
from agents.runs.progress import learn
from agents.runs.run_folder import RunFolder
from agents.runs.samples import append_samples
from agents.runs.stages import Stages
from agents.supervised.pretraining import PretrainingStep, held_out_loss
from policies import (
    HuggingFacePolicy,
    Policy,
    RewardModel,
    SeparateValue,
    TransformerPolicy,
    load_policy,
    tokenizer_of,
)
from policies.adapters import import_peft
from policies.checkpoint import is_policy
from textenv import ListPrompts, Prompt, PromptSource, TextVectorEnv, load_prompts
from textenv.errors import (
    AdapterError,
    CheckpointError,
    InvalidRewardError,
    MalformedRecordError,
    RewardError,
)
from textenv.rewards import reward_terms

FEWEST_TO_SPLIT = 40
"""From shorter lists of prompts nothing is held out: the same prompts train and evaluate."""


@dataclass(frozen=True)
class Settings:
    """What was asked for; `config.json` of the run folder holds it.

    Attributes:
        prompts: A `.txt` or `.jsonl` file, or `file.py:name`; the demo's openings if None.
        reward: `file.py:name` or `package.module:name`; the demo's sentiment if None.
        policy: A folder written by `policy.save`, or a model of Hugging Face by its folder or its
            name on the hub (owner/name); the demo's GPT if None.
        lora: Rank of the LoRA adapter that is trained instead of the model's weights, which then
            are the reference too; 0 trains the weights. Needs a model of Hugging Face.
        micro_batch_tokens: So many tokens are in memory at once in an update; None: a minibatch.
        reward_model: A folder written by `RewardModel.save`, instead of `reward`. The critic then
            is a network of its own that begins as the reward model, if their vocabularies agree.
        ptx_text: A text file, if PPO is to go on reading it (PPO-ptx).
        ptx_coef: Weight of that text.
        tokens: Tokens to choose in PPO, in all.
        rows: Answers written at a time.
        max_new_tokens: Token budget of an answer.
        kl_coef: Weight of the KL penalty for leaving the policy that training began with.
        learning_rate: Of PPO; it falls linearly to a tenth.
        temperature: Of the sampling, in training and evaluation.
        pretrain_tokens: Tokens that the demo's GPT reads beforehand.
        eval_answers: Answers of each evaluation; prompts that are fewer are answered repeatedly.
        seed: Of everything.
    """

    prompts: str | None = None
    reward: str | None = None
    policy: str | None = None
    lora: int = 0
    micro_batch_tokens: int | None = None
    reward_model: str | None = None
    ptx_text: str | None = None
    ptx_coef: float = 1.0
    tokens: int = 120_000
    rows: int = 128
    max_new_tokens: int = 24
    kl_coef: float = 0.08
    learning_rate: float = 5e-4
    temperature: float = 0.8
    pretrain_tokens: int = speeches.Pretraining.total_tokens
    eval_answers: int = 512
    seed: int = 0

    @classmethod
    def of_run(cls, run: RunFolder) -> Self:
        """The settings of an earlier run.

        Raises:
            CheckpointError: The folder is none of a run.
        """
        try:
            return cls(**json.loads(run.config.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{run.path} is no folder of a run: {error}") from error


@dataclass(frozen=True)
class Result:
    """What a job has shown.

    Attributes:
        run: Where all of it is kept.
        before: Answers before PPO.
        after: Answers to the same prompts after it.
        held_out: Whether PPO has not seen these prompts.
        gain: Mean difference of the scores, paired by prompt, and its interval.
        seconds: What each stage took.
    """

    run: RunFolder
    before: Evaluation
    after: Evaluation
    held_out: bool
    gain: Interval
    seconds: dict[str, float]

    def numbers(self) -> dict[str, Any]:
        """What `result.json` holds."""
        return {
            "answers": len(self.before.samples),
            "held_out": self.held_out,
            "gain": self.gain._asdict(),
            "before": self.before.numbers(),
            "after": self.after.numbers(),
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }


def train(
    settings: Settings, root: str | Path, console: Console, resume: RunFolder | None = None
) -> Result:
    """Do the whole job, with a progress bar for each stage.

    Args:
        settings: What to do.
        root: Where the folder of the run is made.
        console: Where to show it.
        resume: Go on with this run instead of a new one.

    Raises:
        TextEnvError: Something given cannot be used, or a reward failed. If the learner was
            running it is saved first, as it is on KeyboardInterrupt; a note says where.
    """
    stages = Stages(console)
    training, asked, held_out = _prompts(settings)
    reward = _reward(settings)
    reward_terms(reward)  # a reward that cannot be used is found before the long work
    actor, reference = _policies(settings, stages, resume)
    policy = _with_critic(actor, reward)
    envs = _environment(settings, actor, training, reward)
    examination = _environment(settings, actor, ListPrompts(asked), reward)
    algorithm = _algorithm(settings, actor)
    run = resume or RunFolder.create(root)
    run.write_config(asdict(settings))

    def answers(name: str, who: Policy) -> Evaluation:
        with stages.bar(name, len(asked), "answers") as advance:
            return evaluate(
                who,
                examination,
                asked,
                reference=reference,
                temperature=settings.temperature,
                seed=settings.seed,
                on_answers=advance,
            )

    before = answers("Answers before", reference)
    learner = Learner(
        policy,
        envs,
        algorithm,
        reference=reference,
        kl_coef=settings.kl_coef,
        learning_rate=lambda done: settings.learning_rate * (1 - 0.9 * done),
        temperature=settings.temperature,
        micro_batch_tokens=settings.micro_batch_tokens,
        n_steps=settings.max_new_tokens,
        seed=settings.seed,
    )
    if resume:
        learner.load(run.checkpoint)
    with stages.timed("PPO"):
        _learn(learner, settings.tokens, run, console)
    after = answers("Answers after", policy)

    gain = bootstrap_interval(after.scores - before.scores)
    result = Result(run, before, after, held_out, gain, stages.seconds)
    for updates, evaluation in ((0, before), (learner.updates_done, after)):
        append_samples(run.samples, evaluation.samples, update=updates)
    (run.path / "result.json").write_text(json.dumps(result.numbers(), indent=2), encoding="utf-8")
    return result


# -------------------------------------------------------------------- what the job is made of


def _learn(learner: Learner, total_tokens: int, run: RunFolder, console: Console) -> None:
    """Train to the end, and leave a checkpoint in `run` whatever happens."""
    learner.rescue_folder = run.checkpoint
    loggers = (CSVLogger(run.metrics), TensorBoardLogger(run.path / "tensorboard"))
    try:
        learn(learner, total_tokens, loggers=loggers, console=console)
    except (RewardError, KeyboardInterrupt) as error:
        if not hasattr(error, "__notes__"):  # between two updates: not yet saved
            learner.save(run.checkpoint)
        error.__notes__ = [f"Saved. To go on: textenv train --resume {run.path}"]
        raise
    finally:
        for logger in loggers:
            logger.close()
    learner.save(run.checkpoint)


def _reward(settings: Settings) -> Any:
    if settings.reward_model is not None:
        if settings.reward is not None:
            raise InvalidRewardError(
                f"both a reward ({settings.reward}) and a reward model ({settings.reward_model}) "
                "are given: give one of them"
            )
        return RewardModel.load(settings.reward_model)
    return settings.reward or speeches.sentiment_reward()


def _with_critic(actor: Policy, reward: Any) -> Policy:
    """The actor with a critic that begins as the reward model, if that reads the same tokens."""
    if not isinstance(reward, RewardModel) or actor.tokenizer is None:
        return actor
    if reward.tokenizer.fingerprint != actor.tokenizer.fingerprint:
        return actor
    return SeparateValue(actor, reward.as_critic())


def _algorithm(settings: Settings, policy: Policy) -> PPO:
    """PPO, with a pretraining term if there is text for it."""
    common: dict[str, Any] = {"n_epochs": 2, "minibatch_tokens": 1024}
    if settings.ptx_text is None:
        return PPO(**common)
    assert policy.tokenizer is not None
    try:
        text = Path(settings.ptx_text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedRecordError(f"{settings.ptx_text} cannot be read: {error}") from error
    stream = np.array(policy.tokenizer.encode(text), dtype=np.int64)
    window = min(policy.context, len(stream) - 1)
    return PPOPtx(**common, stream=stream, ptx_coef=settings.ptx_coef, ptx_window=window)


def _policies(
    settings: Settings, stages: Stages, resume: RunFolder | None
) -> tuple[Policy, Policy]:
    """What learns, and what it began as."""
    if resume:
        policy = load_policy(resume.checkpoint / POLICY)
        if settings.lora:
            return policy, _as_huggingface(policy, settings).reference()
        return policy, load_policy(resume.checkpoint / REFERENCE).frozen_copy()
    if settings.policy is not None:
        policy = _begin_with(settings.policy)
    else:
        policy = _demo_policy(settings, stages)
    tokenizer_of(policy, f"the policy in {settings.policy}")
    if not settings.lora:
        return policy, policy.frozen_copy()
    adapted = _as_huggingface(policy, settings)
    torch.manual_seed(settings.seed)  # of the adapter's first weights
    adapted.add_adapter(
        import_peft().LoraConfig(
            r=settings.lora, lora_alpha=2 * settings.lora, target_modules="all-linear"
        )
    )
    return adapted, adapted.reference()


def _begin_with(name: str) -> Policy:
    """A policy that was saved, or a model of Hugging Face: a folder or owner/name on the hub."""
    folder = Path(name)
    on_the_hub = not folder.exists() and len(folder.parts) == 2
    if on_the_hub or ((folder / "config.json").exists() and not is_policy(folder)):
        return HuggingFacePolicy.from_pretrained(name)
    return load_policy(folder)


def _as_huggingface(policy: Policy, settings: Settings) -> HuggingFacePolicy:
    if not isinstance(policy, HuggingFacePolicy):
        raise AdapterError(
            f"--lora {settings.lora} needs a model of Hugging Face, and --policy "
            f"{settings.policy} is none: leave it out to train all weights"
        )
    return policy


def _demo_policy(settings: Settings, stages: Stages) -> TransformerPolicy:
    """The GPT of the demo, from the cache if an earlier run has left it there."""
    shape = speeches.Pretraining(total_tokens=settings.pretrain_tokens, seed=settings.seed)
    folder = speeches.pretrained_folder(shape)
    if folder.exists():
        stages.console.print(f"Pretrained policy of an earlier run: {folder}", soft_wrap=True)
        return TransformerPolicy.load(folder)
    with stages.bar("Vocabulary", shape.vocab_size, "tokens") as advance:
        tokenizer = speeches.learn_vocabulary(shape)
        advance(tokenizer.vocab_size)
    with stages.bar("Pretraining", shape.total_tokens, "tokens") as advance:
        begin = time.perf_counter()

        def show(step: PretrainingStep) -> None:
            speed = step.tokens / (time.perf_counter() - begin)
            advance(step.tokens, f"loss {step.loss:.2f}  {speed:,.0f} tokens/s")

        policy = speeches.pretrain(shape, tokenizer, on_step=show)
    _, kept = speeches.read()
    loss = held_out_loss(policy, speeches.stream(kept, tokenizer), shape.window)
    stages.console.print(f"Loss on held-out speeches: {loss:.3f} nats a token")
    return policy


def _prompts(settings: Settings) -> tuple[PromptSource, list[Prompt], bool]:
    """Where the training prompts come from, those to evaluate on, and whether they are others."""
    count = settings.eval_answers
    if settings.prompts is None:
        training, held_out = speeches.prompts()
        return ListPrompts(training), _spread(held_out, count), True
    source = load_prompts(settings.prompts)
    mixed = np.random.default_rng(settings.seed)
    if not isinstance(source, ListPrompts):  # it makes new ones up for ever
        seeds = mixed.integers(2**64, size=count, dtype=np.uint64)
        return source, list(source.draw(seeds)), True
    if len(source.prompts) < FEWEST_TO_SPLIT:
        return source, _spread(source.prompts, count), False
    order = mixed.permutation(len(source.prompts))
    cut = max(len(order) // 10, FEWEST_TO_SPLIT // 2)
    held_out, training = ([source.prompts[i] for i in part] for part in np.split(order, [cut]))
    return ListPrompts(training), _spread(held_out, count), True


def _spread(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """`count` of the prompts at even distances; all of them repeatedly if there are fewer."""
    if len(prompts) < count:
        return [prompts[i % len(prompts)] for i in range(count)]
    return [prompts[i] for i in np.linspace(0, len(prompts) - 1, count).astype(int)]


def _environment(
    settings: Settings, policy: Policy, prompts: PromptSource, reward: Any
) -> TextVectorEnv:
    return environment_for(
        policy, prompts, reward, rows=settings.rows, max_new_tokens=settings.max_new_tokens
    )
