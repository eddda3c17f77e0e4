"""Trees of answers: what is known of them, what a segment earns, and the exact gradient."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from letters import Letters
from test_exact_gradients import (
    ANSWERS,
    BETA,
    LENGTHS,
    POLICY,
    P,
    assert_equal,
    exact_gradient,
    flat_gradient,
    rollout_of,
)

from agents import Collector, Learner, TreePO, returns
from agents.rollout import Rollout
from policies import Policy, SeparateValue, TransformerPolicy
from policies.cache import WORTH_A_PASS
from textenv import Prompt, Start, TextVectorEnv
from textenv.errors import NothingToLearnWarning, OptionError, ResetOptionsError

torch.set_num_threads(1)
CREDITS = {
    "changes": returns.tree_changes,
    "leave one out": returns.tree_leave_one_out,
    "ancestors": returns.tree_ancestors,
}


# ---------------------------------------------------------------- by hand


def by_hand():
    """Two answers of four tokens; a third leaves the first before its third token, a fourth the
    third before its fourth one. What is paid: 1 for token 2 of the first, scores at the ends.

        prompt -+- s0: x x | x x            0 1 | 0 4
                |          +- s2: x | x          0 | 2
                |                   +- s3: x         6
                +- s1: x x x x              0 0 0 1
    """
    mask = torch.tensor(
        [[0, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]], dtype=torch.bool
    )
    rewards = torch.zeros(4, 5, dtype=torch.float64)
    rewards[0, 2], rewards[:, 4] = 1.0, torch.tensor([4.0, 1.0, 2.0, 6.0])
    rewards[2, 1] = float("nan")  # outside the mask anything may stand
    return rewards, mask, torch.tensor([-1, -1, 0, 2]), torch.tensor([7, 7, 7, 7])


def test_a_tree_by_hand():
    tree = returns.tree_of(*by_hand())
    # s0 to the branch, s0 behind it, s1, s2 to the branch, s2 behind it, s3.
    assert tree.segment_of.tolist() == [
        [-1, 0, 0, 1, 1],
        [-1, 2, 2, 2, 2],
        [-1, -1, -1, 3, 4],
        [-1, -1, -1, -1, 5],
    ]
    assert tree.before.tolist() == [-1, 0, -1, 0, 3, 3]
    assert tree.paid.tolist() == [1, 4, 1, 0, 2, 6]
    # s2 is worth (2 + 6) / 2 = 4 at its branch, so the text of s0's branch (4 + 4) / 2 = 4.
    assert tree.gains.tolist() == [1 + 4, 4, 1, 0 + 4, 2, 6]
    assert tree.values[tree.node].tolist() == [3, 4, 3, 4, 4, 4]
    assert tree.children[tree.node].tolist() == [2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("credit", "segments"),
    [  # s0, s0 behind the branch, s1, s2, s2 behind the branch, s3
        (returns.tree_changes, [2, 0, -2, 0, -2, 2]),
        (returns.tree_leave_one_out, [4, 0, -4, 0, -4, 4]),
        # s3: at its node 6 - 4, at that of s0's branch 0 + 6 - 4, at the prompt 1 + 0 + 6 - 3.
        (
            returns.tree_ancestors,
            [2, (0 + 2) / 2, -2, (0 + 2) / 2, (-2 - 2 + 0) / 3, (2 + 2 + 4) / 3],
        ),
    ],
)
def test_advantages_by_hand(credit, segments):
    a, b, c, d, e, f = segments
    expected = [[0, a, a, b, b], [0, c, c, c, c], [0, 0, 0, d, e], [0, 0, 0, 0, f]]
    torch.testing.assert_close(credit(*by_hand()), torch.tensor(expected, dtype=torch.float64))


def test_shares_by_hand():
    _, *tree = by_hand()
    half, quarter, eighth = 0.5, 0.25, 0.125
    assert returns.tree_shares(*tree).tolist() == [
        [0, half, half, quarter, quarter],
        [0, half, half, half, half],
        [0, 0, 0, quarter, eighth],
        [0, 0, 0, 0, eighth],
    ]


def test_what_is_no_tree():
    rewards, mask, parents, groups = by_hand()
    with pytest.raises(ValueError, match="parent of sequence 0 does not stand before it"):
        returns.tree_of(rewards, mask, torch.tensor([2, -1, 0, 2]), groups)
    with pytest.raises(
        ValueError, match="begins at place 3, where its parent 3 has chosen nothing"
    ):
        returns.tree_of(
            rewards[[0, 1, 2, 3, 2]],
            mask[[0, 1, 2, 3, 2]],
            torch.tensor([-1, -1, 0, 2, 3]),
            torch.tensor([7] * 5),
        )
    with pytest.raises(ValueError, match="sequence 1 has no chosen token"):
        returns.tree_of(rewards[:2], mask[:2] & torch.tensor([[True], [False]]), None, groups[:2])
    with pytest.raises(ValueError, match="groups has shape"):
        returns.tree_of(rewards, mask, parents, groups[:2])


# ---------------------------------------------------------------- what it becomes


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-5, 5)), min_size=1, max_size=8))
def test_without_branches_answers_are_compared_as_groups(answers):
    groups = torch.tensor([group for group, _ in answers])
    scores = torch.tensor([float(score) for _, score in answers], dtype=torch.float64)
    mask = torch.ones(len(answers), 2, dtype=torch.bool)
    rewards = torch.stack([torch.zeros_like(scores), scores], 1)
    for credit, comparison in (
        (returns.tree_changes, returns.group_centred),
        (returns.tree_ancestors, returns.group_centred),
        (returns.tree_leave_one_out, returns.leave_one_out),
    ):
        found, expected = credit(rewards, mask, None, groups), comparison(scores, groups)
        torch.testing.assert_close(found, expected[:, None].expand(-1, 2))


trees = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 4)), min_size=1, max_size=7)


@given(trees, st.integers(0, 2**31))
def test_values_are_means_over_ways_through_the_tree(drawn, seed):
    """Walk down at random, each child alike: what is met on the way is Q and the share."""
    length = 6
    mask = torch.zeros(len(drawn), length, dtype=torch.bool)
    parents = torch.full((len(drawn),), -1)
    for number, (parent, place) in enumerate(drawn):
        parent = parent % (number + 1) - 1
        if parent >= 0 and mask[parent, place]:
            parents[number], mask[number, place:] = parent, True
        else:
            mask[number, 1:] = True
    rewards = torch.from_numpy(np.random.default_rng(seed).normal(size=mask.shape))
    groups = torch.zeros(len(drawn), dtype=torch.int64)
    tree = returns.tree_of(rewards, mask, parents, groups)

    def children(sequence, place):
        """What can be walked from a text: sequences that have it, at their own tokens."""
        branches = [
            c
            for c in range(len(drawn))
            if parents[c] == sequence and mask[c].int().argmax() == place
        ]
        return [sequence, *branches]

    def walk(sequence, place):
        """Mean of what follows token `place` of `sequence`, itself included."""
        after = place + 1
        if after == length:
            return rewards[sequence, place].item()
        return rewards[sequence, place].item() + np.mean(
            [walk(c, after) for c in all_children(sequence, after)]
        )

    def all_children(sequence, place):
        # A branch of a branch at the same place is a child of the same text.
        found = children(sequence, place)
        for other in found[1:]:
            found += [c for c in children(other, place)[1:] if c not in found]
        return found

    for sequence in range(len(drawn)):
        for place in mask[sequence].nonzero().flatten().tolist():
            begins = place == int(
                (tree.segment_of[sequence] == tree.segment_of[sequence, place]).argmax()
            )
            if begins:
                gain = tree.gains[tree.segment_of[sequence, place]]
                assert gain == pytest.approx(walk(sequence, place))
    shares = returns.tree_shares(mask, parents, groups)
    torch.testing.assert_close(shares[:, -1].sum(), torch.tensor(1.0, dtype=torch.float64))
    sums = np.bincount(tree.node, tree.differences)  # at every node the children cancel
    assert sums == pytest.approx(np.zeros_like(sums), abs=1e-9)


# ---------------------------------------------------------------- the exact gradient


def trees_of_two():
    """Every pair of answers, each with every continuation behind its first token, as groups.

    Returns:
        The rows of all trees as (answer, first own place, parent in its tree), tree by tree, and
        the probability of each tree.
    """
    longer = [n for n in range(len(ANSWERS)) if LENGTHS[n] == 2]
    first = ANSWERS.tokens[:, 1]

    def continued(n):
        """(None, 1) if the answer ends at once; else continuations and their probabilities."""
        if n not in longer:
            return [(None, 1.0)]
        same = [m for m in longer if first[m] == first[n]]
        return [(m, P[m] / P[same].sum()) for m in same]

    rows, chances = [], []
    for i, j in product(range(len(ANSWERS)), repeat=2):
        for (a, p), (b, q) in product(continued(i), continued(j)):
            tree = [(i, 1, -1), (j, 1, -1)]
            tree += [(n, 2, parent) for n, parent in ((a, 0), (b, 1)) if n is not None]
            rows.append(tree)
            chances.append(P[i] * P[j] * p * q)
    return rows, np.array(chances)


def all_trees(beta):
    """One rollout of all of them, and the probability of each row's tree."""
    trees, chances = trees_of_two()
    flat = [(tree, row) for tree, rows in enumerate(trees) for row in rows]
    group = torch.tensor([tree for tree, _ in flat])
    base = np.cumsum([0, *map(len, trees)])
    rollout = rollout_of([row[0] for _, row in flat], group, beta)
    own = torch.arange(rollout.mask.shape[1]) >= torch.tensor([r[1] for _, r in flat])[:, None]
    parents = torch.tensor([r[2] + base[t] if r[2] >= 0 else -1 for t, r in flat])
    rollout = replace(rollout, mask=rollout.mask & own, parents=parents)
    return rollout, torch.from_numpy(chances)[group]


def gradient_of(credit, beta):
    rollout, chances = all_trees(beta)
    tree = rollout.mask, rollout.parents, rollout.groups
    advantages = credit(rollout.rewards, *tree) * returns.tree_shares(*tree)
    logprobs = POLICY.outputs(rollout.tokens, rollout.mask).logprobs
    return flat_gradient(-(chances[:, None] * advantages * logprobs).sum().float())


@pytest.mark.parametrize("beta", [0.0, BETA])
def test_leave_one_out_at_every_node_is_the_exact_gradient(beta):
    """Answers of one token branch nowhere; means over leaves would count the others twice."""
    assert trees_of_two()[1].sum() == pytest.approx(1, abs=1e-6)
    assert_equal(gradient_of(returns.tree_leave_one_out, beta), exact_gradient(beta))
    # n / (n - 1) is 2 at every node.
    assert_equal(2 * gradient_of(returns.tree_changes, beta), exact_gradient(beta))


def test_ancestors_point_the_same_way_but_are_not_the_gradient():
    found, exact = gradient_of(returns.tree_ancestors, BETA), exact_gradient(BETA)
    cosine = torch.nn.functional.cosine_similarity(found, exact, dim=0)
    assert 0.9 < cosine < 0.999


@pytest.mark.parametrize("credit", CREDITS.values(), ids=CREDITS)
def test_at_the_optimum_of_the_leash_nothing_is_to_be_gained(credit):
    """There reward less penalty is the same for all answers to a prompt."""
    rollout, _ = all_trees(BETA)
    # What is left to earn at the end makes all answers alike, whatever was paid before.
    ends = rollout.mask & (rollout.mask.flip(1).cumsum(1).flip(1) == 1)
    full = rollout_of(range(len(ANSWERS)), range(len(ANSWERS)), BETA).rewards
    number = {tuple(row): n for n, row in enumerate(ANSWERS.tokens.tolist())}
    of = torch.tensor([number[tuple(row)] for row in rollout.tokens.tolist()])
    shared = full[of].where(~rollout.mask, 0.0)
    paid_before = shared[:, :2].sum(1)  # by the token that a continuation shares
    rest = torch.where(rollout.mask & ~ends, rollout.rewards, 0.0)
    rewards = rest + torch.where(ends, (0.7 - paid_before - rest.sum(1))[:, None], 0.0)
    advantages = credit(rewards, rollout.mask, rollout.parents, rollout.groups)
    torch.testing.assert_close(advantages, torch.zeros_like(advantages), atol=1e-9, rtol=0)


# ---------------------------------------------------------------- branches of a rollout


def by_letters(episodes):
    table = np.random.default_rng(3).random((3, 3, 3, 3))
    return [float(table[tuple((*e.tokens, 0, 0, 0, 0)[:4])]) for e in episodes]


OPTIONS = {
    "prompts": ["ab" * 6, "ba" * 6],
    "reward": by_letters,
    "tokenizer": Letters(2, stop=True),
    "max_new_tokens": 4,
    "group_size": 2,
}


def a_collector(num_envs=32, seed=0):
    envs = TextVectorEnv(num_envs, **OPTIONS)
    policy = TransformerPolicy.for_env(envs, n_layer=2, n_head=2, n_embd=16, seed=1)
    with torch.no_grad():
        policy.value_head.weight.normal_(generator=torch.Generator().manual_seed(0))
    return Collector(policy, envs, seed=seed)


def grown(collector, n=2):
    """A rollout of 32 answers; all that are long enough branch at two levels."""
    rollout = collector.collect_episodes(32)
    for level in (1, 2):
        at = [
            (s, int(own[level - before]))
            for s, own, before in owns(rollout)
            if 0 < level - before < len(own)
        ]
        rollout = collector.branch(rollout, at, n)
    return rollout


def owns(rollout):
    """Of each sequence: its number, its places, and how many were chosen before them."""
    for sequence in range(len(rollout)):
        own = rollout.mask[sequence].nonzero().flatten()
        yield sequence, own, int(own[0]) - int(rollout.prompt_lengths[sequence])


def test_branches_know_whom_they_branch_off():
    collector = a_collector()
    trunk = collector.collect_episodes(32)
    at = [(s, int(own[1])) for s, own, _ in owns(trunk) if len(own) > 1]
    tree = collector.branch(trunk, at, 3)
    assert len(at) > 3 and len(tree) == 32 + 3 * len(at)
    assert tree.parents.tolist() == [-1] * 32 + [s for s, _ in at for _ in range(3)]
    assert torch.equal(tree.tokens[:32, : trunk.tokens.shape[1]], trunk.tokens)
    for number, (sequence, place) in enumerate(at):
        for child in range(32 + 3 * number, 32 + 3 * number + 3):
            assert torch.equal(tree.tokens[child, :place], tree.tokens[sequence, :place])
            assert tree.mask[child].nonzero()[0] == place
            assert tree.groups[child] == tree.groups[sequence]
            assert tree.prompt_lengths[child] == tree.prompt_lengths[sequence]
            assert tree.terminated[child]
    again = grown(a_collector())
    deeper = again.parents >= 32  # branches of branches
    assert deeper.any() and torch.equal(grown(a_collector()).tokens, again.tokens)
    assert len(again.select(torch.arange(9))) == 9  # starts and records came along


def test_a_selection_and_two_rollouts_keep_their_trees():
    tree = grown(a_collector())
    whole = (tree.groups == tree.groups[-1]).nonzero().flatten()
    some = tree.select(whole)
    assert [int(whole[p]) if p >= 0 else -1 for p in some.parents] == tree.parents[whole].tolist()
    assert (tree.select(torch.tensor([len(tree) - 1])).parents == -1).all()
    both = Rollout.cat([tree, tree])
    shifted = torch.where(tree.parents >= 0, tree.parents + len(tree), -1)
    assert torch.equal(both.parents, torch.cat([tree.parents, shifted]))


def test_where_nothing_can_branch():
    collector = a_collector()
    trunk = collector.collect_episodes(32)
    assert (collector.branch(trunk, [], 3).parents == -1).all()
    with pytest.raises(ValueError, match="position 0 of sequence 0 is none of those chosen"):
        collector.branch(trunk, [(0, 0)], 3)
    with pytest.raises(ResetOptionsError):
        collector.collect_from([])


# ---------------------------------------------------------------- encoded once


def texts_before_choices(rollout):
    """All distinct texts that end before a chosen token."""
    return {
        tuple(rollout.tokens[s, : p - n].tolist())
        for s, places, _ in owns(rollout)
        for p in places.tolist()
        for n in range(p)
    }


@pytest.mark.parametrize("kind", ["ours", "gpt2"])
def test_an_update_reads_every_text_of_a_tree_once(kind):
    tree = grown(a_collector())
    policy = a_policy(kind)
    before = policy.encoded_tokens
    policy.outputs(tree.tokens, tree.mask)
    texts = texts_before_choices(tree)
    assert policy.encoded_tokens - before == len(texts)
    assert len(texts) < 0.25 * sum(int(own[-1]) for _, own, _ in owns(tree))


def a_policy(kind):
    if kind == "ours":
        return a_collector().policy
    transformers = pytest.importorskip("transformers")
    from policies.huggingface import HuggingFacePolicy

    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=3, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    return HuggingFacePolicy(transformers.GPT2LMHeadModel(config), Letters(2, stop=True))


def test_both_networks_of_a_policy_with_a_critic_read():
    tree, ours = grown(a_collector()), a_policy("ours")
    both = SeparateValue(ours, a_policy("ours"))
    both.outputs(tree.tokens, tree.mask)
    assert both.encoded_tokens == 2 * ours.encoded_tokens == 2 * len(texts_before_choices(tree))


@pytest.mark.parametrize("kind", ["ours", "gpt2"])
def test_gradients_of_a_tree_are_those_of_a_pass_that_shares_nothing(kind):
    tree, policy = grown(a_collector()), a_policy(kind)
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=tree.mask.shape)).float()

    def gradients():
        policy.zero_grad()
        sum((x * weights).sum() for x in policy.outputs(tree.tokens, tree.mask)).backward()
        return [p.grad.clone() for p in policy.parameters() if p.grad is not None]

    shared, own = gradients(), type(policy).hidden_before
    before = policy.encoded_tokens
    type(policy).hidden_before = Policy.hidden_before
    try:
        apart = gradients()
    finally:
        type(policy).hidden_before = own
    assert policy.encoded_tokens - before == sum(int(own[-1]) for _, own, _ in owns(tree))
    assert len(shared) > 20
    for one, other in zip(shared, apart, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("num_envs", [512, 16])
def test_continuations_of_one_text_read_it_once(num_envs):
    trunk, collector = a_collector().collect_episodes(32), a_collector(num_envs)
    at = [(s, int(p)) for s, own, _ in owns(trunk) for p in own]
    played = collector.collect_from([trunk.start(s, p) for s, p in at], 4)
    # The texts, all that begins one of them, and what was chosen behind: each answer's last token
    # of the text is read again for its hidden state.
    texts = {tuple(trunk.tokens[s, :n].tolist()) for s, p in at for n in range(1, p)}
    chosen = int(played.mask.sum())
    encoded = collector.report()["rollout_encoded_tokens"]
    again = encoded - len(texts) - chosen
    if num_envs == 512:  # a pass of its own for fewer tokens would not pay
        assert 0 <= again < WORTH_A_PASS
    else:  # a row that takes the next start may lose what others needed
        assert 0 <= again < 0.1 * encoded
    assert len(texts) < 80 and 4 * sum(p for _, p in at) > 900  # read anew in each row


def test_an_update_tells_how_many_tokens_were_read():
    envs = TextVectorEnv(8, **OPTIONS)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16)
    learner = Learner(policy, envs, TreePO(segment_tokens=1, n_epochs=3), n_episodes=8, seed=0)
    metrics = learner.update().metrics
    read = metrics["rollout_encoded_tokens"] + metrics["update_encoded_tokens"]
    assert read == policy.encoded_tokens
    # Every epoch reads all texts of the tree, grown before the first step.
    assert metrics["update_encoded_tokens"] % 3 == 0


# ---------------------------------------------------------------- the algorithm


def test_a_tree_grows_level_by_level_within_its_budget():
    for budget in (0.5, 2.0, 100.0):
        collector = a_collector()
        trunk = collector.collect_episodes(32)
        tree = TreePO(segment_tokens=1, branches=2, budget=budget).look_ahead(
            trunk, collector.collect_from
        )
        spent = tree.num_tokens - trunk.num_tokens
        if budget < 100:  # lengths are not known before; the last one does not fit
            assert 0.8 * budget * trunk.num_tokens < spent <= 1.1 * budget * trunk.num_tokens
            continue
        children = returns.tree_of(tree.rewards, tree.mask, tree.parents, tree.groups).children
        assert {*children.tolist()} == {2, 3}  # two answers to each prompt, three at each branch
        # An answer that is over at a level does not branch there.
        longest = max(len(own) + before for _, own, before in owns(tree))
        assert longest == 4


def test_one_level_has_the_given_segments():
    tree = TreePO(segment_tokens=2, branches=1, budget=100.0).look_ahead(
        (trunk := a_collector().collect_episodes(32)), a_collector().collect_from
    )
    assert {before for _, _, before in owns(tree)} == {0, 2}
    assert len(tree) == 32 + sum(len(own) > 2 for _, own, _ in owns(trunk))


def test_options():
    with pytest.raises(OptionError, match="segment_tokens"):
        TreePO(segment_tokens=0)
    with pytest.raises(OptionError, match="credit is 'gae'"):
        TreePO(credit="gae")
    assert TreePO(credit=returns.tree_changes).credit is returns.tree_changes
    assert Start(Prompt("a")).ids == []


def test_who_is_alone_and_cannot_branch_is_told_so():
    envs = TextVectorEnv(8, **{**OPTIONS, "group_size": 1})
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16)
    learner = Learner(policy, envs, TreePO(segment_tokens=4), n_episodes=8, seed=0)
    with pytest.warns(NothingToLearnWarning, match="segment_tokens=4"):
        update = learner.update()
    assert update.metrics["grad_norm"] == 0
