import copy

import numpy as np
import torch

from agents.jobs.conversation import Chat, Continuation, Sampling, Voice
from agents.jobs.side_by_side import SideBySide
from policies import TransformerConfig, TransformerPolicy
from textenv import load_tokenizer
from textenv.frames import ChatTemplate

TOKENIZER = load_tokenizer("bytes")
SHORT = ChatTemplate(system="[{content}]", user="<{content}>", answer="{content}", between="")


def policy(nudge: float = 0.0) -> TransformerPolicy:
    config = TransformerConfig(TOKENIZER.vocab_size, 64, n_layer=1, n_head=2, n_embd=16)
    made = TransformerPolicy(config, tokenizer=TOKENIZER, seed=1)
    with torch.no_grad():
        made.transformer.token_embedding.weight.mul_(5)
        made.transformer.ln_f.weight.add_(nudge)
    return made


def voice(nudge: float = 0.0) -> Voice:
    return Voice(policy(nudge), Sampling(12, temperature=1.0))


def pair(nudge: float, seed: int = 3) -> SideBySide:
    return SideBySide({"a": Continuation(voice()), "b": Continuation(voice(nudge))}, seed)


def test_equal_policies_say_the_same_and_others_do_not():
    shown: list[str] = []
    same, far = pair(0.0), pair(2.0)
    same.answer("x", shown.append)
    assert same.answers[0] == same.answers[1]
    assert "".join(shown) == "[a] {0}\n\n[b] {0}".format(same.answers[0])
    assert far.answer("x", shown.append) == same.answers[0] != far.answers[1]


def test_near_policies_say_more_in_common_than_on_other_numbers():
    near, other = pair(0.02), pair(0.02, seed=4)

    def common(one: str, two: str) -> int:
        return next((n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), 12)

    shared = apart = 0
    for _ in range(20):
        near.answer("x", len)
        other.answer("x", len)
        shared += common(*near.answers)
        apart += common(near.answers[0], other.answers[1])
    assert shared > 3 * apart


def test_each_text_has_numbers_of_its_own_and_the_seed_decides():
    one, same, other = pair(0.0), pair(0.0), pair(0.0, seed=4)
    first, again = one.answer("x", len), one.answer("x", len)
    assert first != again
    assert (same.answer("x", len), other.answer("x", len) != first) == (first, True)


def test_the_conversation_goes_on_with_the_first_answer_or_the_chosen_one():
    chats = {name: Chat(voice(nudge), SHORT, "s") for name, nudge in (("a", 0.0), ("b", 2.0))}
    talker = SideBySide(chats, seed=0)
    assert talker.asked is None
    talker.answer("x", len)
    first, second = talker.answers
    question = {"role": "user", "content": "x"}
    assert talker.asked == [{"role": "system", "content": "s"}, question]
    talker.answer("y", len)
    said = [m["content"] for m in chats["b"].messages]
    assert said == ["x", first.strip(), "y", talker.answers[1].strip()]
    talker.go_on_with_the_second()
    assert chats["a"].messages == chats["b"].messages
    talker.reset()
    assert talker.asked is None and not chats["a"].messages and not chats["b"].messages
    assert second != first


def test_the_voices_own_generators_are_left_alone():
    talker = pair(0.0)
    generator = np.random.default_rng(0)
    talker.talkers["a"].voice.generator = generator
    before = copy.deepcopy(generator.bit_generator.state)
    talker.answer("x", len)
    assert generator.bit_generator.state == before
