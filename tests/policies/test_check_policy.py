"""Every rule for policies holds for ours, and for each there is a policy that breaks it."""

import numpy as np
import pytest
import torch
from hf_models import SEPARATOR, make
from torch import nn
from torch.nn import functional as F

from policies import Policy, SeparateValue, TransformerConfig, TransformerPolicy
from policies.cache import PrefixCache
from textenv.testing import POLICY_RULES, check_policy
from textenv.testing.policy_comparison import differences
from textenv.testing.policy_trial import PolicyTrial, array, tensors

torch.set_num_threads(1)
VOCAB, WIDTH = 9, 8


class Recurrent(Policy):
    """h[t] = tanh(A h[t-1] + e[t]), the smallest network that reads a whole text."""

    def __init__(self):
        super().__init__(VOCAB, 20, WIDTH)
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.turn = nn.Linear(WIDTH, WIDTH)

    def forward(self, rows):
        states = [torch.zeros(len(rows), WIDTH)]
        for inputs in self.embedding(rows).unbind(1):
            states.append(torch.tanh(self.turn(states[-1]) + inputs))
        return torch.stack(states[1:], dim=1)


# ---------------------------------------------------------------- a policy that breaks each rule


class PaddingChosen(Recurrent):
    def act(self, *arguments, **options):
        step = super().act(*arguments, **options)
        return step._replace(actions=np.full_like(step.actions, VOCAB))


class AnyIdIsTaken(Recurrent):
    def last_hidden(self, observations, cache=None):
        return super().last_hidden(np.clip(observations, 0, VOCAB), cache)


class Dropout(Recurrent):
    def forward(self, rows):
        return F.dropout(super().forward(rows), 0.1)


class LooksAhead(Recurrent):
    def forward(self, rows):
        states = super().forward(rows)
        return states + 0.1 * states.roll(-1, dims=1)


class NormOfTheBatch(Recurrent):
    def forward(self, rows):
        states = super().forward(rows)
        return states - 0.1 * states[:, :1].mean(0)


class PositionsFromTheWidth(Recurrent):
    def hidden_before(self, tokens, mask, lengths):
        return super().hidden_before(tokens, mask, lengths) + 0.01 * tokens.shape[1]


class NothingIsCopied(Recurrent):
    def new_store(self, num_rows):
        store = super().new_store(num_rows)
        store.copy_prefix = lambda source, target, length: None
        return store


class OldWeights(TransformerPolicy):
    """Its cache watches no parameter."""

    def __init__(self):
        super().__init__(TransformerConfig(VOCAB, 20, n_layer=1, n_head=1, n_embd=WIDTH))

    def new_cache(self, num_rows, capacity=None):
        return PrefixCache(num_rows, capacity or self.context, self.new_store(num_rows), [])


class RowsOnlyGrow(Recurrent):
    """Keeps the longest text of each row, and reads that."""

    def extend(self, store, plan):
        longest = store.__dict__.setdefault("longest", {})
        last = np.cumsum(plan.counts) - 1
        for row, end in zip(plan.rows[last], plan.positions[last] + 1, strict=True):
            longest[int(row)] = max(longest.get(int(row), 0), int(end))
        store.tokens[plan.rows, plan.positions] = plan.tokens
        rows = [torch.from_numpy(store.tokens[r, : longest[int(r)]]) for r in plan.rows[last]]
        lengths = torch.tensor([len(row) for row in rows])
        return self.hidden_states(torch.cat(rows), lengths)[lengths.cumsum(0) - 1]


class TemperatureAtSamplingOnly(Recurrent):
    def act(self, *arguments, **options):
        return super().act(*arguments, **(options | {"temperature": 0.7}))


class NoTemperatureInOutputs(Recurrent):
    def token_logprobs(self, hidden, tokens, temperature, action_masks):
        return super().token_logprobs(hidden, tokens, 1.0, action_masks)


class NoMasksInOutputs(Recurrent):
    def token_logprobs(self, hidden, tokens, temperature, action_masks):
        return super().token_logprobs(hidden, tokens, temperature, None)


class NoMasksInAct(Recurrent):
    def act(self, *arguments, action_masks=None, **options):
        return super().act(*arguments, **options)


class NoMasksAnywhere(NoMasksInAct, NoMasksInOutputs):
    pass


class NoTemperatureAnywhere(NoTemperatureInOutputs):
    def act(self, *arguments, temperature=1.0, **options):
        return super().act(*arguments, **options)


class AlwaysGreedy(Recurrent):
    def act(self, *arguments, deterministic=False, **options):
        return super().act(*arguments, deterministic=True, **options)


class SameNumbersAtEveryStep(Recurrent):
    def act(self, *arguments, generator=None, **options):
        return super().act(*arguments, generator=np.random.default_rng(0), **options)


class SampledWithoutTemperature(Recurrent):
    """Draws from one distribution and tells the log-probabilities of another."""

    def act(self, observations, cache=None, *, temperature=1.0, action_masks=None, **options):
        step = super().act(observations, cache, action_masks=action_masks, **options)
        logits = self.logits(self.last_hidden(observations).clone()) / temperature
        if action_masks is not None:
            logits[~torch.as_tensor(action_masks)] = -torch.inf
        every = logits.detach().log_softmax(-1).numpy()
        return step._replace(logprobs=every[np.arange(len(every)), step.actions])


class NeverGreedy(Recurrent):
    def act(self, *arguments, deterministic=False, **options):
        return super().act(*arguments, **options)


class NoGradient(Recurrent):
    def forward(self, rows):
        return super().forward(rows).detach()


class DetachedState(Recurrent):
    """A state does not know how the one before it depends on the weights."""

    def forward(self, rows):
        states = [torch.zeros(len(rows), WIDTH)]
        for inputs in self.embedding(rows).unbind(1):
            states.append(torch.tanh(self.turn(states[-1].detach()) + inputs))
        return torch.stack(states[1:], dim=1)


class DetachedEntropy(Recurrent):
    def token_logprobs(self, *arguments):
        logprobs, entropies = super().token_logprobs(*arguments)
        return logprobs, entropies.detach()


class DetachedValues(Recurrent):
    def outputs(self, *arguments, **options):
        found = super().outputs(*arguments, **options)
        return found._replace(values=found.values.detach())


class NotSaved(Recurrent):
    def __init__(self):
        super().__init__()
        self.scale = torch.randn(WIDTH)  # neither a parameter nor a buffer

    def forward(self, rows):
        return self.scale * super().forward(rows)


class SharedCopy(Recurrent):
    def frozen_copy(self):
        return self


BROKEN = {
    "chosen_tokens_are_tokens": [PaddingChosen],
    "ids_that_are_no_tokens_are_refused": [AnyIdIsTaken],
    "nothing_random_is_left_on": [Dropout],
    "the_future_does_not_matter": [LooksAhead],
    "a_text_alone_reads_as_in_a_batch": [NormOfTheBatch],
    "padding_does_not_matter": [PositionsFromTheWidth],
    "cached_steps_equal_uncached": [NothingIsCopied, RowsOnlyGrow],
    "changed_weights_are_noticed": [OldWeights],
    "a_rollout_equals_outputs": [
        TemperatureAtSamplingOnly,
        NoTemperatureInOutputs,
        NoMasksInOutputs,
        NoMasksInAct,
        NoMasksAnywhere,
        NoTemperatureAnywhere,
    ],
    "choices_are_as_frequent_as_probable": [
        AlwaysGreedy,
        SameNumbersAtEveryStep,
        SampledWithoutTemperature,
    ],
    "greedy_takes_the_likeliest": [NeverGreedy],
    "gradients_reach_the_network": [NoGradient, DetachedState, DetachedEntropy, DetachedValues],
    "saved_weights_come_back": [NotSaved],
    "a_frozen_copy_stays": [SharedCopy],
}


def test_every_rule_can_be_broken():
    assert list(BROKEN) == [rule.__name__ for rule in POLICY_RULES]


@pytest.mark.parametrize(
    ("rule", "broken"), [(rule, made) for rule, some in BROKEN.items() for made in some]
)
def test_a_policy_that_breaks_a_rule(rule, broken):
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match=f"^{rule}: "):
        check_policy(broken)


# ---------------------------------------------------------------- policies that keep to them


class NeverTheFirst(Recurrent):
    """Token 0 has a logit of minus infinity: its probability is 0."""

    def __init__(self):
        super().__init__()
        self.token_head = nn.Linear(WIDTH, VOCAB, bias=False)

    def logits(self, hidden):
        return super().logits(hidden).index_fill(-1, torch.tensor([0]), -torch.inf)


SOURCES = [[1, 2, SEPARATOR], [3, SEPARATOR], [4, 4, 2, SEPARATOR], [SEPARATOR], [5, SEPARATOR]]


@pytest.mark.parametrize(
    ("policy", "prompts"),
    [
        (Recurrent, None),
        (NeverTheFirst, None),
        (lambda: make("ours"), None),
        (lambda: make("llama"), None),
        (lambda: make("t5"), SOURCES),
        (lambda: SeparateValue(make("ours"), make("gpt2")), None),
    ],
    ids=["recurrent", "never the first", "ours", "llama", "t5", "separate value"],
)
def test_our_policies(policy, prompts):
    assert check_policy(policy, prompts) == {}


def test_equal_infinities_are_equal():
    one, other = np.array([-np.inf, np.inf, 1.0, -np.inf]), np.array([-np.inf, np.inf, 3.0, 0.0])
    assert differences(one, other).tolist() == [0, 0, 2, np.inf]
    assert np.isnan(differences(np.array([np.nan]), np.array([np.nan]))).all()


def test_doubles_are_made_on_the_cpu_and_ids_never_pass_through_floats():
    """A device may have no doubles, and floats in 16 bits hold few ids exactly."""

    class NoDoubles:
        def detach(self):
            return self

        def cpu(self):
            return torch.ones(2)

    assert array(NoDoubles()).tolist() == [1, 1]
    policy = Recurrent().bfloat16()
    ids, mask = tensors(policy, np.array([2**53 + 1, 1001]), np.array([True, False]))
    assert ids.tolist() == [2**53 + 1, 1001] and mask.tolist() == [True, False]


def test_a_policy_is_not_changed():
    policy = make("ours")
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    assert check_policy(policy) == {}
    assert all(torch.equal(weight, before[name]) for name, weight in policy.state_dict().items())


def test_a_frozen_policy_has_rules_that_cannot_be_checked():
    skipped = check_policy(Recurrent().frozen_copy())
    assert set(skipped) == {
        "changed_weights_are_noticed",
        "gradients_reach_the_network",
        "saved_weights_come_back",
        "a_frozen_copy_stays",
    }


def test_a_context_without_room():
    with pytest.raises(AssertionError, match="a prompt has 20 tokens and the policy's context is"):
        check_policy(Recurrent, [[1] * 20])


def test_games_have_all_kinds_of_changes():
    """Rows that grow by one and by several, shrink, and are replaced, with and without a source."""
    trial = PolicyTrial(Recurrent, None, 1e-4)
    shown = [(observations != VOCAB).sum(1) for observations in trial.game()]
    changes = np.diff(np.stack(shown), axis=0)
    assert (changes == 1).sum() > 30 and (changes > 1).any() and (changes < 0).any()
