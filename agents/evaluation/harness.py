"""Any policy as a model of lm-evaluation-harness, with its hundreds of published tasks.

Importing this module needs the extra `evaluation`, and registers the name "textenv" with the
harness:

    model = HarnessModel(policy)
    results = lm_eval.simple_evaluate(model=model, tasks=["arc_easy"], num_fewshot=5)

Numbers are those of the harness's own models for Hugging Face, but for three things that are done
as the environment does them. Where a token reaches across the border of a prompt, all characters of
the continuation are scored (see `agents.evaluation.continuations`). What begins a text, such as
Llama's `<s>`, is read and never predicted: the harness counts it in the log-likelihood of whole
texts. With a chat template, the ids of a conversation are those of training: nothing that a
message spells is a special token, and the head of the answer stays with the prompt.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.evaluation.continuations import (
    Pair,
    fit_pair,
    pair_tokens,
    score_texts,
    score_tokens,
)
from policies import Policy, tokenizer_of
from policies.checkpoint import open_policy
from policies.templates import template_of
from textenv.errors import FrameError, OptionError
from textenv.frames import CHAT, Frame, FrameArgument, load_frame
from textenv.imports import optional
from textenv.masks import ends_of_answers
from textenv.tokenizers import decode_prompt, encode_answer, encode_prompt

with optional("lm-eval", extra="evaluation", purpose="lm-evaluation-harness"):
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs
    from tqdm import tqdm  # type: ignore[import-untyped]  # its stubs are a package of their own

LONGEST_ANSWER = 256
"""Longest answer, in tokens, where a task does not say: as the harness's own models have it."""

TAKEN = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
"""What a task may say of how to generate."""


@register_model("textenv")
class HarnessModel(LM):  # type: ignore[misc]
    """A policy as a model of the harness.

    Args:
        policy: A policy, or the folder or name of one, as commands take it.
        frame: The template of conversations, for `apply_chat_template=True`; "chat" for that of the
            dialogues that the policy has learned from.
        max_gen_toks: Longest answer where a task does not say; by default 256, or half of a shorter
            context.
        batch_size: Answers that are written at a time; scoring finds its own batches.
        max_batch_size: Not used; the harness gives it to every model.
        device: Where to compute; where the policy is, if None.
        seed: Seed of the sampling, for tasks that sample.
    """

    def __init__(
        self,
        policy: Policy | str | Path,
        *,
        frame: FrameArgument = CHAT,
        max_gen_toks: int | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.policy = policy if isinstance(policy, Policy) else open_policy(policy)
        if device is not None:
            self.policy.to(device)
        self.tokenizer = tokenizer_of(self.policy)
        self.rows = int(batch_size) if batch_size and batch_size != "auto" else 64
        self.max_gen_toks = max_gen_toks or min(LONGEST_ANSWER, self.policy.context // 2)
        self.seed = seed
        self._named_frame = frame
        self._frame: Frame | None = None
        self._framed: dict[str, list[int]] = {}

    # ---------------------------------------------------------------- what the harness asks

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of a continuation behind a context, and whether it is the greedy one.

        Contexts that are too long lose their beginning, and a warning says how many.
        """
        pairs = [self._pair(*request.args[:2]) for request in requests]
        fitting = [fit_pair(pair, self.policy.context) for pair in pairs]
        self._tell_of_cuts(sum(a != b for a, b in zip(pairs, fitting, strict=True)), len(pairs))
        with tqdm(total=len(pairs), desc="Continuations", disable=disable_tqdm) as bar:
            scored = score_tokens(
                self.policy, fitting, on_scored=lambda count: bar.update(count - bar.n)
            )
            bar.update(len(pairs) - bar.n)  # equal ones were read once
        return [(one.logprob, one.greedy) for one in scored]

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihood of whole texts of any length; see `score_texts`."""
        texts = [request.args[0] for request in requests]
        with tqdm(desc="Windows of texts", disable=disable_tqdm) as bar:
            scored = score_texts(
                self.policy, texts, on_scored=lambda count: bar.update(count - bar.n)
            )
        return [one.logprob for one in scored]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers up to a stop string, a stop token or the longest length; greedy by default.

        Raises:
            OptionError: A task asks for a way to generate that there is not, or for answers that
                leave no room for a prompt.
        """
        answers = [""] * len(requests)
        alike: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            alike.setdefault(repr(request.args[1]), []).append(number)
        with tqdm(total=len(requests), desc="Answers", disable=disable_tqdm) as bar:
            for numbers in alike.values():
                settings = self._settings(requests[numbers[0]].args[1]) | self._turn_marks()
                room = self.policy.context - settings["max_new_tokens"]
                prompts = [self._prompt(requests[number].args[0]) for number in numbers]
                self._tell_of_cuts(sum(len(p) > room for p in prompts), len(prompts))
                # A part at a time, for the bar; within it rows never wait for each other.
                for begin in range(0, len(numbers), 8 * self.rows):
                    some = numbers[begin : begin + 8 * self.rows]
                    said = self.policy.generate(
                        [p[-room:] for p in prompts[begin : begin + len(some)]],
                        batch_size=self.rows,
                        generator=np.random.default_rng((self.seed, numbers[begin])),
                        **settings,
                    )
                    for number, text in zip(some, said, strict=True):
                        answers[number] = text
                    bar.update(len(some))
        return answers

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The text of a conversation; its ids are kept for when the harness asks about the text.

        Raises:
            FrameError: The policy has learned from no dialogue, or the template refuses the
                messages.
        """
        said = list(chat_history)
        begun = "" if add_generation_prompt else str(said.pop()["content"])
        frame = self._chat_frame()
        ids = frame.opening(said)
        if begun:  # the answer's first words are given
            ids = [*ids, *encode_answer(self.tokenizer, begun)]
        text = decode_prompt(self.tokenizer, ids)
        self._framed[text] = ids
        return text

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template as a text, by which the harness tells caches of requests apart."""
        if not chat_template:
            return None
        self._chat_frame()
        return repr(self._template())

    @property
    def tokenizer_name(self) -> str:
        """Tells the vocabulary from others, for the same purpose."""
        return self.tokenizer.fingerprint

    # ---------------------------------------------------------------- how it is done

    def _template(self) -> FrameArgument:
        return template_of(self.policy) if self._named_frame == CHAT else self._named_frame

    def _chat_frame(self) -> Frame:
        if self._frame is None:
            self._frame = load_frame(self._template(), self.tokenizer)
        if self._frame is None:
            raise FrameError(
                "apply_chat_template: the policy has learned from no dialogue, and its tokenizer "
                "has no chat template: leave apply_chat_template out, or give HarnessModel a "
                "frame=textenv.frames.ChatTemplate(...)"
            )
        return self._frame

    def _pair(self, context: str, continuation: str) -> Pair:
        framed = self._framed.get(context)
        if framed is not None:
            return framed, encode_answer(self.tokenizer, continuation)
        self._check_known(context)
        return pair_tokens(self.policy, context, continuation)

    def _prompt(self, context: str) -> list[int]:
        if (framed := self._framed.get(context)) is not None:
            return framed
        self._check_known(context)
        ids = encode_prompt(self.tokenizer, context)
        return ids or list(self._pair("", "a")[0])

    def _check_known(self, context: str) -> None:
        """Where conversations are framed, all contexts are, but the empty one of `acc_mutual_info`.

        Raises:
            FrameError: This one was not: the harness has it from a cache of an earlier run.
        """
        if self._frame is not None and context:
            raise FrameError(
                "a conversation comes from the harness's cache of requests, which keeps texts and "
                "not ids: leave cache_requests out where a chat template is applied"
            )

    def _settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of `generate` from what a task says."""
        wanted = normalize_gen_kwargs(dict(given), self.max_gen_toks)
        if unknown := sorted(wanted.keys() - TAKEN):
            raise OptionError(
                f"a task generates with {', '.join(unknown)}, which policies do not take; they "
                f"take {', '.join(sorted(TAKEN))}: see gen_kwargs of the harness"
            )
        longest = wanted["max_gen_toks"]
        if longest >= self.policy.context:
            raise OptionError(
                f"a task asks for answers of {longest} tokens, and the policy's context of "
                f"{self.policy.context} leaves no room for a prompt: give the harness "
                f"gen_kwargs={{'max_gen_toks': {self.policy.context // 2}}}"
            )
        until = wanted.get("until") or []
        return {
            "max_new_tokens": longest,
            "stop_strings": [u for u in ([until] if isinstance(until, str) else until) if u],
            "temperature": wanted["temperature"] if wanted["do_sample"] else 0,
            "top_k": wanted.get("top_k") or None,
            "top_p": wanted.get("top_p"),
        }

    def _turn_marks(self) -> dict[str, Any]:
        """What ends a turn of a conversation, where the tokenizer may name another token."""
        if self._frame is None or self._frame.end_of_turn is None:
            return {}
        ends = ends_of_answers(self.tokenizer, None, self._frame.end_of_turn)
        return {"stop_tokens": ends, "forbidden_tokens": self._frame.role_tokens}

    def _tell_of_cuts(self, cut: int, all_of_them: int) -> None:
        if cut:
            warnings.warn(
                f"{cut} of {all_of_them} prompts are longer than the policy's context of "
                f"{self.policy.context} tokens allows and lose their beginnings: use fewer shots",
                stacklevel=3,
            )
