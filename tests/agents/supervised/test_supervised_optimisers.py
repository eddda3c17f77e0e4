"""Muon and AdamW together: who learns what, at which rate, and what a checkpoint keeps."""

import copy

import numpy as np
import pytest
import torch
from torch.optim import AdamW, Muon

from agents.supervised import Fitting, adamw, muon, next_token_loss, pretraining_steps
from policies import RewardModel, TransformerConfig, TransformerPolicy
from textenv.tokenizers import load_tokenizer

STREAM = np.random.default_rng(0).integers(0, 50, 2000)


def policy(tied=True):
    config = TransformerConfig.llama(50, 16, n_layer=2, n_head=2, n_embd=8, tied=tied)
    return TransformerPolicy(config, seed=0)


def names_of(model, parameters):
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    return {by_id[id(parameter)] for parameter in parameters}


@pytest.mark.parametrize("tied", [True, False])
def test_muon_has_the_matrices_inside_and_adamw_the_rest(tied):
    model = policy(tied)
    matrices, others = muon(model, 1e-3, 0.1).parts
    assert isinstance(matrices, Muon) and isinstance(others, AdamW)
    hidden = names_of(model, [p for group in matrices.param_groups for p in group["params"]])
    rest = names_of(model, [p for group in others.param_groups for p in group["params"]])
    assert hidden | rest == {name for name, _ in model.named_parameters()} and not hidden & rest
    assert len(hidden) == 8 and all("blocks" in name for name in hidden)


def test_a_head_of_scores_and_frozen_matrices_are_left_out():
    tokenizer = load_tokenizer("bytes")
    config = TransformerConfig.llama(tokenizer.vocab_size, 16, n_layer=2, n_head=2, n_embd=8)
    model = RewardModel.from_policy(TransformerPolicy(config, tokenizer=tokenizer, seed=0))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("blocks.0" not in name)
    matrices, _ = muon(model, 1e-3, 0.1).parts
    hidden = names_of(model, [p for group in matrices.param_groups for p in group["params"]])
    assert len(hidden) == 4 and all("blocks.1" in name for name in hidden)


def test_one_step_is_that_of_torch_on_each_part():
    model, other = policy(), policy()
    fitting = Fitting(model, steps=10, learning_rate=2e-3, max_grad_norm=1e9, optimizer=muon)
    windows = STREAM[: 4 * 17].reshape(4, 17)
    rate = fitting.step([next_token_loss(model, windows)]).learning_rate
    assert {group["lr"] for part in fitting.optimizer.parts for group in part.param_groups} == {
        rate
    }
    next_token_loss(other, windows).backward()
    name = "transformer.blocks.1.mlp_in.weight"
    weight = dict(other.named_parameters())[name]
    Muon([weight], rate, 0.1, adjust_lr_fn="match_rms_adamw").step()
    torch.testing.assert_close(dict(model.named_parameters())[name], weight)


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path):
    def run(model, fitting, until):
        steps = pretraining_steps(
            model, STREAM, total_tokens=640, window=16, batch_size=4, fitting=fitting
        )
        for step in steps:
            if step.number == until:
                return

    whole, stopped = policy(), policy()
    run(whole, Fitting(whole, steps=10, learning_rate=1e-2, optimizer=muon), 10)
    fitting = Fitting(stopped, steps=10, learning_rate=1e-2, optimizer=muon)
    run(stopped, fitting, 4)
    fitting.save(tmp_path)
    again = copy.deepcopy(stopped)
    resumed = Fitting(again, steps=10, learning_rate=1e-2, optimizer=muon)
    resumed.load(tmp_path)
    run(again, resumed, 10)
    assert all(map(torch.equal, whole.parameters(), again.parameters()))


def test_vectors_are_not_decayed():
    model = policy()
    others = [group for part in muon(model, 1e-3, 0.1).parts[1:] for group in part.param_groups]
    for group in [*others, *adamw(model, 1e-3, 0.1).param_groups]:
        assert all((p.dim() >= 2) == (group["weight_decay"] > 0) for p in group["params"])
