"""TRL environment classes as worlds, unmodified, beside what TRL's own trainer does."""

import asyncio
import json
import random
from pathlib import Path

import pytest

from textenv import TextVectorEnv
from textenv.errors import RewardRaisedError, ToolError, WorldError
from textenv.frames import ChatTemplate
from textenv.rewards import from_trl, from_trl_chat
from textenv.tools import from_trl_environment

STOP = 256


class IncrementEnv:
    """The form of the example in TRL's documentation: a counter with one tool."""

    def reset(self, **kwargs) -> str | None:
        self.counter = 0

    def increment(self, step: int) -> int:
        """
        Increment the internal counter.

        Args:
            step: Value to add to the counter.

        Returns:
            The updated counter value.
        """
        self.counter += step
        return self.counter


class Treasure:
    """A tool of each kind, an observation from reset, a reward of its own and private parts."""

    made = 0

    def __init__(self):
        type(self).made += 1
        self.columns = None

    def reset(self, place: str, **kwargs) -> str:
        self.columns = {"place": place, **kwargs}
        self.dug = []
        return f" It is at {place}."

    def _hidden(self):
        return "not a tool"

    def dig(self, where: str) -> str:
        """Dig.

        Args:
            where: Where.
        """
        self.dug.append(where)
        if where == "sea":
            raise ValueError("too wet")
        return "gold" if where == self.columns["place"] else "sand"

    async def ask(self, who: str = "crow") -> dict:
        """Ask.

        Args:
            who: Whom.
        """
        await asyncio.sleep(0)
        return {"said": who}

    @staticmethod
    def add(a: int, b: int) -> int:
        """Add.

        Args:
            a: One.
            b: Two.
        """
        return a + b

    @property
    def trap(self):
        raise AssertionError("properties are not computed")

    def get_reward(self) -> float:
        return 1.0 if self.columns["place"] in self.dug else -1.0


ROWS = [{"prompt": "Dig!", "place": "hill"}]


def environment(factory, num_envs=1, **options):
    defaults = {"prompts": ROWS, "max_prompt_tokens": 40, "max_new_tokens": 200}
    return TextVectorEnv(num_envs, world=from_trl_environment(factory), **defaults | options)


def say(envs, text):
    for token in (*text.encode(), STOP):
        step = envs.step([token] * envs.num_envs)
    return step


def counts(environments, target, **kwargs):
    return [float(e.counter == t) for e, t in zip(environments, target, strict=True)]


def test_the_example_of_trls_documentation_with_a_trl_reward():
    rows = [{"prompt": "Increment by three.", "target": 3}]
    envs = environment(IncrementEnv, 2, prompts=rows, reward=from_trl(counts))
    envs.reset(seed=0)
    assert say(envs, "increment(step=1)")[-1]["reply"].tolist() == ["1", "1"]
    assert say(envs, "increment(2)")[-1]["reply"].tolist() == ["3", "3"]
    _, rewards, terminated, *_ = say(envs, "Done.")
    assert rewards.tolist() == [1.0, 1.0] and terminated.all()
    _, rewards, *_ = say(envs, "Done.")  # the next episode begins at 0
    assert rewards.tolist() == [0.0, 0.0]


def test_reset_gets_the_columns_and_what_it_says_stands_behind_the_prompt():
    envs = environment(Treasure, autoreset_mode="Disabled")
    _, infos = envs.reset(seed=0)
    assert infos["prompt"].tolist() == ["Dig! It is at hill."]
    seen = []

    def reward(episodes):
        seen.extend(episode.world.environment.columns for episode in episodes)
        return [0.0]

    envs = environment(Treasure, reward=reward)
    envs.reset(seed=0)
    say(envs, "no")
    assert seen == [{"place": "hill", "prompt": [{"role": "user", "content": "Dig!"}]}]


def test_a_prompt_of_messages_keeps_them():
    seen = []

    def reward(episodes):
        seen.extend(episode.world.environment.columns["prompt"] for episode in episodes)
        return [0.0]

    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Dig!"}]
    rows = [{"prompt": messages, "place": "hill"}]
    options = {"frame": ChatTemplate(), "max_prompt_tokens": 1000, "autoreset_mode": "Disabled"}
    envs = environment(Treasure, prompts=rows, reward=reward, **options)
    observations, _ = envs.reset(seed=0)
    opening = bytes(observations[0][observations[0] < 256].tolist()).decode()
    assert opening.startswith("Be kind.")
    assert opening.endswith("User: Dig! It is at hill.\nAssistant:")
    say(envs, "no")
    assert seen == [messages]


def test_get_reward_is_one_more_reward_whatever_ends_the_episode():
    def one(episodes):
        return [0.25 for _ in episodes]

    envs = environment(Treasure, reward=one, max_turns=2)
    envs.reset(seed=0)
    say(envs, "dig('hill')")
    _, rewards, terminated, _, infos = say(envs, "dig('sea')")  # the last turn that is allowed
    assert terminated[0] and rewards[0] == 1.25
    told = infos["final_info"]["reward_components"]
    assert told["Treasure"].tolist() == [1.0] and told["one"].tolist() == [0.25]
    _, rewards, *_ = say(envs, "I give up.")
    assert rewards[0] == -0.75
    for token in b"dig('hill') " * 17:
        _, rewards, terminated, *_, infos = envs.step([token])
        if terminated[0]:
            break
    assert rewards[0] == -0.75  # a cut text that is no call
    assert infos["final_info"]["finish_reason"][0] == "length"


def test_without_other_rewards_get_reward_is_the_score():
    envs = environment(Treasure, 3)
    envs.reset(seed=0)
    say(envs, "dig('hill')")
    assert say(envs, "Found.")[1].tolist() == [1.0] * 3


def test_an_async_reward_is_waited_for_and_none_is_no_score():
    class Later(Treasure):
        async def get_reward(self):
            await asyncio.sleep(0)
            return 3.0 if self.dug else None

    envs = environment(Later)
    envs.reset(seed=0)
    _, rewards, *_, infos = say(envs, "no")
    assert not infos["final_info"]["scored"][0] and rewards[0] == 0.0
    say(envs, "dig('x')")
    _, rewards, *_, infos = say(envs, "no")
    assert infos["final_info"]["scored"][0] and rewards[0] == 3.0


def test_a_reward_that_raises_is_named():
    class Broken(Treasure):
        def get_reward(self):
            raise RuntimeError("no")

    envs = environment(Broken)
    envs.reset(seed=0)
    with pytest.raises(RewardRaisedError, match="'Broken' raised RuntimeError: no"):
        say(envs, "a")


def test_methods_of_all_kinds_are_tools_and_errors_are_told():
    envs = environment(Treasure)
    envs.reset(seed=0)
    *_, infos = say(envs, "[ask('owl'), dig('beach'), add(1, 2), dig('sea'), _hidden()]")
    assert [call["result"] for call in infos["reply_info"][0]["calls"]] == [
        "{'said': 'owl'}",
        "sand",
        "3",
        "error: too wet",
        "error: there is no tool _hidden; there are add, ask, dig",
    ]


def test_each_episode_has_an_object_of_its_own():
    before = Treasure.made
    envs = environment(Treasure, 3)
    assert Treasure.made == before + 1  # to see its tools
    envs.reset(seed=0)
    assert Treasure.made == before + 4


class Dice:
    """Draws from the generator of the process, as TRL's own example does."""

    def reset(self, **kwargs):
        return str(random.randint(1, 10**9))

    def roll(self) -> int:
        """Roll."""
        return random.randint(1, 10**9)


def test_what_is_drawn_belongs_to_the_draw_and_to_the_episode():
    before = random.getstate()
    told = []
    for _ in range(2):
        envs = environment(Dice, 4, group_size=2, prompts=None, reward=lambda e: [0.0] * len(e))
        _, infos = envs.reset(seed=0)
        told.append([infos["prompt"].tolist(), say(envs, "roll()")[-1]["reply"].tolist()])
    assert told[0] == told[1]
    openings, rolls = told[0]
    assert openings[0] == openings[1] != openings[2] == openings[3]  # a group shares its task
    assert len(set(rolls)) == 4
    assert random.getstate() == before


def test_the_objects_state_is_saved():
    envs, other = environment(Treasure), environment(Treasure)
    envs.reset(seed=0)
    say(envs, "dig('hill')")
    other.reset(seed=1)
    other.load_state_dict(envs.state_dict())
    assert say(other, "Found.")[1].tolist() == [1.0]

    class Unsaved(Treasure):
        def reset(self, **kwargs):
            self.attribute = values[-1]

    values = [object(), (1, 2), {1: "one"}]
    while values:
        envs = environment(Unsaved)
        envs.reset(seed=0)
        with pytest.raises(WorldError, match="Unsaved has attributes that JSON cannot hold"):
            envs.state_dict()
        values.pop()


class NoReset:
    def act(self) -> str:
        """Act."""


class Undocumented(IncrementEnv):
    def helper(self, a: int) -> int:
        return a


class Pictures(IncrementEnv):
    def reset(self, **kwargs):
        return [{"type": "image"}]


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (NoReset, r"NoReset has no method reset\(\)"),
        (Undocumented, "the tool 'helper' has no docstring"),
        ({"a": IncrementEnv}, "is not a class"),
        (3, "3 is not a class"),
    ],
)
def test_what_is_no_such_class_is_refused_by_name(factory, message):
    with pytest.raises(ToolError, match=message):
        from_trl_environment(factory)


def test_reset_gives_text_alone():
    with pytest.raises(WorldError, match=r"Pictures\.reset returned .* it must be a str or None"):
        environment(Pictures, reward=lambda episodes: [0.0]).reset(seed=0)


def test_chat_rewards_get_every_message_of_a_conversation():
    seen = []

    def reward(completions, prompts, **kwargs):
        seen.extend(completions)
        return [0.0] * len(completions)

    envs = environment(IncrementEnv, reward=from_trl_chat(reward))
    envs.reset(seed=0)
    say(envs, "[increment(1), increment(2)]")
    say(envs, "Done.")
    assert seen == [
        [
            {"role": "assistant", "content": "[increment(1), increment(2)]"},
            {"role": "tool", "content": "1"},
            {"role": "tool", "content": "3"},
            {"role": "assistant", "content": "Done."},
        ]
    ]


# ---------------------------------------------------------------- beside TRL itself


def call(name, **arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@pytest.fixture(scope="module")
def qwen():
    """A tokenizer of bytes with TRL's own copy of Qwen3's template."""
    trl = pytest.importorskip("trl", reason="TRL is one of the benchmarks' peers")
    pytest.importorskip("datasets", reason="TRL needs it")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, **special, additional_special_tokens=["<|im_start|>"]
    )
    templates = Path(trl.__file__).parent / "chat_templates"
    tokenizer.chat_template = (templates / "qwen3.jinja").read_text(encoding="utf-8")
    return tokenizer


def trls_rollout(tokenizer, factory, said, folder, monkeypatch):
    """What TRL's GRPO trainer makes of an episode in which the model says what is in `said`."""
    import torch
    from datasets import Dataset
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen3Config(vocab_size=len(tokenizer), bos_token_id=None, **shape, **heads, **ends)
    rows = [{"prompt": [{"role": "user", "content": "Dig!"}], "place": "hill"}] * 2
    trainer = GRPOTrainer(
        model=Qwen3ForCausalLM(config),
        train_dataset=Dataset.from_list(rows),
        args=GRPOConfig(
            output_dir=str(folder),
            num_generations=2,
            per_device_train_batch_size=2,
            max_completion_length=600,
            report_to=[],
            use_cpu=True,
            bf16=False,
        ),
        processing_class=tokenizer,
        environment_factory=factory,
    )
    turns, seen = iter(said), {"tools": trainer.tools}

    def says(prompts, *args, **kwargs):
        ids = [*tokenizer(next(turns))["input_ids"], tokenizer.eos_token_id]
        return [list(ids) for _ in prompts], None

    judge = trainer._calculate_rewards

    def judged(inputs, prompts, completions, ids):
        seen["completion"] = completions[0]
        seen["rewards"] = judge(inputs, prompts, completions, ids)[0].tolist()
        return torch.tensor([seen["rewards"]] * 2)

    monkeypatch.setattr(trainer, "_generate_single_turn", says)
    monkeypatch.setattr(trainer, "_calculate_rewards", judged)
    trainer.model.train()
    batch = trainer._generate_and_score_completions(rows)
    seen["ids"] = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)[0].tolist()
    seen["chosen"] = batch["tool_mask"][0].tolist()
    return seen


@pytest.mark.filterwarnings("ignore")  # transformers', trl's, and what the template rewrites
def test_an_episode_has_the_ids_that_trls_trainer_makes(qwen, tmp_path, monkeypatch):
    from transformers.utils import get_json_schema

    from textenv.tokenizers import HuggingFaceTokenizer

    said = [call("dig", where="beach") + "\n" + call("add", a=1, b=2), "Nothing there."]
    theirs = trls_rollout(qwen, Treasure, said, tmp_path, monkeypatch)
    envs = environment(
        Treasure,
        frame="chat",
        tokenizer=HuggingFaceTokenizer(qwen, "tiny"),
        max_prompt_tokens=3000,
        max_new_tokens=600,
        autoreset_mode="Disabled",
    )
    assert list(envs.world.tools) == [get_json_schema(tool) for tool in theirs["tools"]]
    observations, _ = envs.reset(seed=0)
    begin = int((observations[0] != envs.pad_token).sum())
    chosen = []
    for text in said:
        for token in [*qwen(text)["input_ids"], qwen.eos_token_id]:
            chosen.append(int((observations[0] != envs.pad_token).sum()) - begin)
            observations, rewards, terminated, *_ = envs.step([token])
    ids = observations[0][observations[0] != envs.pad_token].tolist()
    assert ids == theirs["ids"]
    assert chosen == [place for place, mark in enumerate(theirs["chosen"]) if mark]
    assert terminated[0] and rewards.tolist() == theirs["rewards"] == [-1.0]


@pytest.mark.filterwarnings("ignore")
def test_where_trl_tells_errors_and_async_results_otherwise(qwen, tmp_path, monkeypatch):
    said = [
        "\n".join([call("ask", who="owl"), call("dig", where="sea"), call("dig", where="hill")]),
        "Found.",
    ]
    theirs = trls_rollout(qwen, Treasure, said, tmp_path, monkeypatch)
    told = [m["content"] for m in theirs["completion"] if m["role"] == "tool"]
    assert told == ["{'error': 'too wet'}", "gold", "{'said': 'owl'}"]
    envs = environment(Treasure, max_new_tokens=400)
    envs.reset(seed=0)
    *_, infos = say(envs, said[0])
    ours = [one["result"] for one in infos["reply_info"][0]["calls"]]
    assert ours == ["{'said': 'owl'}", "error: too wet", "gold"]  # in the order of the calls
    assert say(envs, said[1])[1].tolist() == theirs["rewards"] == [1.0]
