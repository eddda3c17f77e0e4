"""What is read through the rows of a search is what a whole pass says."""

import numpy as np
import pytest
import torch
from test_searching import small_policy

from agents.search import PrefixReader
from policies import SeparateValue

torch.set_num_threads(1)


def expected(policy, text, temperature):
    with torch.inference_mode():
        hidden = policy.last_hidden(np.array([text]))
        return policy.choices(hidden)[0] / temperature, policy.value_head(hidden).item()


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_any_order_of_texts_with_any_number_of_rows(rows, temperature):
    policy = SeparateValue(small_policy(1), small_policy(2))
    torch.nn.init.normal_(policy.value_head.weight)
    reader = PrefixReader(policy, rows, 8, temperature)
    rng = np.random.default_rng(rows)
    for _ in range(12):
        lengths = rng.integers(1, 7, size=rng.integers(1, 6))
        texts = [tuple(rng.integers(0, 2, size=length).tolist()) for length in lengths]
        read = reader.read([*texts, texts[0]])  # equal ones are read once
        for place, text in enumerate([*texts, texts[0]]):
            logits, value = expected(policy, text, temperature)
            torch.testing.assert_close(read.logits[place], logits, atol=1e-5, rtol=1e-4)
            assert read.values[place] == pytest.approx(value, abs=1e-5)
        assert read.encoded[-1] == 0 or len(texts) == 1
        assert (read.encoded >= 0).all()


def test_a_text_that_goes_on_costs_one_token():
    reader = PrefixReader(small_policy(), 4, 8)
    assert reader.read([(0, 1, 0)]).encoded.tolist() == [3]
    assert reader.read([(0, 1, 0, 1)]).encoded.tolist() == [1]
    # A branch of three texts: two go on from what others hold.
    assert reader.read([(0, 1, 0, 0), (0, 1, 1), (1,)]).encoded.tolist() == [1, 1, 1]
