"""Models of Hugging Face that are divided among processes."""

import open_models
import pytest
import torch
from processes import in_processes


@pytest.mark.slow
def test_models_of_hugging_face_train_sharded_as_whole_ones(tmp_path):
    open_models.publish_all(str(tmp_path))
    (one,) = in_processes(1, open_models.all_of, str(tmp_path), False)
    for ranks in (
        in_processes(2, open_models.all_of, str(tmp_path), False),
        in_processes(2, open_models.all_of, str(tmp_path), True),
    ):
        for rank in ranks:
            for case, expected in one.items():
                found = rank[case]
                for mine, its in zip(found["tokens"], expected["tokens"], strict=True):
                    assert torch.equal(mine, its)
                assert found["losses"] == pytest.approx(expected["losses"], abs=1e-5)
                size = expected["weights"].norm()
                assert (found["weights"] - expected["weights"]).norm() <= 1e-4 * size
                assert found["saved"]
