"""The job of `textenv pretrain`: a language model from text."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from agents.commands.parsing import to_flat, to_kept
from agents.commands.pretrain import PretrainedNetwork, PretrainSettings
from agents.distribution import Ranks
from agents.distribution.gathering import gathered, save_whole
from agents.jobs.begin import begin_with, refuse_encoder_decoder, with_lora
from agents.jobs.fit import fit_arguments
from agents.jobs.going_on import CHECKPOINT, SAME_COMMAND
from agents.jobs.machine import device_named, divided
from agents.jobs.networks import check_sizes, new_network, wide_enough
from agents.jobs.outputs import check_folder
from agents.jobs.weights import files_and_weights
from agents.runs.checkpoints import Checkpoints, write_whole
from agents.runs.learner_checkpoint import POLICY
from agents.runs.saving import Saving, Schedule
from agents.runs.stages import Stages
from agents.runs.streaming import visible
from agents.supervised import (
    BatchRamp,
    Fitting,
    StreamMixture,
    held_out_loss,
    open_stream,
    pretraining_steps,
    write_stream,
)
from agents.supervised.optimisers import OPTIMISERS
from agents.supervised.pretraining import steps_of_tokens
from agents.supervised.token_stream import shortest_of
from policies import (
    Policy,
    generate_tokens,
    load_policy,
    tokenizer_of,
)
from textenv import Tokenizer, load_tokenizer
from textenv.errors import (
    CheckpointError,
    OptionError,
    PromptError,
    TokenizerError,
)
from textenv.files import check_there, read_text
from textenv.records import read_records
from textenv.tokenizers import CharacterTokenizer, prompt_frame, train_bpe

CONFIG = "pretraining.json"
MAY_CHANGE = ("report_every", "save_every", "keep", "device", "shard")
"""Options that a run which goes on may be given other values of."""
ADDED = {
    "stop": "None",
    "no_bos": "False",
    "lora": "0",
    "form": "gpt",
    "n_kv_head": "None",
    "rope_scaling": "None",
    "schedule": "cosine",
    "warmup": "0.05",
    "lr_floor": "0.1",
    "decay_steps": "None",
    "residual_dropout": "0.0",
    "attention_dropout": "0.0",
    "embedding_dropout": "0.0",
    "ramp_tokens": "0",
    "ramp_start": "1",
    "optimizer": "adamw",
}
"""Options that runs of version 0.1 did not have, at their defaults."""


def run(settings: PretrainSettings) -> None:
    """Train to the end, and resume what lies in the folder.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console = Console()
    training, network = settings.training, settings.network
    out, report_every = settings.output.out, settings.output.report_every
    device = device_named(settings.machine.device)
    schedule = Schedule.of(settings.output.save_every)
    checkpoints = Checkpoints(out / CHECKPOINT, settings.output.keep)
    if network.policy is None:
        check_sizes(network)
    files, weights = files_and_weights(settings.text.text)
    check_there(files, "text")
    check_folder(out, "--out")
    described = {k: str(v) for k, v in to_kept(settings).items() if k not in MAY_CHANGE}
    _check_same(out, described, to_flat(settings))
    saved = checkpoints.newest()
    policy = None if saved is None else saved / POLICY
    if saved is None and (out / "fitting.json").exists():  # of version 0.1
        saved = policy = out
    stages = Stages(console)
    if policy is not None:
        model: Policy = load_policy(policy)
    elif network.policy is None:
        text = settings.text
        if not any(document.strip() for document in documents_of(files)):
            raise PromptError(f"there is no text in {' and '.join(map(str, files))}")
        vocabulary = _vocabulary(text.tokenizer, files, text.vocab_size, stages)
        model = new_network(network, vocabulary, settings.machine.seed)
    else:
        model = wide_enough(_given(network, settings.machine.seed), network)
    model.to(device)
    learned, kept = _streams(out, files, weights, settings, model, resumed=saved is not None)
    if isinstance(learned, StreamMixture):
        passes = learned.passes(training.tokens)
        for path, share, times in zip(files, learned.shares, passes, strict=True):
            console.print(f"{path}: {share:.1%} of the tokens, read {times:.2f} times")
    full = training.accumulate * training.batch_size
    ramp = BatchRamp(training.ramp_start, training.ramp_tokens) if training.ramp_tokens else None
    fitting = Fitting(
        divided(model, settings.machine),
        steps=steps_of_tokens(training.tokens, network.window, full, ramp),
        precision=getattr(torch, settings.machine.precision),
        seed=settings.machine.seed,
        optimizer=OPTIMISERS[training.optimizer],
        **fit_arguments(training),
    )
    if saved is not None:
        fitting.load(saved)
        console.print(f"Going on after step {fitting.done:,} of {fitting.steps:,}.")
    ranks = fitting.ranks
    ranks.by_first(lambda: write_whole(out / CONFIG, json.dumps(described, indent=2)))

    def write(folder: Path) -> None:
        save_whole(model, folder / POLICY)
        fitting.save(folder)

    if fitting.done < fitting.steps:
        with (
            stages.bar("Pretraining", training.tokens, "tokens") as advance,
            Saving(
                checkpoints, write, schedule, console, SAME_COMMAND, done=fitting.done
            ) as saving,
        ):
            for step in pretraining_steps(
                model,
                learned,
                total_tokens=training.tokens,
                window=network.window,
                batch_size=training.batch_size,
                accumulate=training.accumulate,
                ramp=ramp,
                seed=settings.machine.seed,
                fitting=fitting,
            ):
                advance(step.tokens, f"loss {step.loss:.3f}")
                saving.after(step.number)
                if step.number % report_every == 0 or step.number == fitting.steps:
                    with gathered(model) as whole:
                        _report(whole, kept, network.window, step.number, console)
            saving.finish()
    else:
        console.print(f"It had ended: --tokens above {training.tokens} goes on with it.")
    save_whole(model, out)
    console.print(f"Policy: {out}", soft_wrap=True)


def _given(network: PretrainedNetwork, seed: int) -> Policy:
    """The policy that `--policy` names, to be trained further."""
    assert network.policy is not None
    model = begin_with(network.policy, network.stop, network.no_bos)
    refuse_encoder_decoder(model, "pretrain", network.policy)
    return with_lora(model, network.lora, seed, network.policy)


def _check_same(out: Path, settings: dict[str, str], as_given: dict[str, Any]) -> None:
    """Refuse to overwrite a run of other settings.

    Args:
        out: The folder.
        settings: With absolute paths. More or fewer tokens are no other settings.
        as_given: The same as they were typed, which is what version 0.1 wrote.

    Raises:
        CheckpointError: `out` holds one.
    """
    try:
        known = ADDED | json.loads((out / CONFIG).read_text(encoding="utf-8"))
    except OSError:
        return
    except ValueError as error:
        raise CheckpointError(f"{out / CONFIG} is damaged: {error}") from error
    different = [
        name
        for name in sorted({*settings, *known} - {"tokens", *MAY_CHANGE})
        if known.get(name) not in (settings.get(name), str(as_given.get(name)))
    ]
    if different:
        raise CheckpointError(
            f"{out} holds a run with other settings ({', '.join(different)}): choose another "
            f"--out, or go on from its policy with --policy {out}"
        )


def _vocabulary(name: str, files: list[Path], vocab_size: int, stages: Stages) -> Tokenizer:
    if name == "characters":
        return CharacterTokenizer.of_texts(documents_of(files))
    if name == "bpe":
        with stages.bar("Vocabulary", vocab_size, "tokens") as advance:
            try:
                made = train_bpe(documents_of(files), vocab_size)
            except TokenizerError as error:
                raise OptionError(f"--vocab-size {vocab_size}: {error}") from error
            advance(vocab_size)
        return made
    return load_tokenizer(name)


def documents_of(files: list[Path]) -> Iterator[str]:
    """The documents of files of text."""
    for path in files:
        if path.suffix == ".txt":
            yield read_text(path)
        else:
            yield from read_records(path, _text, "documents")


def _text(record: dict[str, Any]) -> str:
    text = record.get("text")
    if not isinstance(text, str):
        raise ValueError(f"the record has no 'text'; its keys are {list(record)}")
    return text


def _streams(
    out: Path,
    files: list[Path],
    weights: list[float] | None,
    settings: PretrainSettings,
    model: Policy,
    resumed: bool,
) -> tuple[NDArray[np.integer] | StreamMixture, NDArray[np.integer] | StreamMixture]:
    """What is learned from and what is held out: one stream of all files, or one of each.

    Raises:
        PromptError: A stream is too short.
    """
    tokenizer = tokenizer_of(model)
    together = [files] if weights is None else [[path] for path in files]
    learned, kept = [], []
    for number, some in enumerate(together):
        path = out / (f"text-{number}.tokens" if number else "text.tokens")
        if not resumed:
            Ranks.found().by_first(partial(write_stream, path, documents_of(some), tokenizer))
        stream = open_stream(path, tokenizer)
        cut = int(len(stream) * (1 - settings.text.held_out))
        _check_length(settings, some, cut, len(stream) - cut)
        learned.append(stream[:cut])
        kept.append(stream[cut:])
    if weights is None:
        return learned[0], kept[0]
    shares = tuple(weights)
    return StreamMixture(tuple(learned), shares), StreamMixture(tuple(kept), shares)


def _check_length(settings: PretrainSettings, paths: list[Path], learned: int, kept: int) -> None:
    """Refuse a text that is too short for a window, or for a held-out part with something to say.

    Raises:
        PromptError: It is.
    """
    files, window = " and ".join(map(str, paths)), settings.network.window
    if learned <= window:
        raise PromptError(
            f"{files} gives {learned} tokens to learn from, and a window of {window} needs "
            f"{window + 1}: give more text, or make --window or --held-out smaller"
        )
    if settings.text.held_out > 0 and kept < 2:
        raise PromptError(
            f"--held-out {settings.text.held_out} of {files} is {kept} tokens, and 2 are needed to "
            "measure on: give more text, or take --held-out 0"
        )


def _report(
    model: Policy,
    kept: NDArray[np.integer] | StreamMixture,
    window: int,
    step: int,
    console: Console,
) -> None:
    if shortest_of(kept) > 1:
        parts = kept if isinstance(kept, StreamMixture) else StreamMixture((kept,), (1.0,))
        losses = [held_out_loss(model, part, window) for part in parts.streams]
        loss = float(parts.shares @ losses)  # of a mixture the mean by its shares
        console.print(f"step {step:,}: loss {loss:.4f} on held-out text")
    assert model.tokenizer is not None and model.tokenizer.stop_token is not None
    # What stands before every document.
    start = [model.tokenizer.stop_token, *prompt_frame(model.tokenizer)[0]]
    length = max(1, min(48, model.context - 1))
    ids = generate_tokens(
        model, [start], length, temperature=0.8, generator=np.random.default_rng(step)
    )[0]
    console.print(Text("  " + visible(model.tokenizer.decode(ids)), style="dim"))
