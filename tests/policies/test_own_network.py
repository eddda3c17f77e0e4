"""A network of one's own writes one method; the rest has defaults that keep their promises."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from letters import Letters
from torch import nn

from agents import PPO, Learner
from policies import Policy, TransformerConfig, TransformerPolicy, generate, load_policy
from policies.cache import Plan
from policies.policy_files import WEIGHTS
from textenv import TextVectorEnv
from textenv.errors import CheckpointError, VocabularyMismatchError
from textenv.testing import check_policy

torch.set_num_threads(1)
PAGE = Path(__file__).parents[2] / "docs" / "networks.md"
VOCAB, CONTEXT = 7, 12


def snippets():
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


class GRUPolicy(Policy):
    """The network of these tests; the head reads its own embedding."""

    def __init__(self, width=16, tokenizer=None, seed=0):
        super().__init__(VOCAB, CONTEXT, width, tokenizer, seed)
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(VOCAB, width)
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, rows):
        return self.gru(self.embedding(rows))[0]


class TiedGRU(GRUPolicy):
    """Logits from the token embedding, by sharing the parameter."""

    def __init__(self, **options):
        super().__init__(**options)
        self.token_head.weight = self.embedding.weight


class Capped(GRUPolicy):
    """A soft cap of what the linear layer gives, so `outputs` must not read the layer alone."""

    def __init__(self, **options):
        super().__init__(**options)
        self.token_head = nn.Linear(16, VOCAB, bias=False)

    def logits(self, hidden):
        return 2 * torch.tanh(super().logits(hidden) / 2)


class Biased(GRUPolicy):
    def __init__(self, **options):
        super().__init__(**options)
        self.token_head = nn.Linear(16, VOCAB)


# ---------------------------------------------------------------- what has to be written


def test_the_lstm_of_the_page_has_at_most_twelve_lines():
    first = ast.parse(snippets()[0])
    (made,) = (node for node in first.body if isinstance(node, ast.ClassDef))
    assert made.name == "LSTMPolicy"
    assert made.end_lineno - made.lineno + 1 <= 12


def test_the_store_of_the_page_is_where_the_network_is():
    """Nothing is left on the CPU; the device "meta" is there on every machine."""
    page = {}
    for snippet in snippets():
        if "class LSTMPolicy" in snippet or "class States" in snippet:
            exec(snippet.split("\n\n\ncheck_policy")[0], page)
    page["torch"] = torch
    policy = page["FastLSTMPolicy"](VOCAB, CONTEXT).to("meta")
    store = policy.new_store(2)
    plan = Plan(*(np.array(x) for x in ([1, 2, 3], [0, 0, 1], [0, 1, 0], [2, 1])))
    assert store.after.is_meta and policy.extend(store, plan).is_meta


def test_a_class_that_reads_nothing_is_refused():
    with pytest.raises(TypeError, match=r"Policy reads no tokens: define forward\(self, rows\)"):
        Policy(VOCAB, CONTEXT, 8)


def test_rows_laid_end_to_end_are_padded_for_forward():
    policy = GRUPolicy()
    rows = [[1, 2, 3], [4], [5, 6]]
    flat = policy.hidden_states(torch.tensor([1, 2, 3, 4, 5, 6]), torch.tensor([3, 1, 2]))
    alone = [policy(torch.tensor([row]))[0] for row in rows]
    torch.testing.assert_close(flat, torch.cat(alone))


def test_a_policy_without_forward_says_so():
    policy = TransformerPolicy(TransformerConfig(VOCAB, CONTEXT, 1, 1, 8))
    assert policy.token_head is None
    with pytest.raises(NotImplementedError, match="TransformerPolicy reads rows laid end to end"):
        policy(torch.tensor([[1]]))


def test_the_first_choices_are_nearly_uniform_and_repeat_with_the_seed():
    one, two, other = GRUPolicy(seed=1), GRUPolicy(seed=1), GRUPolicy(seed=2)
    assert torch.equal(one.token_head.weight, two.token_head.weight)
    assert not torch.equal(one.token_head.weight, other.token_head.weight)
    logprobs = one.logits(one.last_hidden(np.array([[1, 2, 3]])).clone()).log_softmax(-1)
    assert (logprobs + np.log(VOCAB)).abs().max() < 0.2


@pytest.mark.parametrize("made", [GRUPolicy, TiedGRU, Capped, Biased])
def test_it_keeps_the_rules(made):
    assert check_policy(made) == {}


def test_logits_of_a_layer_that_was_not_made():
    class Headless(GRUPolicy):
        def logits(self, hidden):
            return super().logits(hidden)

    policy = Headless()
    assert policy.token_head is None
    with pytest.raises(TypeError, match=r"set self.token_head = nn.Linear.* in Headless.__init__"):
        policy.act(np.array([[1, 2]]))


def test_a_store_that_the_default_cannot_read():
    class Storing(GRUPolicy):
        def new_store(self, num_rows):
            return SimpleNamespace(clear=lambda: None)

    with pytest.raises(TypeError, match=r"Storing.new_store gives a SimpleNamespace.* extend\("):
        Storing().act(np.array([[1, 2]]))


def test_texts_can_be_generated():
    policy = GRUPolicy(tokenizer=Letters(VOCAB))
    answers = policy.generate(["abc", "d"], 5, temperature=0)
    assert answers == generate(policy, ["abc", "d"], 5, temperature=0)
    assert [len(answer) for answer in answers] == [5, 5]


# ---------------------------------------------------------------- files


def test_only_the_class_can_make_it_again(tmp_path):
    saved = GRUPolicy().save(tmp_path)
    message = r"test_own_network:GRUPolicy, and only that class .* policy.load_weights\(folder\)"
    with pytest.raises(CheckpointError, match=message):
        load_policy(saved)
    assert sorted(path.name for path in saved.iterdir()) == ["policy.json", WEIGHTS]


def test_weights_that_do_not_fit(tmp_path):
    GRUPolicy(width=8).save(tmp_path / "narrow")
    with pytest.raises(CheckpointError, match="do not fit this GRUPolicy: make it with the argume"):
        GRUPolicy().load_weights(tmp_path / "narrow")
    TransformerPolicy(TransformerConfig(VOCAB, CONTEXT, 1, 1, 8)).save(tmp_path / "ours")
    with pytest.raises(CheckpointError, match=r"kind 'transformer', which GRUPolicy .*load_policy"):
        GRUPolicy().load_weights(tmp_path / "ours")
    with pytest.raises(CheckpointError, match="nowhere holds no policy"):
        GRUPolicy().load_weights(tmp_path / "nowhere")
    GRUPolicy(tokenizer=Letters(VOCAB)).save(tmp_path / "letters")
    with pytest.raises(VocabularyMismatchError, match="the tokenizer 'letters'"):
        GRUPolicy(tokenizer=Letters(VOCAB - 1, stop=True)).load_weights(tmp_path / "letters")
    GRUPolicy(tokenizer=Letters(VOCAB)).load_weights(tmp_path / "letters")


# ---------------------------------------------------------------- training


def make_learner(seed):
    envs = TextVectorEnv(
        8,
        prompts=["a", "bc", "d"],
        reward=lambda episodes: [e.text.count("a") / 4 for e in episodes],
        tokenizer=Letters(VOCAB),
        max_new_tokens=4,
    )
    policy = TiedGRU(tokenizer=envs.tokenizer, seed=seed)
    reference = policy.frozen_copy()
    options = {"reference": reference, "kl_coef": 0.01, "learning_rate": 1e-2, "n_steps": 16}
    return Learner(policy, envs, PPO(), seed=0, **options)


def test_a_learner_trains_it_and_goes_on_from_its_checkpoint(tmp_path):
    learner = make_learner(seed=1)
    scores = [update.score for update in learner.updates(8 * 16 * 12)]
    assert scores[-1] > scores[0] + 0.2
    learner.save(tmp_path)
    later = [(update.score, update.kl) for update in learner.updates(8 * 16 * 14)]
    restored = make_learner(seed=2)  # other weights, and another reference
    restored.load(tmp_path)
    assert [(update.score, update.kl) for update in restored.updates(8 * 16 * 14)] == later
    frozen = restored.reference.state_dict()
    assert all(torch.equal(w, frozen[n]) for n, w in learner.reference.state_dict().items())
