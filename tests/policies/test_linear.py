"""Packed weights change nothing but the time that products take."""

import copy

import pytest
import torch
from hf_models import make, uncached
from torch import nn

from policies import kernels, linear
from policies.linear import FEW_ROWS, Linear, pack_layers

torch.set_num_threads(1)
TEXTS = [[1, 2, 3], [4], [5, 6, 0, 1, 2]]


@pytest.fixture(autouse=True, params=["panels", "oneDNN"])
def everything_is_packed(request, monkeypatch):
    monkeypatch.setattr(linear, "packing_pays", lambda: True)
    monkeypatch.setattr(kernels, "panels_fit", lambda: request.param == "panels")
    monkeypatch.setattr(linear, "LARGE", 1)


def packed_layers(module):
    return [m for m in module.modules() if isinstance(m, Linear) and m._packed._made is not None]


@pytest.mark.parametrize("shape", [(5, 8), (1, 5, 8), (FEW_ROWS + 1, 8)])
def test_products(shape):
    layer, x = Linear(8, 6), torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias)
    assert len(packed_layers(layer)) == (shape[0] <= FEW_ROWS)


def test_changed_and_exchanged_weights_are_packed_anew():
    layer, x = Linear(8, 6), torch.randn(5, 8)

    def agrees():
        with torch.inference_mode():
            torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias)

    agrees()
    with torch.no_grad():
        layer.weight.mul_(2)
    agrees()
    layer.weight = nn.Parameter(torch.randn(6, 8))
    agrees()
    with torch.no_grad():
        layer.bias.add_(1)
    agrees()


def test_rows_that_do_not_lie_side_by_side():
    layer, x = Linear(8, 6), torch.randn(8, 10)
    with torch.inference_mode():
        for rows in (x.T, x[:, 1:9], x[::2, :8], x[None, :, :8].expand(3, 8, 8)):
            torch.testing.assert_close(layer(rows), rows @ layer.weight.T + layer.bias)


@pytest.mark.parametrize("family", ["llama", "gpt neox", "t5"])
def test_someone_elses_model(family):
    policy = make(family)
    names, expected = list(policy.state_dict()), uncached(policy, TEXTS)
    policy.pack_weights()
    assert list(policy.state_dict()) == names
    with torch.inference_mode():
        got = uncached(policy, TEXTS)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    assert packed_layers(policy.model)


def test_a_copy_packs_its_own_weights():
    model = nn.Sequential(nn.Linear(8, 6))
    pack_layers(model)
    x = torch.randn(2, 8)
    with torch.inference_mode():
        model(x)
    copied = copy.deepcopy(model)
    assert packed_layers(model) and not packed_layers(copied)
    with torch.no_grad():
        copied[0].weight.zero_()
    with torch.inference_mode():
        torch.testing.assert_close(copied(x), copied[0].bias.expand(2, 6))


def test_gradients_and_adapters():
    peft = pytest.importorskip("peft")
    model = nn.Sequential(nn.Linear(8, 6))
    pack_layers(model)
    adapted = peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["0"]), model)
    x = torch.randn(2, 8)
    with torch.no_grad():
        plain = adapted(x)
    with torch.inference_mode():
        torch.testing.assert_close(adapted(x), plain)
    adapted(x).sum().backward()
    gradients = [p.grad for name, p in adapted.named_parameters() if "lora_B" in name]
    assert len(gradients) == 1 and gradients[0].abs().sum() > 0
