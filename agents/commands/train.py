"""`textenv train`: its options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agents.algorithms.names import ALGORITHMS, algorithm_named
from agents.commands.options import Choice, one_of, setting
from agents.commands.shared import (
    Adapted,
    Conversation,
    Device,
    Masked,
    Network,
    Prompted,
    RewardModels,
    Saved,
    Sharded,
)
from agents.optimisation.settings import Optimisation

JOB_DEFAULTS = {
    "ppo": {"n_epochs": 2},
    "ppo-penalty": {"n_epochs": 2},
    "ppo-ptx": {"n_epochs": 2, "ptx_window": 4096},
}
"""Two passes over a rollout are enough for answers of a few words; windows of text are as long as
the policy's context, which is shorter than this."""


@dataclass(frozen=True, kw_only=True)
class Task(RewardModels, Adapted):
    """What to learn.

    Attributes:
        prompts: Prompts: a .txt file (one a line), a .jsonl, .json, .csv, .tsv or .parquet file,
            perhaps compressed (records with a 'prompt', or conversations, with --frame), or
            file.py:name, which is a function, a list or a curriculum. Of 40 different ones or more,
            a tenth but at least 20 are held out to be measured on. If not given, what the
            --world begins with, or openings of speeches.
        reward: Your reward, a function of a list of episodes: file.py:function or
            package.module:function; it is added to what a --world pays. How positive an answer
            sounds if neither is given.
        reward_model: Folder of a reward model, instead of --reward. The critic begins as its copy.
            May be given several times: the models are then an ensemble, as is what textenv
            reward-model --members writes. Or the folder of a classifier; see --label.
        policy: The policy to begin with: a folder written by policy.save, or a model of Hugging
            Face, by its folder or its name on the hub (owner/name).
        lora: Train a LoRA adapter of this rank on a model of Hugging Face instead of its weights;
            the model without it is the reference. 0 trains the weights.
        ptx_text: A text file that ppo-ptx keeps reading, so that the policy forgets less. Chooses
            that algorithm.
    """

    prompts: str | None = setting(None, metavar="FILE")
    reward: str | None = setting(None, metavar="FILE:NAME")
    policy: str | None = setting(None, metavar="FOLDER")
    ptx_text: str | None = setting(None, metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class Answers(Prompted, Masked):
    """How to answer.

    Attributes:
        max_new_tokens: Longest answer, in tokens; of a conversation all turns and replies.
        rows: Answers that are written at a time.
        group_size: Answers to each drawn prompt; algorithms that compare answers need 2 or more.
    """

    max_new_tokens: int = setting(24, minimum=1)
    rows: int = setting(128, minimum=1)
    group_size: int = setting(1, minimum=1)


@dataclass(frozen=True)
class Training(Optimisation):
    """How to learn.

    Attributes:
        tokens: Tokens to choose in all.
        learning_rate: Step size at the start; it falls linearly to a tenth.
        kl_coef: Weight of the KL penalty; more keeps the answers closer to those of the first
            policy.
        stop_beyond_kl: End the training once answers are this far from those of the first policy,
            in nats per answer: a reward model is wrong about what lies beyond.
    """

    tokens: int = setting(120_000, minimum=1)
    learning_rate: float = setting(5e-4, minimum=0)
    temperature: float = setting(0.8, minimum=0.01)
    kl_coef: float = setting(0.08, minimum=0)
    stop_beyond_kl: float | None = setting(None, minimum=0)


@dataclass(frozen=True)
class NewNetwork(Network):
    """The network that is pretrained if no --policy is given.

    Attributes:
        pretrain_tokens: Tokens of speeches that it reads first.
    """

    n_layer: int = setting(3, minimum=1)
    pretrain_tokens: int = setting(1_000_000, minimum=1)


@dataclass(frozen=True, kw_only=True)
class Output(Saved):
    """What to show and to keep.

    Attributes:
        eval_answers: Answers of each evaluation, before and after.
        eval_every: Evaluate every this many updates, too; 0 does not.
        samples_every: Show a few answers every this many updates; 0 does not.
        logger: Where the numbers of every update go beside metrics.csv: tensorboard, wandb, mlflow
            or trackio. May be given several times.
        run_folder: A folder for the run is made in this one.
        resume: Continue the run in this folder; it keeps its options, but for --tokens, --keep and
            --save-every.
    """

    eval_answers: int = setting(512, minimum=2)
    eval_every: int = setting(0, minimum=0)
    samples_every: int = setting(20, minimum=0)
    logger: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = setting(["tensorboard"])
    run_folder: Path = setting(Path("runs"), metavar="FOLDER")
    resume: Path | None = setting(None, metavar="FOLDER")


@dataclass(frozen=True)
class Where(Sharded, Device):
    """Where to compute, perhaps in several processes."""


@dataclass(frozen=True)
class TrainSettings:
    """Train a language model by reinforcement learning on a reward.

    Without options: a small GPT learns to read from State of the Union addresses, then learns to
    finish their sentences in a friendlier way. Takes about three minutes on two processor cores,
    and keeps the GPT for the next time.

    With --prompts, --reward or --policy, one or all of them: the same with your own. With --world
    or --tools an answer is a conversation. With --algorithm NAME another algorithm; its options are
    in the help of --algorithm NAME --help.
    """

    task: Task = Task()
    answers: Answers = Answers()
    conversation: Conversation = Conversation()
    training: Training = Training()
    algorithm: Choice = one_of(
        algorithm_named,
        ALGORITHMS,
        "ppo",
        JOB_DEFAULTS,
    )
    network: NewNetwork = NewNetwork()
    device: Where = Where()
    output: Output = Output()


def complete(values: dict[str, Any]) -> dict[str, Any]:
    """What follows from the options that are set: a text to go on reading needs ppo-ptx.

    Settings of version 0.1 had a weight of that text in every run, and no choice of algorithm.
    It saved at the end only, if nothing else was said.
    """
    if values.get("save_every") == 0 and "keep" not in values:
        values = {**values, "save_every": None}
    if "algorithm" in values:
        return values
    if values.get("ptx_text") is not None:
        return {**values, "algorithm": "ppo-ptx"}
    return {name: value for name, value in values.items() if name != "ptx_coef"}
