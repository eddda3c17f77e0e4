"""`textenv pretrain`: a language model from text."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from agents.commands.errors import errors_as_messages
from agents.runs.stages import Stages
from agents.runs.streaming import visible
from agents.supervised import Fitting, held_out_loss, open_stream, pretraining_steps, write_stream
from policies import TransformerConfig, TransformerPolicy, generate_tokens, tokenizer_of
from textenv import Tokenizer, load_tokenizer
from textenv.errors import CheckpointError, MalformedRecordError
from textenv.records import read_jsonl
from textenv.tokenizers import CharacterTokenizer, train_bpe

TEXT, NETWORK, TRAINING, OUTPUT = "What to read", "What learns", "How to learn", "Where to"
CONFIG = "pretraining.json"


def pretrain_command(
    context: typer.Context,
    text: Annotated[
        list[Path],
        typer.Option(
            help="A .txt file, which is one document, or a .jsonl file of records with a 'text'. "
            "May be given several times.",
            metavar="FILE",
            rich_help_panel=TEXT,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Where to save the policy. What an interrupted run has left there is gone on "
            "with.",
            metavar="FOLDER",
            rich_help_panel=OUTPUT,
        ),
    ],
    tokenizer: Annotated[
        str,
        typer.Option(
            help="'bpe' and 'characters' are made from the text; or 'bytes', 'gpt2', 'hf:...', "
            "a .json file.",
            rich_help_panel=TEXT,
        ),
    ] = "bpe",
    vocab_size: Annotated[
        int, typer.Option(min=257, help="Of a 'bpe' to be made.", rich_help_panel=TEXT)
    ] = 4096,
    held_out: Annotated[
        float,
        typer.Option(min=0.0, max=0.9, help="Share of the text, at its end.", rich_help_panel=TEXT),
    ] = 0.1,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="Go on from this policy, with its vocabulary and shape.",
            metavar="FOLDER",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    n_layer: Annotated[int, typer.Option(min=1, rich_help_panel=NETWORK)] = 4,
    n_head: Annotated[int, typer.Option(min=1, rich_help_panel=NETWORK)] = 4,
    n_embd: Annotated[int, typer.Option(min=1, rich_help_panel=NETWORK)] = 128,
    window: Annotated[
        int,
        typer.Option(min=1, help="Tokens read in a row: the context.", rich_help_panel=NETWORK),
    ] = 128,
    tokens: Annotated[
        int, typer.Option(min=1, help="To be predicted in all.", rich_help_panel=TRAINING)
    ] = 1_000_000,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Windows of a pass.", rich_help_panel=TRAINING)
    ] = 8,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Passes of an optimiser step.", rich_help_panel=TRAINING)
    ] = 1,
    learning_rate: Annotated[
        float, typer.Option(min=0, help="At its peak.", rich_help_panel=TRAINING)
    ] = 2.5e-3,
    weight_decay: Annotated[
        float, typer.Option(min=0, help="Of matrices.", rich_help_panel=TRAINING)
    ] = 0.1,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Products in bfloat16.", rich_help_panel=TRAINING)
    ] = False,
    device: Annotated[str, typer.Option(rich_help_panel=TRAINING)] = "cpu",
    report_every: Annotated[
        int,
        typer.Option(
            min=1,
            help="Steps between two looks at the held-out text, a sample, and a save.",
            rich_help_panel=OUTPUT,
        ),
    ] = 500,
    seed: Annotated[int, typer.Option(min=0, rich_help_panel=TRAINING)] = 0,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show where an error comes from.", rich_help_panel=OUTPUT),
    ] = False,
) -> None:
    """Train a language model to continue text.

    Prints the loss on the end of the text, which is held out, and what the model writes, from time
    to time. A run that was interrupted is gone on with by the same command.
    """
    console = Console()
    settings = {k: str(v) for k, v in context.params.items() if k not in ("debug", "report_every")}
    with errors_as_messages(debug):
        resumed = _interrupted(out, settings)
        stages = Stages(console)
        start = out if resumed else policy
        model = None if start is None else TransformerPolicy.load(start)
        vocabulary = _vocabulary(tokenizer, text, vocab_size, stages) if model is None else None
        if model is None:
            assert vocabulary is not None
            shape = TransformerConfig(vocabulary.vocab_size, window, n_layer, n_head, n_embd)
            model = TransformerPolicy(shape, tokenizer=vocabulary, seed=seed)
        model.to(device)
        stream = _stream(out / "text.tokens", text, model, resumed)
        cut = int(len(stream) * (1 - held_out))
        training, kept = stream[:cut], stream[cut:]
        fitting = Fitting(
            model,
            steps=math.ceil(tokens / (accumulate * batch_size * window)),
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            precision=torch.bfloat16 if bf16 else torch.float32,
        )
        if resumed:
            fitting.load(out)
            console.print(f"Going on after step {fitting.done:,} of {fitting.steps:,}.")
        out.mkdir(parents=True, exist_ok=True)
        (out / CONFIG).write_text(json.dumps(settings, indent=2), encoding="utf-8")

        def save() -> None:
            model.save(out)
            fitting.save(out)

        try:
            with stages.bar("Pretraining", tokens, "tokens") as advance:
                for step in pretraining_steps(
                    model,
                    training,
                    total_tokens=tokens,
                    window=window,
                    batch_size=batch_size,
                    accumulate=accumulate,
                    seed=seed,
                    fitting=fitting,
                ):
                    advance(step.tokens, f"loss {step.loss:.3f}")
                    if step.number % report_every == 0 or step.number == fitting.steps:
                        _report(model, kept, window, step.number, console)
                        save()
        except KeyboardInterrupt as error:
            save()
            error.__notes__ = [f"Saved in {out}. The same command goes on with it."]
            raise
        console.print(f"Policy: {out}", soft_wrap=True)


def _interrupted(out: Path, settings: dict[str, Any]) -> bool:
    """Whether `out` holds a run of these settings; one of other settings is not overwritten."""
    try:
        known = json.loads((out / CONFIG).read_text(encoding="utf-8"))
    except OSError:
        return False
    except ValueError as error:
        raise CheckpointError(f"{out / CONFIG} is damaged: {error}") from error
    if known != settings:
        different = ", ".join(sorted(k for k in settings if settings[k] != known.get(k)))
        raise CheckpointError(
            f"{out} holds a run with other settings ({different}): choose another --out, or go on "
            f"from its policy with --policy {out}"
        )
    return (out / "fitting.json").exists()


def _vocabulary(name: str, files: list[Path], vocab_size: int, stages: Stages) -> Tokenizer:
    if name == "characters":
        return CharacterTokenizer.of_texts(_documents(files))
    if name == "bpe":
        with stages.bar("Vocabulary", vocab_size, "tokens") as advance:
            made = train_bpe(_documents(files), vocab_size)
            advance(vocab_size)
        return made
    return load_tokenizer(name)


def _documents(files: list[Path]) -> Iterator[str]:
    for path in files:
        if path.suffix == ".txt":
            try:
                yield path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise MalformedRecordError(f"the text {path} cannot be read: {error}") from error
        else:
            yield from read_jsonl(path, _text, "documents")


def _text(record: dict[str, Any]) -> str:
    text = record.get("text")
    if not isinstance(text, str):
        raise ValueError(f"the record has no 'text'; its keys are {list(record)}")
    return text


def _stream(
    path: Path, files: list[Path], model: TransformerPolicy, resumed: bool
) -> NDArray[np.integer]:
    tokenizer = tokenizer_of(model)
    if not resumed:
        write_stream(path, _documents(files), tokenizer)
    return open_stream(path, tokenizer)


def _report(
    model: TransformerPolicy, kept: NDArray[np.integer], window: int, step: int, console: Console
) -> None:
    if len(kept) > 1:
        loss = held_out_loss(model, kept, window)
        console.print(f"step {step:,}: loss {loss:.4f} on held-out text")
    assert model.tokenizer is not None and model.tokenizer.stop_token is not None
    start = model.tokenizer.stop_token  # what stands before every document
    length = max(1, min(48, model.context - 1))
    ids = generate_tokens(
        model, [[start]], length, temperature=0.8, generator=np.random.default_rng(step)
    )[0]
    console.print(Text("  " + visible(model.tokenizer.decode(ids)), style="dim"))
