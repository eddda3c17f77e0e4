#!/usr/bin/env bash
# verl 0.9.1 (torch 2.13.0): the loss `geo_mean` (GMPO) makes a gradient as many times as large as a
# step has micro-batches.
#
# The engine sums the gradients of the micro-batches as they are (FSDP: `loss.backward()`) and tells
# the losses how many answers and tokens the whole step has (`config.global_batch_info`), so that
# each divides by these. `compute_policy_loss_geo_mean` takes the mean over the micro-batch instead.
#
# Seen: 12 answers at once, or in 3 micro-batches of 4. The summed gradient of `gspo` is 1.00 times
# that of the whole batch, that of `geo_mean` 3.00 times.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 transformers==5.23.0 accelerate ray \
  omegaconf tensordict==0.14.3 codetiming
"$folder/venv/bin/pip" install -q --no-deps verl==0.9.1
cd "$folder"

cat > accumulate.py <<'PYTHON'
import torch
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.workers.config import ActorConfig

torch.manual_seed(0)
answers, tokens = 12, 5
logprobs = -torch.rand(answers, tokens, dtype=torch.float64)
advantages = torch.randn(answers, 1, dtype=torch.float64).expand(answers, tokens)
mask = torch.ones(answers, tokens, dtype=torch.float64)


def gradient(name, micro_batches):
    config = ActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1)
    config.global_batch_info.update(  # as verl.workers.utils.losses.ppo_loss does
        dp_size=1, batch_num_tokens=answers * tokens, global_batch_size=answers
    )
    own = logprobs.clone().requires_grad_()
    for rows in torch.arange(answers).chunk(micro_batches):
        loss, _ = get_policy_loss_fn(name)(
            logprobs[rows], own[rows], advantages[rows], mask[rows],
            loss_agg_mode="seq-mean-token-mean", config=config,
        )
        loss.backward()
    return own.grad


for name in ("gspo", "geo_mean"):
    print(name, f"{float(gradient(name, 3).norm() / gradient(name, 1).norm()):.2f}")
PYTHON

got=$(venv/bin/python -W ignore accumulate.py 2> errors | tail -2 | tr '\n' ' ') ||
  { cat errors; exit 1; }
expected="gspo 1.00 geo_mean 3.00 "
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; cat errors; exit 1; }
