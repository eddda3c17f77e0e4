import pytest
from text_policies import text_policy

from agents.evaluation.prompting import Worked
from agents.evaluation.reasoning import compare_ways, majority, self_consistency, ways_table


def test_the_majority_of_what_could_be_read():
    assert majority(["7", "8", "8", None])[:2] == ("8", 0.5)
    assert majority(["7", "8"]).answer == "7"  # the first of equals
    assert majority([None, None]) == (None, 0.0, (None, None))
    assert majority([]) == (None, 0.0, ())


@pytest.fixture(scope="module")
def policy():
    return text_policy("ours")


def first(text):
    return text[:1] or None


def test_votes_are_over_samples_of_each_prompt(policy):
    prompts = ["The cat", "a b"]
    votes = self_consistency(policy, prompts, first, samples=6, max_new_tokens=3, seed=4)
    assert [len(vote.answers) for vote in votes] == [6, 6]
    again = self_consistency(policy, prompts, first, samples=6, max_new_tokens=3, seed=4)
    assert votes == again
    assert votes[0].share == votes[0].answers.count(votes[0].answer) / 6
    (certain,) = self_consistency(
        policy, prompts[:1], first, samples=3, temperature=0, max_new_tokens=3
    )
    assert certain.share == 1 and len(set(certain.answers)) == 1


def test_ways_are_compared_on_the_same_questions(policy):
    likeliest = [t[:1] for t in policy.generate(["The cat", "a b"], 3, temperature=0)]
    questions = [Worked("The cat", likeliest[0]), Worked("a b", "never said")]
    plain, nothing = compare_ways(
        policy,
        questions,
        {"plain": lambda question: question, "nothing": lambda question: "ab"},
        read=first,
        samples=5,
        max_new_tokens=3,
    )
    assert plain.greedy.mean == 0.5 and plain.way == "plain"
    assert 0 <= plain.sampled.mean <= 0.5 and plain.voted.mean in (0, 0.5)
    assert 0 < plain.tokens < 10  # of at most three, encoded anew
    assert nothing.way == "nothing"
    table = ways_table([plain, nothing], "ways")
    assert table.row_count == 2 and len(table.columns) == 5


def test_a_vote_is_right_more_often_than_its_samples(policy):
    """Condorcet: where the right answer is the likeliest one, a vote finds it."""
    prompt = ["The cat"]
    (votes,) = self_consistency(policy, prompt, first, samples=400, max_new_tokens=1)
    right = votes.answer
    shares = [
        vote.answer == right
        for seed in range(12)
        for vote in self_consistency(policy, prompt, first, samples=64, max_new_tokens=1, seed=seed)
    ]
    assert sum(shares) / len(shares) > votes.share
