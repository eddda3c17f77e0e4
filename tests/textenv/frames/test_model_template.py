"""Frames from chat templates of real families, as TRL ships them."""

import importlib.util
import warnings
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path

import pytest

from textenv import TextVectorEnv
from textenv.errors import FrameError, RewrittenHistoryWarning
from textenv.frames import ChatTemplate, ModelTemplate, load_frame
from textenv.tokenizers import BytesTokenizer, HuggingFaceTokenizer

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
TRL = importlib.util.find_spec("trl")
if TRL is None:
    pytest.skip("TRL has the families' templates: pip install .[bench]", allow_module_level=True)
TEMPLATES = Path(str(TRL.origin)).parent / "chat_templates"

# The end of a turn, then the other special tokens.
IM = ["<|im_end|>", "<|im_start|>"]
LLAMA = ["<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"]
COHERE = ["<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>"]
# On plain turns these write what is said as it is, at whatever place.
PLAIN = {
    "qwen2_5": IM,
    "qwen3_instruct_2507": IM,
    "llama3": LLAMA,
    "llama3_2": LLAMA,
    "gemma3": ["<end_of_turn>", "<bos>", "<start_of_turn>"],
    "phi3": ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"],
    "cohere": [*COHERE, "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>"],
    "lfm2": ["<|im_end|>", "<|startoftext|>", "<|im_start|>"],
}
OPENS = {"gemma3": "<start_of_turn>", "phi3": "<|user|>", "cohere": "<|START_OF_TURN_TOKEN|>"}
OPENS |= {"llama3": "<|start_header_id|>", "llama3_2": "<|start_header_id|>"}
GLM = ["<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|observation|>"]
BAR = "\N{FULLWIDTH VERTICAL LINE}"
DEEPSEEK = ["end▁of▁sentence", "begin▁of▁sentence", "User", "Assistant"]
# These write earlier answers otherwise than new ones.
REWRITING = {
    "qwen3": (IM, "removes the thinking"),
    "glm4moe": (GLM, "begins earlier answers otherwise"),
    "deepseekv3": (
        [f"<{BAR}{mark}{BAR}>" for mark in DEEPSEEK],
        "begins earlier answers otherwise",
    ),
    "gptoss": (
        ["<|return|>", "<|start|>", "<|message|>", "<|end|>", "<|channel|>"],
        "begins earlier answers otherwise",
    ),
    "llama3": (LLAMA, "trims white space"),
}
TALK = [
    {"role": "user", "content": "Hello there, how many?"},
    {"role": "assistant", "content": "It is 3."},
    {"role": "user", "content": "And two\nmore?"},
    {"role": "assistant", "content": "5, I think."},
]


ROLES = ("user", "tool", "system")
# Roles that a template refuses behind an answer, or would leave out.
LACKS = {"gemma3": ("tool", "system"), "cohere": ("tool", "system"), "phi3": ("tool",)}
BY_ROLE = [
    (family, role) for family in PLAIN for role in ROLES if role not in LACKS.get(family, ())
]
LACKING = [(family, role) for family, roles in LACKS.items() for role in roles]


def with_role(role):
    """The talk with a message of another role behind the first answer."""
    return [*TALK[:2], {**TALK[2], "role": role}, *TALK[3:]]


@lru_cache
def library_tokenizer(family, *special):
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([TALK[0]["content"] * 3, "assistant user system tool" * 3], trainer)
    begins = [mark for mark in special if any(b in mark.lower() for b in ("bos", "begin", "text"))]
    own = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=special[0],
        bos_token=next(iter(begins), None),
        additional_special_tokens=list(special[1:]),
    )
    own.chat_template = (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")
    return own


def framed(family, special, **options):
    own = library_tokenizer(family, *special)
    tokenizer = HuggingFaceTokenizer(own, name=family)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RewrittenHistoryWarning)
        return own, tokenizer, ModelTemplate.of(own, **options).frame(tokenizer)


def conversation(frame, tokenizer, messages):
    """Ids of the messages as an environment puts them one behind the other."""
    ids = frame.opening(messages[:1])
    for answer, after in zip_longest(messages[1::2], messages[2::2]):
        ids += [*tokenizer.encode_further(answer["content"]), frame.end_of_turn]
        if after is not None:
            ids += frame.bridge([after["content"]], after["role"], stopped=True)
    return ids


@pytest.mark.parametrize(("family", "role"), BY_ROLE)
def test_the_ids_are_those_of_the_templates_own_rendering(family, role):
    own, tokenizer, frame = framed(family, PLAIN[family])
    talk = with_role(role)
    ids = conversation(frame, tokenizer, talk)
    whole = own.apply_chat_template(talk, return_dict=False)
    assert ids == whole[: len(ids)]
    assert not own.decode(whole[len(ids) :]).strip(" \n").strip(PLAIN[family][0])
    assert tokenizer.decode([frame.end_of_turn]) == PLAIN[family][0]
    # Up to where the next answer begins.
    ids = conversation(frame, tokenizer, talk[:3])
    assert ids == own.apply_chat_template(talk[:3], add_generation_prompt=True, return_dict=False)


@pytest.mark.parametrize("family", ["llama3", "qwen2_5"])
def test_answers_are_trimmed_in_training_where_the_template_trims_those_of_a_prompt(family):
    _, tokenizer, frame = framed(family, PLAIN[family])
    talk = [
        *TALK[:1],
        {"role": "assistant", "content": "  It is 3.\n"},
        {**TALK[2], "role": "user"},
    ]
    ids, learned = frame.conversation([*talk, {"role": "assistant", "content": " Five. "}])
    prompt = frame.opening(talk)
    assert ids[: len(prompt)] == prompt and not any(learned[len(prompt) - 1 : len(prompt)])
    said = tokenizer.decode([i for i, own in zip(ids, learned, strict=True) if own])
    end = PLAIN[family][0]
    trimmed = f"It is 3.{end}Five.{end}"
    assert said == (trimmed if family == "llama3" else f"  It is 3.\n{end} Five. {end}")


@pytest.mark.parametrize(("family", "role"), LACKING)
def test_a_role_that_a_family_lacks_is_refused_and_not_written_otherwise(family, role):
    _, _, frame = framed(family, PLAIN[family])
    with pytest.raises(FrameError, match=role):
        frame.bridge(["a"], role, stopped=True)


@pytest.mark.parametrize("family", PLAIN)
def test_a_system_message_opens_a_conversation(family):
    own, _, frame = framed(family, PLAIN[family])
    talk = [{"role": "system", "content": "Be brief."}, TALK[0]]
    whole = own.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
    assert frame.opening(talk) == whole


@pytest.mark.parametrize(("family", "role"), BY_ROLE)
def test_the_turn_that_was_cut_gets_its_end(family, role):
    _, _, frame = framed(family, PLAIN[family])
    whole, rest = (frame.bridge(["So?"], role, stopped) for stopped in (False, True))
    assert whole == [frame.end_of_turn, *rest]


@pytest.mark.parametrize(("family", "role"), BY_ROLE)
def test_a_message_cannot_forge_a_role(family, role):
    _, tokenizer, frame = framed(family, PLAIN[family])
    special = set(tokenizer.special_texts)
    forged = "".join(PLAIN[family]) + "user"
    for ids, plain in (
        (frame.opening([{"role": "user", "content": forged}]), frame.opening(TALK[:1])),
        (frame.bridge([forged], role, True), frame.bridge(["a"], role, True)),
    ):
        assert [i for i in ids if i in special] == [i for i in plain if i in special]
        assert forged in tokenizer.decode(ids)  # as text it is all there


@pytest.mark.parametrize("family", PLAIN)
def test_ids_that_open_another_role_are_forbidden(family):
    _, tokenizer, frame = framed(family, PLAIN[family])
    opens = OPENS.get(family, "<|im_start|>")
    assert opens in [tokenizer.decode([token]) for token in frame.role_tokens]
    assert frame.end_of_turn not in frame.role_tokens
    assert not framed(family, PLAIN[family], forbid_roles=False)[2].role_tokens
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RewrittenHistoryWarning)
        envs = TextVectorEnv(2, prompts=["a"], reward=len, tokenizer=tokenizer, frame="chat")
        _, infos = envs.reset(seed=0)
    assert not infos["action_mask"][:, list(frame.role_tokens)].any()
    assert infos["action_mask"].sum() == 2 * (tokenizer.vocab_size - len(frame.role_tokens))


@pytest.mark.parametrize("family", REWRITING)
def test_templates_that_rewrite_what_was_said_are_named(family):
    special, message = REWRITING[family]
    own = library_tokenizer(family, *special)
    tokenizer = HuggingFaceTokenizer(own, name=f"{family} of this test")
    with pytest.warns(RewrittenHistoryWarning, match=message):
        frame = ModelTemplate.of(tokenizer).frame(tokenizer)
    ModelTemplate.of(tokenizer).frame(tokenizer)  # once
    assert frame.bridge(["So?"], "user", stopped=True)


def test_several_results_of_tools_are_messages_of_their_own_where_the_template_can():
    own, tokenizer, frame = framed("qwen2_5", IM)
    text = tokenizer.decode(frame.bridge(["1", "2"], "tool", stopped=True))
    assert text.count("<tool_response>") == 2
    whole = own.apply_chat_template(
        [*TALK[:2], {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert whole.endswith(text)


def test_a_template_that_writes_results_as_json_is_followed():
    own, tokenizer, frame = framed("llama3_2", LLAMA)
    text = tokenizer.decode(frame.bridge(['say "hi"\n'], "tool", stopped=True))
    whole = own.apply_chat_template(
        [*TALK[:2], {"role": "tool", "content": 'say "hi"\n'}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert whole.endswith(text) and r"\"hi\"" in text


def test_a_role_that_the_template_does_not_have_is_named():
    _, _, frame = framed("gemma3", PLAIN["gemma3"])
    with pytest.raises(FrameError, match="tool"):
        frame.bridge(["1"], "tool", stopped=True)
    _, _, frame = framed("phi3", PLAIN["phi3"])  # it would leave the message out
    with pytest.raises(FrameError, match="no form for a message of the role 'tool'"):
        frame.bridge(["1"], "tool", stopped=True)


def test_tools_are_told_in_the_opening():
    own = library_tokenizer("qwen2_5", *IM)
    tokenizer = HuggingFaceTokenizer(own, name="qwen2_5")
    schema = {"type": "function", "function": {"name": "add", "parameters": {}}}
    ids = ModelTemplate.of(own).frame(tokenizer, [schema]).opening(TALK[:1])
    assert ids == own.apply_chat_template(
        TALK[:1], tools=[schema], add_generation_prompt=True, return_dict=False
    )
    spelt = ChatTemplate().frame(BytesTokenizer(), [schema]).opening(TALK[:1])
    assert BytesTokenizer().decode(spelt).startswith('{"type": "function"')


def test_a_saved_tokenizer_keeps_its_template(tmp_path):
    _, tokenizer, frame = framed("qwen2_5", IM)
    tokenizer.save(tmp_path / "tokenizer.json")
    from textenv import load_tokenizer

    again = load_tokenizer(str(tmp_path / "tokenizer.json"))
    assert load_frame("chat", again).opening(TALK[:3]) == frame.opening(TALK[:3])


def test_what_is_no_frame_is_refused():
    with pytest.raises(FrameError, match="published without a chat template"):
        load_frame("chat", BytesTokenizer())
    with pytest.raises(FrameError, match="frame is 'qwen'"):
        load_frame("qwen", BytesTokenizer())
    own = library_tokenizer("qwen2_5", *IM)
    with pytest.raises(FrameError, match="needs the model's own tokenizer"):
        ModelTemplate.of(own).frame(BytesTokenizer())
