"""The compiled loops against torch and float64, whatever the shapes and the number of threads."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from policies import TransformerConfig, TransformerPolicy, compiled, head, kernels, linear
from policies.compiled import elementwise, most_threads, panels, set_num_threads
from policies.compiled.notice import NOTICE, FirstCompilation
from policies.compiled.tile import MOST_ROWS, WIDTH

torch.set_num_threads(1)
ROOT = Path(compiled.__file__).parents[2]
CONFIG = TransformerConfig(vocab_size=13, context=40, n_layer=2, n_head=2, n_embd=20)
SEVERAL = pytest.mark.skipif(most_threads < 2, reason="needs two processors")


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def product(x, weight, threads=1):
    out = np.ones((len(x), len(weight)), np.float32)
    panels.add_product(x, panels.pack(weight), out, threads)
    return out


@settings(max_examples=60, deadline=None)  # the first call compiles
@given(
    rows=st.integers(1, 40),
    inputs=st.sampled_from([1, 7, 64, panels.CHUNK, panels.CHUNK + 1, 3 * panels.CHUNK - 5]),
    outputs=st.integers(1, 3 * WIDTH + 1),
)
def test_products_are_added(rows, inputs, outputs):
    x, weight = numbers(rows, inputs), numbers(outputs, inputs, seed=1)
    expected = 1 + x.astype(np.float64) @ weight.T.astype(np.float64)
    np.testing.assert_allclose(product(x, weight), expected, atol=3e-6 * inputs**0.5 + 1e-6)


@pytest.mark.parametrize("outputs", [WIDTH, 100])
def test_a_row_does_not_depend_on_its_batch(outputs):
    x, weight = numbers(33, 300), numbers(outputs, 300, seed=1)
    together = product(x, weight)
    for size in (1, 2, MOST_ROWS - 1, MOST_ROWS, MOST_ROWS + 1, 32):
        assert np.array_equal(product(x[:size], weight), together[:size])


@SEVERAL
@pytest.mark.parametrize("outputs", [5, WIDTH, 100, 1000])
def test_threads_change_no_bit_of_a_product(outputs):
    set_num_threads(2)
    x, weight = numbers(33, 300), numbers(outputs, 300, seed=1)
    assert np.array_equal(product(x, weight, threads=2), product(x, weight))


def test_a_nan_stays_in_its_row():
    x = numbers(8, 20)
    x[3] = np.nan
    out = product(x, numbers(20, 20, seed=1))
    assert np.isnan(out[3]).all() and not np.isnan(np.delete(out, 3, 0)).any()


def test_exponential():
    x = -np.linspace(0, 86.9, 100_001).astype(np.float32)
    got = np.array([elementwise.exp(v) for v in x])
    np.testing.assert_allclose(got, np.exp(x.astype(np.float64)), rtol=3e-7)
    assert elementwise.exp(np.float32(-88)) == elementwise.exp(np.float32(-np.inf)) == 0
    assert np.isnan(elementwise.exp(np.float32(np.nan)))


def test_gelu():
    x = np.concatenate([np.linspace(-12, 12, 100_001), [-1e30, 1e30]]).astype(np.float32)
    got = torch.from_numpy(np.array([elementwise.gelu(v) for v in x]))
    expected = F.gelu(torch.from_numpy(x).double())
    torch.testing.assert_close(got.double(), expected, atol=1e-6, rtol=1e-6)
    assert np.isnan(elementwise.gelu(np.float32(np.nan)))


def test_layer_norm():
    x, weight, bias = 100 + 3 * numbers(5, 37), numbers(37, seed=1), numbers(37, seed=2)
    got = elementwise.layer_norm(x, weight, bias, np.float32(1e-5))
    expected = F.layer_norm(
        *map(torch.from_numpy, (x,)), (37,), *map(torch.from_numpy, (weight, bias))
    )
    np.testing.assert_allclose(got, expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("compiles", [True, False])
@pytest.mark.parametrize("vocab_size", [1, 5, 127, 128, 129, 300])
def test_scores_and_their_gradients(vocab_size, compiles, monkeypatch):
    monkeypatch.setattr(kernels, "kernels_fit", lambda x: compiles)
    monkeypatch.setattr(head, "SLICE_ENTRIES", 4 * vocab_size)
    generator = torch.manual_seed(0)
    hidden = 3 * torch.randn(11, 6, generator=generator)
    weight = 3 * torch.randn(vocab_size, 6, generator=generator)
    tokens = torch.randint(0, vocab_size, (11,), generator=generator)
    masks = torch.rand(11, vocab_size, generator=generator) < 0.7
    masks[torch.arange(11), tokens] = True
    gradients = []
    for scores in (head.token_logprobs, by_log_softmax):
        kind = torch.float32 if scores is head.token_logprobs else torch.float64
        inputs = [x.to(kind, copy=True).requires_grad_() for x in (hidden, weight)]
        logprobs, entropies = scores(*inputs, tokens, 0.7, masks)
        (logprobs * torch.linspace(-1, 1, 11)).sum().add(entropies.sum()).backward()
        gradients.append([logprobs, entropies, *(x.grad for x in inputs)])
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got.double(), expected.double(), atol=2e-5, rtol=2e-5)
    with torch.no_grad():
        again = head.token_logprobs(hidden, weight, tokens, 0.7, masks)
    assert all(torch.equal(a, b) for a, b in zip(again, gradients[0][:2], strict=True))


def by_log_softmax(hidden, weight, tokens, temperature, masks):
    logits = (hidden @ weight.T).to(torch.promote_types(hidden.dtype, torch.float32))
    log_all = (logits / temperature).masked_fill(~masks, -1e9).log_softmax(1)
    entropies = -(log_all.exp() * log_all).sum(1)
    return log_all.gather(1, tokens[:, None]).squeeze(1), entropies


@pytest.mark.parametrize("peaked", [0.2, 1.3])  # 1.3: probabilities of 0.99
def test_scores_in_bfloat16_keep_half_the_memory(peaked, monkeypatch):
    monkeypatch.setattr(head, "SLICE_ENTRIES", 7 * 100)
    generator = torch.manual_seed(0)
    tokens = torch.randint(0, 100, (40,), generator=generator)
    weight = torch.randn(100, 64, generator=generator).bfloat16()
    hidden = peaked * weight[tokens]
    masks = torch.rand(40, 100, generator=generator) < 0.9
    masks[torch.arange(40), tokens] = True
    inputs = [x.requires_grad_() for x in (hidden, weight)]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        logprobs, _ = head.token_logprobs(*inputs, tokens, 8.0, masks)
    assert [x.dtype for x in saved if x.shape == (40, 100)] == [torch.bfloat16]
    found = []
    for chosen in (logprobs, by_log_softmax(*inputs, tokens, 8.0, masks)[0]):
        gradients = torch.autograd.grad((chosen * torch.linspace(-1, 1, 40)).sum(), inputs)
        found.append([chosen, *gradients])
    for low, exact in zip(*found, strict=True):
        assert (low.float() - exact.float()).norm() < 0.01 * exact.float().norm()


def test_nothing_is_kept_without_a_gradient(monkeypatch):
    made, empty = [], torch.Tensor.new_empty
    monkeypatch.setattr(
        torch.Tensor, "new_empty", lambda *a, **b: made.append(empty(*a, **b)) or made[-1]
    )
    monkeypatch.setattr(head, "SLICE_ENTRIES", 7 * 100)
    weight = torch.randn(100, 64).requires_grad_()
    with torch.no_grad():
        head.token_logprobs(torch.randn(40, 64), weight, torch.zeros(40, dtype=torch.int64))
    assert max(x.numel() for x in made) == 7 * 100


@SEVERAL
def test_threads_change_no_bit_of_scores():
    def scores():
        return head.token_logprobs(*map(torch.from_numpy, (numbers(9, 6), numbers(300, 6))), tokens)

    tokens = torch.arange(9)
    alone = scores()
    try:
        torch.set_num_threads(2)
        assert all(torch.equal(a, b) for a, b in zip(alone, scores(), strict=True))
    finally:
        torch.set_num_threads(1)


# ---------------------------------------------------------------- a block as one call


@pytest.fixture
def policy(monkeypatch):
    monkeypatch.setattr(linear, "packing_pays", lambda: True)
    monkeypatch.setattr(kernels, "panels_fit", lambda: True)
    policy = TransformerPolicy(CONFIG, seed=1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.manual_seed(2)))
    return policy


@pytest.fixture
def calls(monkeypatch):
    """Number of calls of compiled blocks."""
    count, call = [], kernels.Block.__call__

    def counted(self, *arguments):
        count.append(1)
        return call(self, *arguments)

    monkeypatch.setattr(kernels.Block, "__call__", counted)
    return count


def rollout(policy, steps=12):
    """Hidden states of rows of different lengths that grow, restart and jump."""
    rng = np.random.default_rng(3)
    rows = [list(rng.integers(0, 13, 1 + 3 * r)) for r in range(5)]
    cache, states = policy.new_cache(5), []
    for step in range(steps):
        observations = np.full((5, 40), 13)
        for row, tokens in zip(observations, rows, strict=True):
            row[: len(tokens)] = tokens
        states.append(policy.last_hidden(observations, cache).clone())
        for row, tokens in enumerate(rows):
            tokens += list(rng.integers(0, 13, 1 + (step + row) % 3))
            if len(tokens) > 35 or (step + row) % 7 == 6:
                rows[row] = list(rng.integers(0, 13, 1 + step))
    return torch.cat(states)


def by_torch(policy, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(kernels, "kernels_fit", lambda x: False)
        patched.setattr(linear, "packing_pays", lambda: False)
        return rollout(policy)


def test_a_block_is_what_torch_computes(policy, calls, monkeypatch):
    got = rollout(policy)
    assert calls
    expected = by_torch(policy, monkeypatch)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("change", ["step", "exchange", "state", "data"])
def test_changed_parameters_are_packed_anew(policy, change, monkeypatch):
    rollout(policy)
    block = policy.transformer.blocks[1]
    with torch.no_grad():
        if change == "step":
            for parameter in policy.parameters():
                parameter.mul_(1.5)
        elif change == "exchange":
            block.ln_2.bias = nn.Parameter(torch.randn(20))
        elif change == "state":
            block.load_state_dict({k: 2 * v for k, v in block.state_dict().items()}, assign=True)
        else:
            block.mlp_in.weight.data = torch.randn(80, 20)
    expected = by_torch(policy, monkeypatch)
    torch.testing.assert_close(rollout(policy), expected, atol=5e-5, rtol=1e-4)


def test_hooks_and_adapters_are_seen(policy, calls, monkeypatch):
    seen = []
    handle = policy.transformer.blocks[0].mlp_in.register_forward_hook(lambda *_: seen.append(1))
    rollout(policy, steps=2)
    assert len(seen) == 2 and len(calls) == 2  # the other block
    handle.remove()
    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(r=2, target_modules=["qkv"], init_lora_weights=False)
    peft.inject_adapter_in_model(adapter, policy.transformer)
    calls.clear()
    torch.testing.assert_close(rollout(policy), by_torch(policy, monkeypatch), atol=5e-5, rtol=1e-4)
    assert not calls


@SEVERAL
def test_threads_change_no_bit_of_a_rollout(policy):
    alone = rollout(policy)
    try:
        torch.set_num_threads(2)
        assert torch.equal(rollout(policy), alone)
        hidden = torch.randn(9, 20)
        uniforms = np.random.default_rng(0).random(9)
        shared = kernels.sample(hidden, uniforms)
    finally:
        torch.set_num_threads(1)
    for a, b in zip(shared, kernels.sample(hidden, uniforms), strict=True):
        assert np.array_equal(a, b)


@SEVERAL
def test_a_forked_process_goes_on_alone():
    program = """
import os, sys, numpy, torch
from policies import kernels
torch.set_num_threads(2)
logits, uniforms = torch.zeros(8, 50), numpy.linspace(0, 0.9, 8)
tokens = kernels.sample(logits, uniforms)[0]
child = os.fork()
if child == 0:
    os._exit(int(not numpy.array_equal(kernels.sample(logits, uniforms)[0], tokens)))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_gradients_and_many_tokens_go_through_torch(policy, calls):
    observations = np.arange(13)[None].repeat(2, 0)
    policy.read(torch.from_numpy(observations)).sum().backward()
    assert not calls and policy.transformer.blocks[0].qkv.weight.grad.abs().sum() > 0


def test_code_from_the_cache_finds_the_threads(tmp_path):
    """Compiled, then compiled with parts from the cache, then loaded: the last one crashed."""
    program = """
import numpy, torch
from policies import kernels
torch.set_num_threads(1)
kernels.sample(torch.zeros(2, 3), numpy.zeros(2))
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    notices = []
    for run in range(3):
        command = [sys.executable, "-c", program]
        done = subprocess.run(
            command, check=True, timeout=300, env=environment, capture_output=True, text=True
        )
        notices.append(done.stderr.count(NOTICE))
        assert done.stdout == ""
        if run == 0:
            caller = list(tmp_path.glob("*/sampling.sample-*"))
            assert caller
            for file in caller:
                file.unlink()
    assert notices == [1, 1, 0]  # told once in a process, and only if something is compiled


@pytest.mark.slow  # everything is compiled anew
def test_code_that_was_just_compiled_rounds_as_code_from_the_cache(tmp_path):
    """The first run of an installation must be the same as all later ones, to the last bit."""
    program = """
import hashlib, numpy, torch
from policies import TransformerConfig, TransformerPolicy, kernels
torch.set_num_threads(1)
made = []
for size in (7, 257, 300):
    logits, tokens = torch.randn(32, size, generator=torch.manual_seed(0)), torch.arange(32) % size
    logprobs, entropies = torch.zeros(32), torch.zeros(32)
    made += kernels.sample(logits, numpy.linspace(0, 0.99, 32))
    kernels.fill_logprobs(logits, tokens, logprobs, entropies)
    made += [logits, logprobs, entropies]
policy = TransformerPolicy(TransformerConfig(50, 40, 2, 2, 24), seed=0)
texts, cache = numpy.random.default_rng(0).integers(0, 50, (4, 20)), policy.new_cache(4, 20)
for length in (5, 6, 7, 20):
    seen = numpy.where(numpy.arange(20) < length, texts, policy.pad_token)
    made.append(policy.act(seen, cache).logprobs)
for one in made:
    print(hashlib.sha256(numpy.asarray(one).tobytes()).hexdigest())
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            timeout=300,
            env=environment,
            capture_output=True,
            text=True,
        ).stdout
        for _ in range(2)
    )
    assert first == second and first.count("\n") > 15


def compilation_of(function):
    """The event that Numba sends when it begins to compile `function`."""
    return SimpleNamespace(data={"dispatcher": SimpleNamespace(py_func=function)})


def test_a_function_of_the_user_without_a_module_is_compiled():
    """Numba calls our listener for it too."""
    scope = {}
    exec("def double(x):\n    return 2 * x", scope)
    assert scope["double"].__module__ is None
    assert numba.njit(scope["double"])(4) == 8


def test_the_notice_is_for_loops_of_this_package_and_told_once(capsys):
    listener = FirstCompilation()
    for function in (eval("lambda: 0", {}), numbers):
        listener.on_start(compilation_of(function))
    assert capsys.readouterr().err == ""
    for _ in range(2):
        listener.on_start(compilation_of(panels.add_product.py_func))
    assert capsys.readouterr().err == NOTICE + "\n"


def test_an_installation_without_a_folder_to_write_to(tmp_path):
    """Neither beside the code nor at home: a warning, and torch does the work."""
    for package in ("textenv", "policies"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    (tmp_path / "policies" / "compiled" / "__pycache__").touch()  # where a folder should be
    program = """
import numpy, torch
from policies import kernels, sampling
print(kernels.__file__, sampling.sample(torch.zeros(2, 3), numpy.zeros(2))[0])
"""
    nowhere = {"HOME": os.devnull, "XDG_CACHE_HOME": os.devnull, "PYTHONPATH": str(tmp_path)}
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | nowhere
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(tmp_path)) and done.stdout.endswith("[0 0]\n")
    assert "Set NUMBA_CACHE_DIR" in done.stderr and NOTICE not in done.stderr


def test_code_that_is_older_than_what_it_calls_is_compiled_anew():
    folder = Path(compiled.__file__).parent
    newest = max(file.stat().st_mtime for file in folder.glob("*.py"))
    old, new = (folder / "__pycache__" / f"{name}.test.nbi" for name in ("old", "new"))
    for index, seconds in ((old, -1), (new, 1)):
        index.parent.mkdir(exist_ok=True)
        index.touch()
        os.utime(index, (newest + seconds, newest + seconds))
    subprocess.run([sys.executable, "-c", "import policies.compiled"], check=True)
    assert not old.exists() and new.exists()
    new.unlink()


def test_bits_do_not_depend_on_where_arrays_lie():
    """Small arrays may lie closer together than what a loop handles at a time."""
    policy = TransformerPolicy(TransformerConfig(13, context=12, n_layer=2, n_head=2, n_embd=16))
    with torch.no_grad():
        for number, parameter in enumerate(policy.parameters()):
            parameter.add_(0.3 * torch.from_numpy(numbers(*parameter.shape, seed=number)))
    generator = np.random.default_rng(0)
    for length in range(5, 13):
        text = generator.integers(13, size=(1, length))
        states, others = set(), []
        for _ in range(60):
            # Memory is taken and freed in between, so that arrays come to lie elsewhere.
            others.append(np.empty(generator.integers(1, 2000), np.uint8))
            states.add(policy.last_hidden(text).numpy().tobytes())
            if len(others) > 20:
                del others[generator.integers(20)]
        assert len(states) == 1
