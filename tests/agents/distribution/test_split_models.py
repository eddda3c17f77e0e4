"""Tensor parallel: layers on two processes compute, and learn, what they do on one."""

import pytest
import split_models
import torch
from processes import in_processes
from published import publish

from agents.distribution.tensor_parallel import split
from policies import HuggingFacePolicy
from textenv.errors import UnmetNeedError


@pytest.mark.slow
def test_a_model_on_two_processes_learns_as_on_one(tmp_path):
    folder = str(tmp_path / "llama")
    split_models.publish_llama(folder)
    publish(f"{folder}-narrow", "llama")
    (one,) = in_processes(1, split_models.all_of, folder, False)
    ranks = in_processes(2, split_models.all_of, folder, True)
    for rank in ranks:
        for name, expected in one.items():
            found = rank[name]
            for mine, its in zip(found.get("tokens", ()), expected.get("tokens", ()), strict=True):
                assert torch.equal(mine, its)
            for part in ("before", "after"):
                if part in expected:
                    torch.testing.assert_close(found[part], expected[part], atol=1e-4, rtol=0)
            assert found["losses"] == pytest.approx(expected["losses"], abs=1e-5)
            for part in {"gradient", "weights"} & expected.keys():
                apart = (found[part] - expected[part]).norm() / expected[part].norm()
                print(name, part, float(apart))
                assert apart <= 1e-5
            assert torch.equal(found["weights"], ranks[0][name]["weights"])
        assert rank["ppo"]["held"] < 0.85 * one["ppo"]["held"]
        assert torch.equal(rank["resumed"]["weights"], rank["ppo"]["weights"])


def test_without_a_process_group_nothing_is_split(tmp_path):
    publish(tmp_path, "llama")
    with pytest.raises(UnmetNeedError, match="no process group"):
        split(HuggingFacePolicy.from_pretrained(tmp_path))
