"""Groups of options that several commands have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agents.commands.options import setting
from agents.optimisation.settings import Computation

OWN_FUNCTION = {"file.py:function": "*:*"}
"""What an option takes beside names, with its pattern."""

GRAMMARS = {
    "regex:PATTERN": "regex:*",
    "json:FILE": "json:*",
    "lark:FILE": "lark:*",
    "record:COLUMN": "record:*",
}
"""What says which texts an answer may be, as `textenv.grammars.load_grammar` reads it."""

MODEL_AS_JUDGE = {"judge:POLICY": "judge:*", "judge:URL#MODEL": "judge:*#*"}
"""A language model that compares answers: a policy, or one behind a server."""


@dataclass(frozen=True)
class Device:
    """Where to compute.

    Attributes:
        device: Processor to use.
    """

    device: str = setting("cpu", names=("cpu", "cuda", "mps"), others={"cuda:1 and so on": "*"})


@dataclass(frozen=True)
class Machine(Computation, Device):
    """Where and how to compute."""


@dataclass(frozen=True)
class Answering(Machine):
    """Where and how to compute, for policies that only answer.

    Attributes:
        precision: Number format of the weights and the matrix products: bfloat16 is at least twice
            as fast on processors and GPUs made for it, and rounds more; int8 keeps the weights
            inside the layers in eight bits, in a quarter of their memory, by torchao.
    """

    precision: Literal["float32", "bfloat16", "float16", "int8"] = "float32"  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Refuse numbers out of their bounds; of the precisions, int8 is of answers alone."""
        if self.precision != "int8":
            super().__post_init__()


@dataclass(frozen=True)
class Sharded:
    """What each of several processes holds.

    Attributes:
        shard: Divide the network, its gradient and the optimiser's moments among the processes
            that torchrun started (FSDP2): for what does not fit into one.
    """

    shard: bool = False


@dataclass(frozen=True)
class Machines(Sharded, Machine):
    """Where and how to compute, perhaps in several processes."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A model of Hugging Face as it was published.

    Attributes:
        stop: Text of the token that ends an answer, for a model of Hugging Face that has none of
            its own.
        no_bos: Prompts begin without what the tokenizer of a model of Hugging Face puts before
            texts, such as <s>.
    """

    stop: str | None = None
    no_bos: bool = False


@dataclass(frozen=True, kw_only=True)
class Adapted(Published):
    """A model of Hugging Face that is trained.

    Attributes:
        lora: Train a LoRA adapter of this rank on a model of Hugging Face instead of its weights.
            0 trains the weights.
    """

    lora: int = setting(0, minimum=0, metavar="RANK")


@dataclass(frozen=True, kw_only=True)
class Saved:
    """How often to save.

    Attributes:
        save_every: Save a checkpoint every this many updates (50) or minutes (2m), too; 0 saves at
            the beginning and at the end only. If not given, every two minutes, or every 50 times
            the seconds that the last save took where that is longer. SIGTERM and SIGINT save at the
            end of an update.
        keep: Checkpoints that are kept, the newest included: where one is damaged, the one before
            it is used.
    """

    save_every: int | str | None = setting(None, metavar="N|Nm")
    keep: int = setting(2, minimum=1)


@dataclass(frozen=True, kw_only=True)
class Trained(Adapted):
    """A policy that is trained.

    Attributes:
        policy: The policy to begin with, usually the fine-tuned one: a folder written by
            policy.save, or a model of Hugging Face, by its folder or its name on the hub
            (owner/name).
        out: Folder to save the policy in.
    """

    policy: str = setting(metavar="FOLDER")
    out: Path = setting(metavar="FOLDER")


@dataclass(frozen=True)
class Network:
    """What is trained, if it is new.

    Attributes:
        n_layer: Layers of the network.
        n_head: Attention heads of a layer; they share its width.
        n_embd: Width of the network.
    """

    n_layer: int = setting(4, minimum=1)
    n_head: int = setting(4, minimum=1)
    n_embd: int = setting(128, minimum=1)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to answer.

    Attributes:
        max_new_tokens: Longest answer, in tokens.
        temperature: Logits are divided by it; less is more predictable, and 0 takes the likeliest
            token.
    """

    max_new_tokens: int = setting(24, minimum=1)
    temperature: float = setting(0.8, minimum=0)


@dataclass(frozen=True, kw_only=True)
class Masked:
    r"""Which tokens may be chosen.

    Attributes:
        min_new_tokens: Shortest answer: no token that ends one is chosen before.
        forbidden_tokens: An id that is never chosen. May be given several times.
        allowed_tokens: An id that may be chosen: then no other one is, but those given too and
            those that end an answer. May be given several times.
        stop_strings: A text that ends an answer, wherever tokens begin and end; it is not part of
            the answer. In bash a line end is $'\n'. May be given several times.
        grammar: Which texts an answer may be: a regular expression, a file with a JSON schema or
            with rules of Lark, or the column of the prompts' records that has such a name or a
            schema. Any text if not given.
    """

    min_new_tokens: int = setting(0, minimum=0)
    forbidden_tokens: list[int] = setting([], minimum=0)
    allowed_tokens: list[int] = setting([], minimum=0)
    stop_strings: list[str] = setting([])
    grammar: str | None = setting(None, metavar="GRAMMAR", others=GRAMMARS)


@dataclass(frozen=True, kw_only=True)
class Framed:
    """How messages are wrapped.

    Attributes:
        frame: How prompts, turns and replies are wrapped: chat for the template of the dialogues
            that the policy has learned from (textenv sft, or the tokenizer's own chat template), or
            a textenv.frames.ChatTemplate of yours. Prompts may then be lists of messages. Not at
            all if not given.
    """

    frame: str | None = setting(
        None, metavar="FILE:NAME", names=("chat",), others={"file.py:template": "*:*"}
    )


@dataclass(frozen=True, kw_only=True)
class FramedRecords(Framed):
    """How records are wrapped.

    Attributes:
        frame: How conversations are wrapped, and then texts too, as what the user says and the
            answer: chat for the template of the dialogues that the policy has learned from (textenv
            sft, or the tokenizer's own chat template), or a textenv.frames.ChatTemplate of yours.
            If not given, conversations are wrapped in the policy's template, or one of plain text,
            and texts are read as they are.
    """


@dataclass(frozen=True, kw_only=True)
class Conversation(Framed):
    """Conversations: answers of several turns.

    Attributes:
        world: What replies when a turn ends: a class derived from textenv.World, a function that
            makes one, or a BatchedWorld; file.py:World or package.module:World. It may begin
            without --prompts and pay without --reward.
        tools: A function that the policy may call in its text: file.py:function, or
            textenv.tools:calculator. May be given several times.
        max_turns: Turns of a conversation; --max-new-tokens, replies included, is the limit if not
            given.
        max_turn_tokens: Longest turn, in tokens.
        reply_timeout: Seconds that an async reply of the world may take.
        world_wait: Whether a step waits for all replies, or goes on with the rows that have theirs;
            async is not reproducible.
    """

    world: str | None = setting(None, metavar="FILE:NAME")
    tools: list[str] = setting([], metavar="FILE:NAME")
    max_turns: int | None = setting(None, minimum=1)
    max_turn_tokens: int | None = setting(None, minimum=1)
    reply_timeout: float | None = setting(None, minimum=0.001)
    world_wait: Literal["all", "async"] = "all"

    @property
    def has_turns(self) -> bool:
        """Whether anything replies."""
        return self.world is not None or bool(self.tools)

    def longest_turn(self, max_new_tokens: int) -> int:
        """Tokens that one turn may have where all of them may have `max_new_tokens`."""
        return min(max_new_tokens, self.max_turn_tokens or max_new_tokens)


@dataclass(frozen=True, kw_only=True)
class RewardModels:
    """A reward model, or several.

    Attributes:
        reward_model: Folder of a reward model, instead of --reward. May be given several times: the
            models are then an ensemble, as is what textenv reward-model --members writes. Or the
            folder of a classifier that textenv classifier has made; see --label.
        label: Label of that classifier whose log-odds are the score; none for a regression.
        combine: What an ensemble pays: the mean of its members less their standard deviation
            (less-spread) or their variance (less-variance), or the lowest score (worst).
        spread_penalty: Weight of that deviation or variance; 0 pays the mean.
    """

    reward_model: list[str] = setting([], metavar="FOLDER")
    label: str | None = None
    combine: Literal["less-spread", "less-variance", "worst"] = "less-spread"
    spread_penalty: float = setting(1.0, minimum=0)


@dataclass(frozen=True, kw_only=True)
class OwnClassifier:
    """A safety classifier of one's own.

    Attributes:
        classifier: Folder of a classifier that textenv classifier has made, which tells toxic texts
            instead of the lists of swear words.
        toxic_label: Its label for toxic texts.
    """

    classifier: Path | None = setting(None, metavar="FOLDER")
    toxic_label: str = "toxic"


@dataclass(frozen=True, kw_only=True)
class Prompted:
    """What to answer.

    Attributes:
        long_prompts: What to do with prompts that are longer than the policy's context less
            --max-new-tokens: error lists them, cut keeps their ends, drop leaves them out.
    """

    long_prompts: Literal["error", "cut", "drop"] = "error"


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How to learn.

    Attributes:
        learning_rate: Step size at its peak; it rises at first, then falls as --schedule says.
        weight_decay: Weight decay, applied to matrices only.
        schedule: How the learning rate falls: by half a cosine, in a straight line, or not at all.
        warmup: Steps in which the learning rate rises; below 1 a share of the steps.
        lr_floor: What the learning rate falls to, as a share of its peak.
        decay_steps: Steps until the learning rate has fallen, those of the warm-up included; all of
            them if not given.
        residual_dropout: Probability that a number which attention or MLP adds is dropped.
        attention_dropout: Probability that attention drops the weight of a place.
        embedding_dropout: Probability that a number of the embeddings is dropped.
    """

    learning_rate: float = setting(5e-4, minimum=0)
    weight_decay: float = setting(0.0, minimum=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = setting(0.05, minimum=0)
    lr_floor: float = setting(0.1, minimum=0, maximum=1)
    decay_steps: int | None = setting(None, minimum=1)
    residual_dropout: float = setting(0.0, minimum=0, maximum=0.99)
    attention_dropout: float = setting(0.0, minimum=0, maximum=0.99)
    embedding_dropout: float = setting(0.0, minimum=0, maximum=0.99)


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How a language model compares two answers: judge:...

    Attributes:
        principles: A text file of what makes an answer better, one principle a line; a general one
            if not given.
        principles_per_prompt: Principles that are drawn for each prompt; 0 asks by all of them.
        verdict: What counts where the two orders of the answers disagree: agreed makes a tie of
            it, unbiased takes the mean of the log-odds.
    """

    principles: Path | None = setting(None, metavar="FILE")
    principles_per_prompt: int = setting(1, minimum=0)
    verdict: Literal["agreed", "unbiased"] = "agreed"
