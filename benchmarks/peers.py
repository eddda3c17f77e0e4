"""TRL's trainers on the benchmarks' models and tasks."""

import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.common import as_gpt2
from policies import TransformerPolicy

STOP = 0
"""The token id that ends an answer, if answers vary in length."""


def let_it_stop(policy: TransformerPolicy, mean_length: float) -> None:
    """Give token `STOP` a constant logit, so that answers have geometric lengths.

    The final layer norm's bias is a constant direction of all hidden states; the stop token's
    embedding points along it.
    """
    with torch.no_grad():
        embedding, bias = policy.transformer.token_embedding.weight, policy.transformer.ln_f.bias
        direction = torch.ones_like(bias) / len(bias) ** 0.5
        bias.copy_(direction)
        boost = float(np.log(len(embedding) / mean_length))
        embedding[STOP] = boost * direction


def word_tokenizer(vocab_size: int, eos: int) -> Any:
    """A transformers tokenizer whose words are numbers: "17" is token 17.

    An `eos` of `vocab_size` is never sampled.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {str(token): token for token in range(vocab_size + 1)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=str(eos), pad_token=str(vocab_size - 1)
    )


def run_trl(
    policy: TransformerPolicy,
    prompts: Sequence[Sequence[int]],
    reward: Callable[[Sequence[int]], float],
    stops: bool = True,
    **setting: Any,
) -> dict[str, Any]:
    """Train a copy of one of our own networks with TRL; see `train_with_trl`.

    Answers end before their budget if `STOP` is chosen, or never.
    """
    model, eos = as_gpt2(policy), STOP if stops else policy.vocab_size
    model.config.eos_token_id = model.generation_config.eos_token_id = eos
    texts = [" ".join(map(str, prompt)) for prompt in prompts]
    return train_with_trl(model, word_tokenizer(policy.vocab_size, eos), texts, reward, **setting)


def rate_of_steps(record: dict[str, Any]) -> float:
    """Tokens per second of TRL's steps, the median; the first one is left out."""
    pairs = zip(record["tokens"][1:], record["seconds"][1:], strict=True)
    return float(np.median([tokens / seconds for tokens, seconds in pairs]))


def train_with_trl(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    reward: Callable[[Sequence[int]], float],
    *,
    trainer: str = "GRPO",
    steps: int,
    rows: int = 32,
    group_size: int = 8,
    answer_tokens: int = 64,
    learning_rate: float = 1e-4,
    seed: int = 0,
    bf16: bool = False,
    checkpointing: bool = False,
    stop_when: Callable[[float], bool] | None = None,
) -> dict[str, Any]:
    """Train a model of transformers with TRL.

    Returns:
        Per optimiser step: `seconds`, `tokens` (useful ones), `scores` (mean reward), and
        `completions`; for the last step `answers`.
    """
    import trl
    from datasets import Dataset

    record: dict[str, Any] = {
        "seconds": [],
        "tokens": [],
        "scores": [],
        "answers": [],
        "entropy": [],
    }

    trainer_of: list[Any] = []

    def score(prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float]:
        values = [reward(ids) for ids in completion_ids]
        record["tokens"].append(sum(len(ids) for ids in completion_ids))
        record["scores"].append(float(np.mean(values)))
        record["answers"] = [list(ids) for ids in completion_ids]
        return values

    def ended(control: Any) -> None:
        record["entropy"] += trainer_of[0]._metrics["train"]["entropy"][-1:]
        if stop_when is not None and stop_when(record["scores"][-1]):
            control.should_training_stop = True

    data = Dataset.from_dict({"prompt": list(prompts)})
    with tempfile.TemporaryDirectory() as folder:
        arguments = trl_config(
            trainer,
            folder,
            per_device_train_batch_size=rows,
            num_generations=group_size,
            max_completion_length=answer_tokens,
            max_steps=steps,
            learning_rate=learning_rate,
            bf16=bf16,
            gradient_checkpointing=checkpointing,
            seed=seed,
        )
        model.warnings_issued = {}
        running = getattr(trl, f"{trainer}Trainer")(
            model=model,
            args=arguments,
            reward_funcs=score,
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[clock(record["seconds"], ended)],
        )
        trainer_of.append(running)
        running.train()
    record["completions"] = [rows * (n + 1) for n in range(len(record["seconds"]))]
    return record


def trl_config(trainer: str, folder: str, **setting: Any) -> Any:
    """Arguments of a trainer of TRL that writes and reports nothing; no KL, a constant rate."""
    import transformers
    import trl

    transformers.logging.set_verbosity_error()
    return getattr(trl, f"{trainer}Config")(
        output_dir=folder,
        lr_scheduler_type="constant",
        beta=0.0,
        logging_steps=1_000_000,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
        **setting,
    )


def clock(seconds: list[float], ended: Callable[[Any], None] = lambda control: None) -> Any:
    """A callback of transformers that notes how long each step takes, then calls `ended`."""
    import transformers

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.begin = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seconds.append(time.perf_counter() - self.begin)
            ended(control)

    return Clock()
