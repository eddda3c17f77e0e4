"""One record as a prompt, as an example and as a ranking: the same ids, through any frame."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from published_forms import talk

from agents.feedback import (
    Ranking,
    calibration,
    pair_accuracy,
    preference_rollout,
    rank,
    reward_model_steps,
    sample_answers,
)
from agents.supervised import Example, sft_steps
from policies import RewardModel, TransformerConfig, TransformerPolicy
from textenv import TextVectorEnv
from textenv.errors import MalformedRecordError, RewrittenHistoryWarning, UnframedError
from textenv.frames import ChatTemplate, ModelTemplate, load_frame
from textenv.tokenizers import BytesTokenizer, HuggingFaceTokenizer

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)
TRL = importlib.util.find_spec("trl")
IM = ("<|im_end|>", "<|im_start|>")
# Of each family the end of a turn, then its other marks.
FAMILIES = {
    "qwen2_5": IM,
    "llama3": ("<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    "gemma3": ("<end_of_turn>", "<bos>", "<start_of_turn>"),
    "phi3": ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>"),
}
OURS = "ours"
TALK = talk("Name a river.", "The Elbe.", "And\ntwo lakes?", "Garda; Como.")


def template_and_tokenizer(family):
    if family == OURS:
        return ChatTemplate(), BytesTokenizer()
    if TRL is None:
        pytest.skip("TRL has the families' templates: pip install .[bench]")
    end, *others = FAMILIES[family]
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE({letter: i for i, letter in enumerate(alphabet)}, [])
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    own = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=end,
        bos_token=next((mark for mark in others if "b" in mark[:4]), None),
        additional_special_tokens=others,
    )
    path = Path(str(TRL.origin)).parent / "chat_templates" / f"{family}.jinja"
    own.chat_template = path.read_text(encoding="utf-8")
    tokenizer = HuggingFaceTokenizer(own, name=family)
    return ModelTemplate.of(own), tokenizer


@pytest.fixture(params=[OURS, *FAMILIES])
def family(request):
    """A template, its tokenizer and its frame."""
    template, tokenizer = template_and_tokenizer(request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RewrittenHistoryWarning)  # llama3 trims white space
        yield template, tokenizer, load_frame(template, tokenizer)


def prompt_in_environment(template, tokenizer, record):
    envs = TextVectorEnv(
        1,
        prompts=[record],
        reward=lambda episodes: [0.0] * len(episodes),
        tokenizer=tokenizer,
        frame=template,
        max_new_tokens=2,
    )
    observations, _ = envs.reset(seed=0)
    return [token for token in observations[0].tolist() if token != tokenizer.vocab_size]


def learned_texts(tokenizer, ids, learned):
    """What is learned, run by run."""
    borders = np.flatnonzero(np.diff([False, *learned, False]))
    return [tokenizer.decode(ids[a:b]) for a, b in zip(borders[::2], borders[1::2], strict=True)]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": TALK},
        {
            "conversations": [
                {"from": "human" if one["role"] == "user" else "gpt", "value": one["content"]}
                for one in TALK
            ]
        },
        {
            "instruction": TALK[2]["content"],
            "history": [[TALK[0]["content"], TALK[1]["content"]]],
            "output": TALK[3]["content"],
        },
    ],
    ids=["messages", "sharegpt", "alpaca"],
)
def test_a_two_turn_prompt_has_the_ids_that_were_trained(family, record):
    template, tokenizer, frame = family
    prompt = prompt_in_environment(template, tokenizer, record)
    ids, learned = Example.from_record(record, frame).encode(tokenizer, 1000)
    assert ids[: len(prompt)] == prompt
    # Behind it stands the answer and the end of the turn, and nothing else; both are learned.
    assert ids[len(prompt) :] == frame.answer(TALK[3]["content"])
    assert ids[-1] == frame.end_of_turn and all(learned[len(prompt) :])
    end = tokenizer.decode([frame.end_of_turn])
    space = " " if isinstance(template, ChatTemplate) else ""
    answers = [f"{space}{TALK[i]['content']}{end}" for i in (1, 3)]
    assert learned_texts(tokenizer, ids, learned) == answers


def test_the_pieces_of_our_template_have_the_ids_of_its_frame():
    tokenizer = BytesTokenizer()
    said = [{"role": "system", "content": "Brief."}, *TALK]
    said[3:3] = [{"role": "tool", "content": "4"}, {"role": "assistant", "content": "Four."}]
    frame = ChatTemplate().frame(tokenizer)
    plain = Example.from_record({"messages": said}).encode(tokenizer, 1000)
    assert Example.from_record({"messages": said}, frame).encode(tokenizer, 1000) == plain


def test_texts_go_through_a_frame_only_if_they_should(family):
    _, _, frame = family
    record = {"prompt": "a", "response": " b"}
    kept = Example.from_record(record, frame)
    assert kept.pieces == (("a", False), (" b", True)) and kept.messages is None
    framed = Example.from_record(record, frame, frame_texts=True)
    assert list(framed.messages) == talk("a", "b")
    dialogue = {"prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c", "response": "d"}
    assert list(Example.from_record(dialogue, frame, frame_texts=True).messages) == talk(*"abcd")


def test_what_a_frame_refuses_is_named_by_its_line(tmp_path):
    from agents.supervised import read_examples

    frame = ChatTemplate().frame(BytesTokenizer())
    path = tmp_path / "a.jsonl"
    path.write_text('{"messages": [{"role": "assistant", "content": "a"}]}')
    with pytest.raises(MalformedRecordError, match=r"a\.jsonl:1: .*no answer to a message"):
        read_examples(path, frame)


# -------------------------------------------------------------------- rankings


def test_rankings_of_conversations_read_what_the_environment_has(family):
    template, tokenizer, frame = family
    ranking = Ranking("", ("Garda.", "No."), (1, 2), tuple(TALK[:3]))
    prompt = prompt_in_environment(template, tokenizer, {"messages": TALK})
    rollout = preference_rollout([ranking], tokenizer, 1000, frame)
    for row, answer in enumerate(ranking.answers):
        said = frame.answer(answer)
        assert rollout.tokens[row, : len(prompt) + len(said)].tolist() == prompt + said
        places = rollout.mask[row].nonzero().squeeze(1).tolist()
        assert places == list(range(len(prompt), len(prompt) + len(said)))


def small_policy(tokenizer, context=200):
    return TransformerPolicy(
        TransformerConfig(tokenizer.vocab_size, context, 1, 2, 16), tokenizer=tokenizer, seed=1
    )


def test_a_reward_model_reads_episodes_and_rankings_alike(family, tmp_path):
    template, tokenizer, frame = family
    ranking = Ranking("", ("Garda.", "No."), (1, 2), tuple(TALK[:3]))
    model = RewardModel.from_policy(small_policy(tokenizer), template=template)
    rows = model.encode([ranking.asked] * 2, ranking.answers)
    prompt = prompt_in_environment(template, tokenizer, {"messages": TALK})
    assert rows == [prompt + frame.answer(answer) for answer in ranking.answers]
    # Texts beside it are what the user says, and dialogues of hh-rlhf are dialogues.
    text = Ranking("\n\nHuman: Hi.\n\nAssistant:", (" Yes?", " No."), (1, 2))
    steps = list(reward_model_steps(model, [ranking, text], batch_size=2))
    assert len(steps) == 1 and np.isfinite(steps[0].loss)
    assert 0 <= pair_accuracy(model, [ranking, text]).mean <= 1
    assert sum(part.pairs for part in calibration(model, [ranking, text]).bins) == 2
    # The template is saved with it.
    again = RewardModel.load(model.save(tmp_path / "model"), tokenizer)
    assert again.frame.template == template
    scores = model.score_texts([ranking.asked] * 2, ranking.answers)
    assert again.score_texts([ranking.asked] * 2, ranking.answers) == pytest.approx(scores)


def test_answers_to_conversations_are_ranked_as_texts_without_their_ends(family):
    _, tokenizer, frame = family
    policy, seen = small_policy(tokenizer), []

    def longest(prompt, answers):
        seen.append(prompt)
        return [len(answer) for answer in answers]

    answers = sample_answers(policy, [TALK[:1], "Hi!"], 2, frame=frame, max_new_tokens=5, seed=3)
    assert all(answer == answer.strip() for some in answers for answer in some)
    framed, plain = rank(longest, [TALK[:1], "Hi!"], answers)
    assert seen == ["User: Name a river.", "Hi!"]
    assert framed.messages == tuple(TALK[:1]) and plain.messages is None


def test_messages_without_a_template_are_refused():
    tokenizer = BytesTokenizer()
    ranking = Ranking("", ("a", "b"), (1, 2), tuple(TALK[:1]))
    with pytest.raises(UnframedError, match="no frame"):
        preference_rollout([ranking], tokenizer, 100)
    with pytest.raises(UnframedError, match="no frame"):
        RewardModel.from_policy(small_policy(tokenizer)).encode([TALK[:1]], ["a"])
    with pytest.raises(UnframedError, match=r"prompts\[0\]"):
        sample_answers(small_policy(tokenizer), [TALK[:1]], 2)


def test_fine_tuning_learns_the_end_of_a_turn(family):
    template, tokenizer, frame = family
    policy = small_policy(tokenizer)
    examples = [Example.from_record({"messages": talk("Say 1.", "1")}, frame)]
    for _ in sft_steps(policy, examples, epochs=60, batch_size=1, learning_rate=3e-2):
        pass
    answers = sample_answers(policy, [talk("Say 1.")], 2, frame=frame, max_new_tokens=9, seed=1)
    assert answers == [["1", "1"]]
    if isinstance(template, ChatTemplate):
        assert ChatTemplate(**policy.chat_template) == template


def test_a_reward_model_scores_the_ids_that_were_chosen(family):
    template, tokenizer, frame = family
    model = RewardModel.from_policy(small_policy(tokenizer), template=template)
    envs = TextVectorEnv(
        1,
        prompts=[{"messages": TALK}],
        reward=model,
        tokenizer=tokenizer,
        frame=template,
        max_new_tokens=4,
    )
    observations, _ = envs.reset(seed=0)
    prompt = [token for token in observations[0].tolist() if token != tokenizer.vocab_size]
    for token in (*tokenizer.encode("Yes"), frame.end_of_turn):
        _, rewards, ended, _, _ = envs.step(np.array([token]))
    assert ended[0]
    said = [*prompt, *tokenizer.encode("Yes"), frame.end_of_turn]
    assert rewards[0] == pytest.approx(model.score_tokens(model.pad([said])).item(), abs=1e-5)
