"""A task of two turns with a tool, and a small model of Qwen's architecture that knows its form.

A question asks for a sum. In the first turn the model calls the tool `add`; behind its result it
answers. The model is fine-tuned on such conversations, written by chance from a few phrases, until
nearly all of its first turns hold a call that can be carried out. Its chat template is TRL's copy
of Qwen 2.5's.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from agents.collector import Collector
from agents.jobs import speeches
from agents.supervised.fitting import Fitting
from agents.supervised.sft import answer_loss, pad
from benchmarks.common import BF16
from policies import HuggingFacePolicy
from textenv import TextVectorEnv
from textenv.frames import load_frame
from textenv.tools import Call, calls_of, from_trl_environment, tagged_json

RECIPE = 2
"""To be raised when the code below makes another checkpoint from the same setting."""

ENOUGH, MOST_ROUNDS = 0.95, 4

SPECIAL = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
MARKS = ("<tool_call>", "</tool_call>")
QUESTIONS = 256
BUDGET = 256
"""Tokens of an episode behind the question, those of the tool included."""

NAMES = "Ann Ben Carl Dora Emil Fay Gus Hal Ida Jon Kim Lea Max Nora Otto Pia".split()
THINGS = "apples pears coins books stamps shells cards marbles nails keys".split()
BEFORE = (
    "I add {a} and {b}.",
    "The question asks for a sum.",
    "To know how many {things} there are, I add {a} and {b} with the tool.",
    "{first} has {a} of them.",
    "{second} has {b} {things}, so the tool has to add {a} and {b}.",
    "The numbers are {a} and {b}, and both of them are {things}.",
    "It is easy to be wrong by one with numbers of this size, so I do not guess.",
    "Nobody else in this question has {things}.",
)
"""One to five of these are said before the call, so that turns differ in length as thoughts do."""

AFTER = (
    "{first} and {second} have {sum} {things}.",
    "Together there are {sum} {things}: {a} of {first} and {b} of {second}.",
    "The tool says that {a} and {b} are {sum}. So {first} and {second} have {sum} {things} "
    "together.",
    "There are {sum} {things}. Of these {first} has {a}, and {second} has the other {b}.",
)


Conversation: TypeAlias = tuple[dict[str, Any], tuple[str, str, str]]
"""A record, and what the assistant says, what the tool says, and the assistant again."""


class Sums:
    """An environment class in TRL's form: one tool, and how near the sum was as a reward."""

    def reset(self, a: int, b: int, **columns: Any) -> None:
        """Begin an episode."""
        self.wanted, self.said = a + b, 0

    def add(self, first: int, second: int) -> int:
        """Add two whole numbers.

        Args:
            first: The first number.
            second: The second number.

        Returns:
            Their sum.
        """
        self.said = first + second
        return self.said

    def get_reward(self) -> float:
        """1 for the right sum, less the further away it is."""
        return 1.0 / (1.0 + abs(self.said - self.wanted) / self.wanted)


@dataclass(frozen=True)
class Setting:
    """All that shapes the checkpoint: the key under which it is kept.

    Attributes:
        layers: Layers of the model.
        width: Their width; heads have 64 dimensions, half as many for keys and values.
        vocab_size: Of the byte-pair encoding, special tokens included.
        steps: Optimiser steps of the fine-tuning.
        batch: Conversations of a step.
        learning_rate: At its peak.
        seed: Of the weights and the conversations.
    """

    layers: int = 4
    width: int = 256
    vocab_size: int = 4096
    steps: int = 260
    batch: int = 16
    learning_rate: float = 4e-3
    seed: int = 0

    def folder(self) -> Path:
        """Where the checkpoint is kept."""
        digest = sha256(json.dumps([RECIPE, asdict(self)]).encode()).hexdigest()
        return Path(tempfile.gettempdir()) / f"textenv-tool-task-{digest[:12]}"


def records(count: int, seed: int) -> list[dict[str, Any]]:
    """Questions, as records of a data set: a prompt of messages, and the two numbers."""
    return [record for record, _ in conversations(count, seed)]


def conversations(count: int, seed: int) -> Iterator[Conversation]:
    """Questions that are asked by chance, with a good way to answer each."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        first, second = rng.choice(NAMES, 2, replace=False).tolist()
        things = str(rng.choice(THINGS))
        a, b = rng.integers(100, 1000, 2).tolist()
        words: Mapping[str, Any] = {
            **{"first": first, "second": second, "things": things},
            **{"a": a, "b": b, "sum": a + b},
        }
        question = "{first} has {a} {things} and {second} has {b}. How many are there together?"
        call = json.dumps({"name": "add", "arguments": {"first": a, "second": b}})
        thoughts = rng.choice(BEFORE, rng.integers(1, 6), replace=False).tolist()
        before = " ".join(thoughts).format(**words)
        said = f"{before}\n<tool_call>\n{call}\n</tool_call>"
        answer = str(rng.choice(AFTER)).format(**words)
        messages = [{"role": "user", "content": question.format(**words)}]
        yield {"prompt": messages, "a": a, "b": b}, (said, str(a + b), answer)


def environment(
    tokenizer: Any, rows: int, group_size: int = 1, *, seed: int = 1, reward: Any = None
) -> TextVectorEnv:
    """The task as an environment; `reward` is added to the class's own."""
    return TextVectorEnv(
        rows,
        prompts=records(QUESTIONS, seed),
        reward=reward,
        world=from_trl_environment(Sums, parse=readable_calls),
        frame="chat",
        tokenizer=tokenizer,
        max_new_tokens=BUDGET,
        max_turns=2,
        group_size=group_size,
    )


def readable_calls(text: str) -> list[Call]:
    """Calls that can be read; a text without one is an answer and ends the episode, as in TRL."""
    return [call for call in tagged_json(text) if not call.problem]


# -------------------------------------------------------------------- the checkpoint


def checkpoint(setting: Setting) -> tuple[Path, float]:
    """Folder of the fine-tuned model, made if it is not there, and the share of good first turns.

    A first turn is good if it holds a call that was carried out. Fine-tuning is repeated on other
    conversations until `ENOUGH` are, at most `MOST_ROUNDS` times.
    """
    folder = setting.folder()
    note = folder / "share.json"
    if not note.exists():
        speech = (sentence for text in speeches.read()[0] for sentence in text)
        own = tokenizer(setting.vocab_size, speech)
        policy = new_policy(setting, own)
        for number in range(MOST_ROUNDS):
            examples = conversations(setting.batch * setting.steps, seed=1000 + number)
            fine_tune(policy, examples, setting)
            share = share_with_calls(policy)
            if share >= ENOUGH:
                break
        policy.model.save_pretrained(folder)
        own.save_pretrained(folder)
        note.write_text(json.dumps(share), encoding="utf-8")
    return folder, float(json.loads(note.read_text(encoding="utf-8")))


def tokenizer(vocab_size: int, text: Iterable[str] = ()) -> Any:
    """A byte-pair encoding in the form of Qwen's: digits alone, its marks, TRL's template.

    It is learned from the task's own conversations and `text`.
    """
    import trl
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL) - len(MARKS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    template = (Path(str(trl.__file__)).parent / "chat_templates" / "qwen2_5.jinja").read_text()
    talk = (" ".join(said) for _, said in conversations(200, seed=0))
    # The template's words and the tools' as often as a model's own vocabulary knows them.
    told = [template + json.dumps(from_trl_environment(Sums).tools)] * 200
    made.train_from_iterator(chain(text, talk, told), trainer)
    made.add_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    own = PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=SPECIAL[0],
        pad_token=SPECIAL[2],
        additional_special_tokens=[SPECIAL[1]],
    )
    own.chat_template = template
    return own


def new_policy(setting: Setting, own: Any) -> HuggingFacePolicy:
    """A policy with random weights and this tokenizer."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    heads = setting.width // 64
    config = Qwen2Config(
        vocab_size=len(own),
        hidden_size=setting.width,
        intermediate_size=3 * setting.width,
        num_hidden_layers=setting.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 2, 1),
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=own.eos_token_id,
        pad_token_id=own.pad_token_id,
    )
    torch.manual_seed(setting.seed)
    return HuggingFacePolicy(Qwen2ForCausalLM(config), own)


def fine_tune(
    policy: HuggingFacePolicy, examples: Iterable[Conversation], setting: Setting
) -> None:
    """Fine-tune on what the assistant says, on `setting.batch` conversations a step."""
    know = policy.tokenizer
    frame = load_frame("chat", know, from_trl_environment(Sums).tools)
    assert know is not None and frame is not None and frame.end_of_turn is not None
    fitting = Fitting(
        policy,
        steps=setting.steps,
        learning_rate=setting.learning_rate,
        weight_decay=0.0,
        precision=torch.bfloat16 if BF16 else torch.float32,
    )
    coming = iter(examples)
    while some := list(islice(coming, setting.batch)):
        rows = []
        for record, (said, told, answer) in some:
            opening = frame.opening(record["prompt"])
            call = [*know.encode_further(said), frame.end_of_turn]
            bridge = frame.bridge([told], "tool", True)
            rest = [*know.encode_further(answer), frame.end_of_turn]
            chosen = [(opening, False), (call, True), (bridge, False), (rest, True)]
            learned = [flag for ids, flag in chosen for _ in ids]
            rows.append(([*opening, *call, *bridge, *rest], learned))
        done = fitting.step(answer_loss(policy, *arrays) for arrays in [pad(rows, policy)])
        if done.number % 20 == 0:
            print(f"fine-tuning: step {done.number}, loss {done.loss:.3f}", flush=True)


@torch.no_grad()
def share_with_calls(policy: HuggingFacePolicy, count: int = 256) -> float:
    """Share of sampled episodes whose first turn holds a call that was carried out."""
    seen: list[bool] = []

    def note(episodes: Any) -> list[float]:
        seen.extend(any(not call["error"] for call in calls_of(episode)) for episode in episodes)
        return [0.0] * len(episodes)

    Collector(
        policy, environment(policy.tokenizer, 64, seed=2, reward=note), seed=1
    ).collect_episodes(count)
    return float(np.mean(seen[:count]))
