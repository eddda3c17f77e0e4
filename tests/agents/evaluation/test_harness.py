"""Tasks of lm-evaluation-harness on local files: its numbers, a loop by hand, and its own model."""

import json
import math
import warnings

import pytest
import torch
from command_line import run_command
from text_policies import CONTEXT, text_policy, transformers_model, transformers_tokenizer

from agents.evaluation.choices import Question, accuracies, score_options
from agents.evaluation.continuations import score_continuations, score_texts
from agents.evaluation.harness import HarnessModel
from policies import HuggingFacePolicy, load_policy
from textenv.errors import FrameError, OptionError
from textenv.frames import ChatTemplate

lm_eval = pytest.importorskip("lm_eval")
torch.set_num_threads(1)

DOCS = [
    {"q": "The cat sat", "options": ["on the mat", "the dog"], "gold": 0, "text": "a b ab " * 20},
    {
        "q": "The dog's bone",
        "options": ["is", "other things", "they were"],
        "gold": 1,
        "text": "ab",
    },
    {"q": "a b", "options": ["ab", "the cat sat"], "gold": 0, "text": "The cat sat on the mat."},
    {
        "q": "there: 1234",
        "options": ["and 12345", "isn't it"],
        "gold": 0,
        "text": "they were together",
    },
]
MEASURES = {
    "choice": ["acc", "acc_norm", "acc_bytes", "acc_mutual_info"],
    "cloze": ["perplexity", "acc"],
    "writes": ["exact_match"],
    "reads": ["word_perplexity", "byte_perplexity", "bits_per_byte"],
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with four tasks, as YAML files that read a local file."""
    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "docs.jsonl"
    data.write_text("\n".join(map(json.dumps, DOCS)), encoding="utf-8")
    forms = {
        "choice": ("multiple_choice", "{{q}}", "gold", {"doc_to_choice": "{{options}}"}),
        "cloze": ("loglikelihood", "{{q}}", " {{options[gold]}}", {}),
        "writes": (
            "generate_until",
            "{{q}}",
            "{{options[gold]}}",
            {"generation_kwargs": {"until": ["e", "\n"], "max_gen_toks": 8}},
        ),
        "reads": ("loglikelihood_rolling", "", "{{text}}", {}),
    }
    for name, (kind, text, target, more) in forms.items():
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"test": str(data)},
                "cache_dir": str(folder / "cache"),
            },
            "test_split": "test",
            "fewshot_split": "test",
            "output_type": kind,
            "doc_to_text": text,
            "doc_to_target": target,
            "metric_list": [{"metric": measure} for measure in MEASURES[name]],
            **more,
        }
        (folder / f"{name}.yaml").write_text(json.dumps(task))  # JSON is YAML
    return folder


def ask(model, folder, names=tuple(MEASURES), **options):
    """What the harness says: numbers by task and measure, and the answers by task."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    with warnings.catch_warnings():
        for category in (ResourceWarning, DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)  # of the harness and of datasets
        found = lm_eval.simple_evaluate(
            model=model, tasks=[*names], task_manager=manager, bootstrap_iters=0, **options
        )
    numbers = {
        (task, key.split(",")[0]): value
        for task, one in found["results"].items()
        for key, value in one.items()
        if key.endswith(",none") and "stderr" not in key
    }
    answers = {
        task: [sample["resps"] for sample in some] for task, some in found["samples"].items()
    }
    return numbers, answers


@pytest.mark.parametrize("kind", ["ours", "t5"])
def test_numbers_of_the_harness_are_those_of_a_loop_by_hand(kind, tasks):
    policy = text_policy(kind)
    numbers, answers = ask(HarnessModel(policy), tasks)

    questions = [Question(doc["q"], doc["options"], doc["gold"]) for doc in DOCS]
    by_hand = accuracies(score_options(policy, questions, unconditional=True))
    for measure in MEASURES["choice"]:
        assert numbers["choice", measure] == pytest.approx(by_hand[measure].mean), measure

    right = [(doc["q"], " " + doc["options"][doc["gold"]]) for doc in DOCS]
    scored = score_continuations(policy, right)
    mean = sum(one.logprob for one in scored) / len(scored)
    assert numbers["cloze", "perplexity"] == pytest.approx(math.exp(-mean))
    assert numbers["cloze", "acc"] == sum(one.greedy for one in scored) / len(scored)

    logprob = sum(one.logprob for one in score_texts(policy, [doc["text"] for doc in DOCS]))
    words = sum(len(doc["text"].split(" ")) for doc in DOCS)
    size = sum(len(doc["text"]) for doc in DOCS)
    assert numbers["reads", "word_perplexity"] == pytest.approx(math.exp(-logprob / words))
    assert numbers["reads", "byte_perplexity"] == pytest.approx(math.exp(-logprob / size))

    written = policy.generate(
        [doc["q"] for doc in DOCS], 8, temperature=0, stop_strings=["e", "\n"]
    )
    assert answers["writes"] == [[[text]] for text in written]


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_numbers_are_those_of_the_harness_own_model(kind, tasks):
    from lm_eval.models.huggingface import HFLM

    tokenizer = transformers_tokenizer(kind)
    model = transformers_model(kind, tokenizer)
    backend = "seq2seq" if kind == "t5" else "causal"
    # Its answers of encoder-decoders are longer than asked for, and texts have no source.
    names = ("choice", "cloze") if kind == "t5" else tuple(MEASURES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = HFLM(model, tokenizer=tokenizer, max_length=CONTEXT, batch_size=2, backend=backend)
        expected, said = ask(theirs, tasks, names)
    policy = text_policy(kind)
    numbers, answers = ask(HarnessModel(policy), tasks, names)
    assert numbers == pytest.approx(expected, rel=1e-4)
    for name in names:
        if name == "writes":
            assert [text[0][0].strip() for text in answers[name]] == [
                text[0][0].strip() for text in said[name]
            ]
            continue
        for ours, other in zip(answers[name], said[name], strict=True):
            if name == "reads":
                assert ours[0][0] == pytest.approx(other[0][0], rel=1e-4)
            for (mine,), (its,) in zip(ours, other, strict=True) if name != "reads" else ():
                assert mine[0] == pytest.approx(its[0], abs=1e-3) and mine[1] == its[1]


def test_the_beginning_of_a_text_is_not_predicted(tasks):
    """As the harness's own model does where a tokenizer writes a beginning; see its findings."""
    policy = text_policy("llama")
    begin = policy.transformers_tokenizer.bos_token_id
    _, answers = ask(HarnessModel(policy), tasks, ["reads"])
    ids = policy.tokenizer.encode(DOCS[1]["text"])
    with torch.no_grad():
        logprobs = policy.model(torch.tensor([[begin, *ids]])).logits[0].log_softmax(-1)
    expected = sum(float(logprobs[place, token]) for place, token in enumerate(ids))
    assert answers["reads"][1][0][0] == pytest.approx(expected, abs=1e-3)


def test_worked_examples_and_long_prompts(tasks):
    model = HarnessModel(text_policy("ours"))
    with pytest.warns(UserWarning, match="prompts are longer than the policy's context of 24"):
        numbers, _ = ask(model, tasks, ["choice"], num_fewshot=3)
    assert 0 <= numbers["choice", "acc"] <= 1


# ------------------------------------------------------------------------- conversations


TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role[0] }} {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>a {% endif %}"
)


@pytest.fixture(scope="module")
def talker():
    tokenizer = transformers_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return HuggingFacePolicy(transformers_model("gpt2", tokenizer), tokenizer)


def test_a_conversation_has_the_ids_of_the_models_own_template(talker, tasks):
    _, answers = ask(HarnessModel(talker), tasks, ["choice"], apply_chat_template=True)
    tokenizer = talker.transformers_tokenizer
    for doc, said in zip(DOCS, answers["choice"], strict=True):
        asked = [{"role": "user", "content": doc["q"]}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        for option, (scored,) in zip(doc["options"], said, strict=False):
            ids = tokenizer.encode(option)
            with torch.no_grad():
                logprobs = talker.model(torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
            places = range(len(prompt) - 1, len(prompt) + len(ids) - 1)
            expected = sum(float(logprobs[p, i]) for p, i in zip(places, ids, strict=True))
            assert scored[0] == pytest.approx(expected, abs=1e-3)


def test_turns_of_our_own_template_have_their_stop_tokens():
    policy = text_policy("ours")
    policy.chat_template = {
        "system": "{content}.",
        "user": "a{content}b",
        "answer": "{content}",
        "between": "",
    }
    model = HarnessModel(policy)
    said = [
        {"role": "user", "content": "the"},
        {"role": "assistant", "content": "cat"},
        {"role": "user", "content": "sat"},
    ]
    text = model.apply_chat_template(said)
    expected = ChatTemplate(**policy.chat_template).prompt_tokens(said, policy.tokenizer)
    assert policy.tokenizer.stop_token in expected
    request = type("Request", (), {"args": (text, "on")})
    ((logprob, _),) = model.loglikelihood([request], disable_tqdm=True)
    from agents.evaluation.continuations import score_tokens

    by_ids = score_tokens(policy, [(expected, policy.tokenizer.encode("on"))])[0]
    assert logprob == by_ids.logprob
    begun = model.apply_chat_template(
        [*said, {"role": "assistant", "content": "on"}], add_generation_prompt=False
    )
    assert begun == text + "on"
    other = type("Request", (), {"args": ("from a cache", "on")})
    with pytest.raises(FrameError, match="leave cache_requests out"):
        model.loglikelihood([other])


def test_an_answer_in_a_conversation_ends_with_its_turn(talker, monkeypatch):
    model, given = HarnessModel(talker), {}
    text = model.apply_chat_template([{"role": "user", "content": "The cat"}])
    frame = model._chat_frame()
    monkeypatch.setattr(frame, "end_of_turn", 5)  # not what the tokenizer names
    monkeypatch.setattr(frame, "role_tokens", (6,))

    def generate(prompts, *, generator, **settings):
        given.update(settings)
        return [""] * len(prompts)

    monkeypatch.setattr(talker, "generate", generate)
    model.generate_until([type("Request", (), {"args": (text, {"until": ["."]})})], True)
    assert given["stop_tokens"] == (5, talker.tokenizer.stop_token)
    assert given["forbidden_tokens"] == (6,) and given["stop_strings"] == ["."]


def test_a_policy_without_a_template_says_so(tasks):
    with pytest.raises(FrameError, match="leave apply_chat_template out"):
        ask(HarnessModel(text_policy("ours")), tasks, ["choice"], apply_chat_template=True)


# ------------------------------------------------------------------------- settings and names


def generate(model, **settings):
    request = type("Request", (), {"args": ("The cat", settings)})
    return model.generate_until([request], disable_tqdm=True)[0]


def test_ways_to_generate():
    model = HarnessModel(text_policy("ours"), seed=1)
    greedy = generate(model, max_gen_toks=6)
    assert greedy == generate(model, max_gen_toks=6, temperature=0.0, do_sample=False)
    sampled = {generate(model, max_gen_toks=6, do_sample=True, temperature=t) for t in (1.0, 3.0)}
    assert len({greedy, *sampled}) == 3
    assert generate(model, max_gen_toks=6, until=greedy[2]) == greedy[:2]
    with pytest.raises(OptionError, match="generates with num_beams, which policies do not take"):
        generate(model, num_beams=4)
    with pytest.raises(OptionError, match=r"answers of 24 tokens.*'max_gen_toks': 12"):
        generate(model, max_gen_toks=24)


def test_the_name_is_known_to_the_harness(tmp_path, tasks):
    policy = text_policy("ours")
    policy.save(tmp_path / "policy")
    by_name, _ = ask("textenv", tasks, ["cloze"], model_args={"policy": str(tmp_path / "policy")})
    by_object, _ = ask(HarnessModel(load_policy(tmp_path / "policy")), tasks, ["cloze"])
    assert by_name == by_object


def quiet(*line):
    with warnings.catch_warnings():
        for category in (ResourceWarning, DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)  # of the harness and of datasets
        return run_command("harness", *line)


def test_the_command_prints_a_table_and_writes_a_file(tmp_path, tasks):
    text_policy("ours").save(tmp_path / "policy")
    out = tmp_path / "new" / "out.json"
    line = [tmp_path / "policy", "--tasks", "ch*", "--include", tasks]
    ran = quiet(*line, "--limit", 2, "--json", out)
    assert ran.exit_code == 0, ran.output
    assert "acc_mutual_info" in ran.output and "choice" in ran.output
    written = json.loads(out.read_text())["policy"]
    assert len(written["samples"]["choice"]) == 2
    assert f"{written['results']['choice']['acc,none']:.4g}" in ran.output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--tasks", "choise"], "knows no such task, and"),
        (["--tasks", "choice", "--include", "nowhere"], "--include: there is no folder nowhere"),
        (["--tasks", "choice", "--chat"], "leave --chat out"),
    ],
)
def test_mistakes_on_the_command_line(line, message, tmp_path, tasks, monkeypatch):
    from agents.jobs import harness

    inner = harness.TaskManager  # to read all published tasks takes seconds
    monkeypatch.setattr(
        harness, "TaskManager", lambda **options: inner(**options | {"include_defaults": False})
    )
    text_policy("ours").save(tmp_path / "policy")
    ran = quiet(tmp_path / "policy", "--include", tasks, *line)
    assert ran.exit_code in (1, 2)
    assert message in ran.output.replace("\n", " ")
