"""Self-instruct with a scripted model: filters one by one, and the loop."""

import numpy as np
import pytest

from agents.feedback import self_instruct
from agents.feedback.from_models.self_instruct import (
    Filters,
    Instruction,
    Known,
    Report,
    read_instructions,
)
from textenv.errors import PromptError

pytest.importorskip("rouge_score", reason="rouge_score is not installed")

SEEDS = [
    Instruction("Say what the weather will be like.", "", "It will rain."),
    Instruction("Name the opposite of a word.", "cold", "hot"),
    Instruction("Is this sentence rude?", "Go away!", "yes", True),
]


class Model:
    """Makes up the instructions in a list; inputs and answers follow from them."""

    def __init__(self, *replies, labels=("yes", "no")):
        self.replies, self.labels, self.asked = list(replies), labels, []

    def choose(self, questions, options=("A", "B")):
        yes = np.array([float("rude" in q or "Judge" in q) for q in questions])
        return np.stack([yes, 1 - yes], 1)

    def write(self, requests):
        self.asked += requests
        return [self._one(request) for request in requests]

    def _one(self, request):
        if request.startswith("Here are"):
            return self.replies.pop(0) if self.replies else ""
        if "List the possible" in request:
            return "\n".join(f"{n}. {label}" for n, label in enumerate(self.labels, start=1))
        if "to which the right answer is" in request:
            return "input for " + request.split("right answer is '")[1].split("'")[0]
        if "Write one input" in request:
            return "None." if "story" in request else "some input"
        return f"answer to {request}"


def known(*texts):
    of = Known()
    for text in texts:
        of.add(text)
    return of


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Write a story.", None),
        ("Write stories", "too short"),
        ("写 诗", "too short"),
        ("写一首诗", None),
        ("word " * 151, "too long"),
        ("- write a story", "begins with a sign"),
        ("Draw a picture of home.", "keyword draw"),
        ("Write what the drawing shows.", None),  # whole words only
        ("Name the opposite of a word.", "known already"),
        ("Name the opposite of this word.", "much like a known one"),
        ("Name the capital of this country.", None),
    ],
)
def test_filters(text, fault):
    assert Filters().fault(text, known("Name the opposite of a word.")) == fault


def test_filters_may_be_others():
    of = known("Name the opposite of a word.")
    assert Filters(similar=0.3).fault("Name the capital of this country.", of) is not None
    assert Filters(keywords=("capital",)).fault("Name the capital.", of) == "keyword capital"
    assert Filters(shortest=5).fault("Write a story.", of) == "too short"


def test_the_nearest_is_the_largest_rouge_l():
    of = known("a b c d", "b a c", "x y")
    # By hand: "a b c" has a b c with the first (F1 of 3/3 and 3/4), and two with the second.
    assert of.nearest("a b c") == pytest.approx(2 * 1 * 0.75 / 1.75)
    assert of.nearest("a b c", 0.9) == 0 == of.nearest("q r")
    assert known("写一首关于大海的诗").nearest("写一首关于天空的诗") == pytest.approx(7 / 9)


def test_reading_instructions():
    assert read_instructions(" 9. Name a bird. \n10) Say no.\nand more") == [
        "Name a bird.",
        "Say no.",
    ]
    assert read_instructions("Name a bird.\nIt sings.") == ["Name a bird."]
    assert read_instructions("") == []


def test_instructions_get_inputs_and_answers():
    report = Report()
    model = Model("4. Tell a short story.\n5. Judge this sentence's tone.\n6. Rhyme with a word.")
    made = list(self_instruct(model, SEEDS, 3, report=report, at_once=1))
    story, rhyme, yes, no = made
    assert story == Instruction("Tell a short story.", "", "answer to Tell a short story.")
    assert rhyme.input == "some input" and rhyme.output.endswith("some input")
    assert [(one.input, one.output, one.label) for one in (yes, no)] == [
        ("input for yes", "yes", True),
        ("input for no", "no", True),
    ]
    assert report.kept == 3 and not report.dropped
    assert all(seed.instruction in model.asked[0] for seed in SEEDS)


def test_what_is_dropped_is_counted_and_nothing_is_known_twice():
    report = Report()
    same = "4. Tell a short story.\n5. Draw a house for me.\n6. No."
    model = Model(same, same, "7. Count to a given number.")
    made = list(self_instruct(model, SEEDS, 2, report=report, at_once=1))
    assert [one.instruction for one in made] == [
        "Tell a short story.",
        "Count to a given number.",
    ]
    assert report.dropped == {"keyword draw": 2, "too short": 2, "known already": 1}
    assert report.examples["keyword draw"] == "Draw a house for me."
    assert "Tell a short story." not in model.asked[0]


def test_made_up_ones_are_a_quarter_of_what_is_shown():
    seeds = [Instruction(f"Seed number {n} {'x' * n}.", "", "a") for n in range(10)]
    own = [Instruction(f"Made up {n} {'y' * n}.", "", "a") for n in range(10)]
    model = Model("9. Tell a short story.")
    list(self_instruct(model, seeds, 1, made=own, shown=8, at_once=1))
    assert model.asked[0].count("Seed") == 6 and model.asked[0].count("Made up") == 2


def test_a_model_that_makes_nothing_up_ends():
    report = Report()
    model = Model(*["Name the opposite of a word."] * 50)
    assert list(self_instruct(model, SEEDS, 5, most_requests=7, at_once=3, report=report)) == []
    assert report.dropped == {"known already": 7} and len(model.asked) == 7


@pytest.mark.parametrize(
    ("labels", "reason"),
    [(("yes",), "fewer than two labels"), (("",), "fewer than two labels")],
)
def test_labels_that_are_none(labels, reason):
    report = Report()
    model = Model("4. Judge this sentence's tone.", labels=labels)
    assert list(self_instruct(model, SEEDS, 1, most_requests=1, report=report)) == []
    assert report.dropped[reason] == 1 and report.kept == 0


def test_an_input_has_one_label():
    class Same(Model):
        def _one(self, request):
            return "the same" if "right answer is" in request else super()._one(request)

    report = Report()
    model = Same("4. Judge this sentence's tone.")
    assert list(self_instruct(model, SEEDS, 1, most_requests=1, report=report)) == []
    assert report.dropped == {
        "one input for two labels": 1,
        "fewer than two labels with inputs": 1,
    }


def test_no_seeds():
    with pytest.raises(PromptError, match="a few instructions to begin with"):
        next(self_instruct(Model(), [], 1))


def test_records_come_back():
    assert [Instruction.from_record(one.to_record()) for one in SEEDS] == SEEDS
    with pytest.raises(ValueError, match="a seed has an 'instruction'"):
        Instruction.from_record({"instruction": " "})
