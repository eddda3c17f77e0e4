"""Optimisers of other libraries, whose states take less memory than fp32."""

import pytest
import torch
from letters import Letters
from torch.optim import AdamW

from agents import PPO, Learner
from agents.distribution.optimizer_files import load_whole_state
from agents.runs.state_files import read_state, write_state
from policies import TransformerPolicy
from textenv import TextVectorEnv
from textenv.errors import CheckpointError

torch.set_num_threads(1)


def bitsandbytes_adamw():
    """Quantises from 4,096 entries a parameter on."""
    reason = "bitsandbytes is not installed: pip install 'textenv[8bit]'"
    return pytest.importorskip("bitsandbytes", reason=reason).optim.AdamW8bit


def torchao_adamw(name):
    return getattr(pytest.importorskip("torchao.optim", reason="torchao is not installed"), name)


OPTIMIZERS = {
    "fp32": lambda: torch.optim.AdamW,
    "compiled": lambda: lambda parameters, lr: torch.optim.AdamW(parameters, torch.tensor(lr)),
    "bitsandbytes 8 bits": bitsandbytes_adamw,
    "torchao 8 bits": lambda: torchao_adamw("AdamW8bit"),
    "torchao 4 bits": lambda: torchao_adamw("AdamW4bit"),
    "torchao fp8": lambda: torchao_adamw("AdamWFp8"),
}


@pytest.fixture(params=OPTIMIZERS)
def optimizer(request):
    """torchao compiles its steps; here they run as they are written."""
    made = OPTIMIZERS[request.param]()
    with torch.compiler.set_stance("force_eager"):
        yield request.param, made


def make_learner(optimizer, seed=0):
    envs = TextVectorEnv(
        8,
        prompts=["ab", "c"],
        reward=lambda episodes: [sum(e.tokens == 3) / len(e.tokens) for e in episodes],
        tokenizer=Letters(7),
        max_new_tokens=6,
        stop_tokens=[0],
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=64, seed=seed)
    return Learner(
        policy,
        envs,
        PPO(n_epochs=2),
        n_steps=12,
        optimizer=optimizer,
        learning_rate=lambda done: 0.01 / (1 + done),
        seed=0,
    )


def state_bytes(optimizer):
    """What is kept for the parameters; tables that several have in common count once."""
    storages = {}

    def add(value):
        if hasattr(value, "__tensor_flatten__") and type(value) is not torch.Tensor:
            for name in value.__tensor_flatten__()[0]:
                add(getattr(value, name))
        elif isinstance(value, torch.Tensor):
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()

    for state in optimizer.state.values():
        for value in state.values():
            add(value)
    return sum(storages.values())


def test_it_learns_and_a_resumed_run_is_the_uninterrupted_one(optimizer, tmp_path):
    name, make = optimizer
    one = make_learner(make)
    first = [one.update(fraction_done=0.1 * i).score for i in range(2)]
    one.save(tmp_path)
    other = make_learner(make, seed=1)
    other.update()  # whatever it has learned goes
    other.load(tmp_path)
    for i in range(2):
        expected, got = (learner.update(fraction_done=0.2 + 0.1 * i) for learner in (one, other))
        assert got.metrics["learning_rate"] == pytest.approx(0.01 / (1.2 + 0.1 * i))
        assert got.score == expected.score
    for a, b in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [type(v) for s in one.optimizer.state.values() for v in s.values()] == [
        type(v) for s in other.optimizer.state.values() for v in s.values()
    ]
    for _ in range(4):
        last = one.update().score
    assert last > sum(first) / 2 + 0.1, name


def test_bytes_of_the_states(optimizer):
    name, make = optimizer
    learner = make_learner(make)
    learner.update()
    size = sum(p.numel() for p in learner.trained)
    per_parameter = {"fp32": 8.0, "compiled": 8.0, "torchao 4 bits": 1.3}.get(name, 2.3)
    assert state_bytes(learner.optimizer) / size == pytest.approx(per_parameter, rel=0.12)


def test_a_tensor_of_an_unknown_class_is_refused(tmp_path):
    from torch.nested._internal.nested_tensor import NestedTensor

    nested = torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged)
    assert isinstance(nested, NestedTensor)
    with pytest.raises(CheckpointError, match=r"/state is a .*NestedTensor.*plain tensors"):
        write_state(tmp_path, "optimizer", {"state": nested})


def test_a_file_cannot_name_another_class(tmp_path):
    write_state(tmp_path, "optimizer", {"dtype": torch.bfloat16})
    assert read_state(tmp_path, "optimizer")["dtype"] is torch.bfloat16
    path = tmp_path / "optimizer.json"
    plain = (
        '{"dict": [["format", 1], ["x", {"quantised": ["system", {"dict": []}, {"list": []}]}]]}'
    )
    path.write_text(plain, encoding="utf-8")
    with pytest.raises(CheckpointError, match="class system"):
        read_state(tmp_path, "optimizer")


@pytest.mark.parametrize("capturable", [False, True])
def test_a_state_goes_where_the_parameters_are(capturable):
    """As `load_state_dict` does it, which cannot divide what it is given."""
    saved = AdamW([torch.nn.Parameter(torch.ones(3))])
    saved.param_groups[0]["params"][0].grad = torch.ones(3)
    saved.step()
    state = saved.state_dict()
    state["param_groups"][0]["capturable"] = capturable
    found = []
    for load in (load_whole_state, AdamW.load_state_dict):
        there = AdamW([torch.nn.Parameter(torch.ones(3, device="meta"))])
        load(there, state)
        ((_, values),) = there.state.items()
        found.append({name: (value.device.type, value.dtype) for name, value in values.items()})
    assert found[0] == found[1]
    assert found[0]["exp_avg"][0] == "meta"
