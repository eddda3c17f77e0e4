"""`textenv pretrain`: its options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agents.commands.options import setting
from agents.commands.shared import Adapted, Fit, Machines, Network, Saved

TOKENIZERS = ("bpe", "characters", "bytes", "gpt2", "cl100k_base", "o200k_base")
SAVED_TOKENIZERS = {"another name of tiktoken": "*_*", "hf:NAME": "hf:*", "FILE.json": "*.json"}


@dataclass(frozen=True)
class Text:
    """What to read.

    Attributes:
        text: A .txt file, which is one document, or a .jsonl, .json, .csv, .tsv or .parquet file,
            perhaps compressed, of records with a 'text'. May be given several times, each perhaps
            with its share of the tokens that are read: books.jsonl:0.7.
        tokenizer: Vocabulary; bpe and characters are made from the text.
        vocab_size: Tokens of a bpe that is made.
        held_out: Share of the text, at its end, that is not learned but measured on.
    """

    text: list[Path] = setting(metavar="FILE[:WEIGHT]")
    tokenizer: str = setting("bpe", metavar="NAME", names=TOKENIZERS, others=SAVED_TOKENIZERS)
    vocab_size: int = setting(4096, minimum=257)
    held_out: float = setting(0.1, minimum=0.0, maximum=0.9)


@dataclass(frozen=True)
class PretrainedNetwork(Network, Adapted):
    """What learns.

    Attributes:
        policy: Start from this policy, with its vocabulary and shape: a folder written by
            policy.save, or a causal model of Hugging Face, by its folder or its name on the hub
            (owner/name).
        window: Tokens read in a row: the context of the policy.
        form: Layers of a new network: those of GPT-2, or of Llama (RMSNorm, rotary positions,
            SwiGLU, no biases).
        n_kv_head: Heads of keys and values of a new network, each shared by several of --n-head;
            as many as these if not given.
        rope_scaling: How the rotary positions of --policy are stretched, if --window is longer than
            its context.
    """

    policy: str | None = setting(None, metavar="FOLDER")
    window: int = setting(128, minimum=1)
    form: Literal["gpt", "llama"] = "gpt"
    n_kv_head: int | None = setting(None, minimum=1)
    rope_scaling: Literal["linear", "ntk", "yarn", "llama3"] | None = None


@dataclass(frozen=True, kw_only=True)
class Training(Fit):
    """How to learn.

    Attributes:
        tokens: Tokens to predict in all.
        batch_size: Windows of a pass through the network.
        accumulate: Passes of an optimiser step.
        ramp_tokens: Tokens over which steps grow from --ramp-start to --batch-size times
            --accumulate windows; 0 for steps of one size.
        ramp_start: Windows of the first step, with --ramp-tokens.
        optimizer: With muon, the matrices inside the network learn by Muon and the rest by AdamW:
            more is learned from each token, and a step takes longer.
    """

    tokens: int = setting(1_000_000, minimum=1)
    batch_size: int = setting(8, minimum=1)
    accumulate: int = setting(1, minimum=1)
    ramp_tokens: int = setting(0, minimum=0)
    ramp_start: int = setting(1, minimum=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = setting(2.5e-3, minimum=0)
    weight_decay: float = setting(0.1, minimum=0)


@dataclass(frozen=True, kw_only=True)
class Output(Saved):
    """What to show and to keep.

    Attributes:
        out: Folder to save the policy in. Run the same command again to resume, with more --tokens
            to go on with a run that is finished.
        report_every: Steps between two looks at the held-out text, each with a sample.
    """

    out: Path = setting(metavar="FOLDER")
    report_every: int = setting(500, minimum=1)


@dataclass(frozen=True)
class PretrainSettings:
    """Train a language model to continue text.

    Prints the loss on the end of the text, which is held out, and what the model writes, from time
    to time. Run the same command again to resume a run that was interrupted.
    """

    text: Text
    network: PretrainedNetwork
    training: Training
    machine: Machines
    output: Output
