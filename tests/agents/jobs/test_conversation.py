import itertools

import numpy as np
import pytest
import torch

from agents.evaluation import refuse_toxic
from agents.feedback.from_models.language_model import LocalModel
from agents.jobs.conversation import MOST_ANSWERS, Chat, Continuation, Sampling, Voice
from policies import TransformerConfig, TransformerPolicy
from textenv import load_tokenizer
from textenv.errors import EmptyPromptsError, PromptTooLongError, TokenizerError
from textenv.frames import ChatTemplate, ModelTemplate
from textenv.tokenizers import HuggingFaceTokenizer
from textenv.tools import Tools

TOKENIZER = load_tokenizer("bytes")
SHORT = ChatTemplate(system="[{content}]", user="<{content}>", answer="{content}", between="")


class Parrot(TransformerPolicy):
    """Says `says`, then stops, whatever it reads; keeps what it was asked."""

    def __init__(self, says: str, context: int = 40):
        config = TransformerConfig(TOKENIZER.vocab_size, context, n_layer=1, n_head=2, n_embd=16)
        super().__init__(config, tokenizer=TOKENIZER)
        self.says = says
        self.asked: list[str] = []

    def last_hidden(self, observations, cache=None):
        ids = np.asarray(observations)[0]
        ids = ids[ids != self.pad_token]
        if cache is not getattr(self, "cache", None):
            self.cache, self.begin = cache, len(ids)
            stops = "".join("|" if i == TOKENIZER.stop_token else "" for i in ids)
            self.asked.append(TOKENIZER.decode(ids[ids != TOKENIZER.stop_token].tolist()) + stops)
        answer = [*self.says.encode(), TOKENIZER.stop_token]
        self.next = answer[len(ids) - self.begin]
        return torch.zeros(1, 16)

    def logits(self, hidden):
        return torch.nn.functional.one_hot(torch.tensor([self.next]), self.vocab_size) * 100.0


def chat(says="ok", context=40, **changes) -> Chat:
    voice = Voice(Parrot(says, context), Sampling(max_new_tokens=8), **changes)
    return Chat(voice, SHORT)


def ask(talker, text: str) -> list[str]:
    shown = []
    said = talker.answer(text, shown.append)
    assert "".join(shown) == said
    return shown


def test_an_answer_comes_in_pieces_without_the_stop_token():
    assert ask(chat("a中b"), "hi") == ["a", "中", "b"]


def test_the_conversation_is_remembered():
    talker = chat()
    ask(talker, "one")
    ask(talker, "two")
    # Each answer that was given is followed by a stop token, as in training.
    assert talker.voice.policy.asked == ["<one>", "<one>ok<two>|"]
    assert [m["content"] for m in talker.messages] == ["one", "ok", "two", "ok"]
    talker.reset()
    ask(talker, "new")
    assert talker.voice.policy.asked[-1] == "<new>"


def test_the_oldest_turns_are_dropped_and_the_system_message_stays():
    talker = chat(context=30)  # room for 23
    talker.system = "be kind"  # 9 tokens
    for text in ("one", "two", "six", "eleven"):
        ask(talker, text)
    asked = talker.voice.policy.asked
    assert asked[1] == "[be kind]<one>ok<two>|"  # 9 + 5 + 2 and a stop token + 5 = 22
    assert asked[2] == "[be kind]<two>ok<six>|"
    assert asked[3] == "[be kind]<eleven>"  # 25 with the turn before


def test_a_message_that_does_not_fit_is_refused_and_forgotten():
    talker = chat(context=30)
    ask(talker, "one")
    before = list(talker.messages)
    with pytest.raises(PromptTooLongError, match=r"26 tokens.*room for 23"):
        ask(talker, "x" * 24)
    assert talker.messages == before
    assert ask(talker, "x" * 21) == ["o", "k"]  # exactly 23
    assert len(talker.messages) == 2


def test_an_interrupted_answer_is_not_remembered():
    talker = chat()

    def interrupt(piece):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        talker.answer("one", interrupt)
    assert talker.messages == []


def test_with_the_usual_template_spaces_do_not_add_up():
    talker = chat(" ok", context=80)
    talker.template = ChatTemplate()
    ask(talker, "one")
    ask(talker, "two")
    assert talker.voice.policy.asked[-1] == "User: one\nAssistant: ok\nUser: two\nAssistant:|"


def test_plain_continuation_has_no_history_and_no_template():
    talker = Continuation(Voice(Parrot(" and more"), Sampling(max_new_tokens=20)))
    assert "".join(ask(talker, "once")) == " and more"
    ask(talker, "twice")
    assert talker.voice.policy.asked == ["once", "twice"]
    with pytest.raises(EmptyPromptsError):
        ask(talker, "")


def test_a_check_refuses_answers_whole_and_questions_unasked():
    check = refuse_toxic(lambda texts: [float("bad" in t) for t in texts], refusal="No.")
    talker = chat("bad", check=check)
    assert ask(talker, "hi") == ["No."]
    assert [m["content"] for m in talker.messages] == ["hi", "No."]
    asked = list(talker.voice.policy.asked)
    assert ask(talker, "bad?") == ["No."]
    assert talker.voice.policy.asked == asked
    assert ask(chat("fine", check=check), "hi") == ["fine"]


def test_sampling_reaches_the_policy():
    config = TransformerConfig(TOKENIZER.vocab_size, 32, n_layer=1, n_head=2, n_embd=16)
    policy = TransformerPolicy(config, tokenizer=TOKENIZER, seed=0)

    def said(seed, **sampling):
        voice = Voice(policy, Sampling(8, **sampling), np.random.default_rng(seed))
        return Continuation(voice).answer("hello", lambda piece: None)

    assert said(0) == said(0) != said(1)
    likeliest = policy.generate(["hello"], 8, temperature=0)[0]
    assert said(0, temperature=0) == said(1, top_k=1) == said(2, top_p=1e-6) == likeliest


def test_a_voice_needs_a_tokenizer_and_room():
    policy = Parrot("x")
    with pytest.raises(PromptTooLongError, match="50 tokens leave no room"):
        Voice(policy, Sampling(50))
    policy.tokenizer = None
    with pytest.raises(TokenizerError, match="without a tokenizer"):
        Voice(policy)


class Several(Parrot):
    """Says one thing after the other."""

    def __init__(self, *says: str, context: int = 700):
        super().__init__("", context)
        self.all = iter(says)

    def last_hidden(self, observations, cache=None):
        if cache is not getattr(self, "cache", None):
            self.says = next(self.all)
        return super().last_hidden(observations, cache)


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: One.
        b: Other.
    """
    return a + b


async def later(a: int) -> int:
    """Give a number back.

    Args:
        a: It.
    """
    return a


TOOLED = ChatTemplate("[{content}]", "<{content}>", "{content}", "", "({content})")


def with_tools(*says: str, **changes) -> Chat:
    voice = Voice(Several(*says, **changes), Sampling(max_new_tokens=40))
    return Chat(voice, TOOLED, "sys", tools=Tools([add, later]))


def test_the_results_of_tools_are_shown_and_answered():
    talker = with_tools("[add(1, 2), later(a=7)]", "add(3, 7)", "ten", "bye")
    shown: list[str] = []
    assert talker.answer("sum?", shown.append) == "ten"
    assert "".join(shown) == (
        "[add(1, 2), later(a=7)]\n[tool] 3\n\n[tool] 7\nadd(3, 7)\n[tool] 10\nten"
    )
    first, _, third = talker.voice.policy.asked
    assert first.startswith('[sys\n{"type": "function"') and first.endswith("]<sum?>")
    assert third.removesuffix("||") == first + "[add(1, 2), later(a=7)](3\n7)add(3, 7)(10)"
    talker.answer("thanks", shown.append)
    assert talker.voice.policy.asked[-1].rstrip("|").endswith("(10)ten<thanks>")
    assert [m["role"] for m in talker.messages] == (
        ["user", *["assistant", "tool"] * 2, "assistant", "user", "assistant"]
    )


def test_a_question_is_forgotten_with_the_calls_that_it_led_to():
    room = len(with_tools()._tokens([{"role": "system", "content": "sys"}])) + 3 + 40
    talker = with_tools("add(1, 2)", "3", "4", context=room + 20)
    talker.answer("a?", lambda piece: None)
    talker.answer("b" * 12, lambda piece: None)
    assert [m["content"] for m in talker.messages] == ["b" * 12, "4"]


def test_a_policy_that_calls_for_ever_is_stopped():
    talker = with_tools(*["add(1, 2)"] * 99, context=1500)
    assert talker.answer("a?", lambda piece: None) == "add(1, 2)"
    assert len(talker.voice.policy.asked) == MOST_ANSWERS


def test_what_goes_wrong_in_a_call_is_told_to_the_policy():
    talker = with_tools("add(1, 'x')", "ok")
    talker.answer("a?", lambda piece: None)
    assert talker.messages[2]["role"] == "tool"
    assert talker.messages[2]["content"].startswith("error:")


def test_an_answer_ends_where_the_template_ends_a_turn():
    """Also where the tokenizer names another stop token, as base models' do."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE({letter: i for i, letter in enumerate(alphabet)}, [])
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    own = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    own.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = HuggingFaceTokenizer(own, name="base")
    end, head = own.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>"])

    class RunsOn(TransformerPolicy):
        def choices(self, hidden):
            logits = torch.zeros(len(hidden), self.vocab_size)
            logits[:, tokenizer.encode("x")[0]] = 50.0 * (next(steps) == 0)
            logits[:, end], logits[:, head] = 30.0, 40.0
            return logits

    shape = TransformerConfig(tokenizer.vocab_size, 128, n_layer=1, n_head=2, n_embd=16)
    policy, template = RunsOn(shape, tokenizer=tokenizer), ModelTemplate.of(own)
    steps = itertools.count()
    assert ask(Chat(Voice(policy, Sampling(8)), template), "hi") == ["x"]
    steps = itertools.count()
    assert LocalModel(policy, template, max_new_tokens=8).write(["hi"]) == ["x"]
