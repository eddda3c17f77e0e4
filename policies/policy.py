"""The base class of policies: act, say how likely choices are, generate, whatever the network.

A policy reads observations, nothing else: right-padded rows of token ids. `act` chooses the next
token of every row from a cached pass over what is new. `outputs` computes log-probabilities, values
and entropies of all choices in whole sequences by one causal pass.
"""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from policies import head
from policies.cache import Plan, PrefixCache, Store
from policies.dropout import Dropout
from policies.generation import generate
from policies.observations import checked_lengths, token_ids, token_tensor
from policies.outputs import PolicyOutputs, Step, spread
from policies.policy_files import (
    actors_folder,
    check_saved_vocabulary,
    plain_state,
    read_policy,
    write_policy,
)
from policies.sampling import Sampler, forbid, mask_logits, mask_tensor, sample
from policies.sharing import whole_rows
from policies.token_store import TokenStore
from textenv.errors import CheckpointError, TokenizerError, UnsupportedModelError
from textenv.tokenizers import Tokenizer, unused_tokens_of

OWN = "own"
"""The kind, in a checkpoint, of a policy whose class is the user's."""


class Policy(nn.Module):
    """Base class of all policies; a network of one's own writes one method of it.

    That is `forward`, from padded rows of ids to hidden states; or `hidden_states`, which does the
    same for rows laid end to end, without padding. All else has a default:

    - `logits`: a linear layer, `token_head`, which is made if the class has no `logits` itself.
    - `new_store` and `extend`: whole texts are encoded anew at every step. Exact, but slow; write
      both to keep what was encoded.
    - `save` and `load_weights`: the state dict and `description`. `load_policy` cannot make the
      network again, since it does not know the class.

    A network must be causal: a hidden state depends on its own token and those before it, not on
    padding or on other rows. Leave out dropout, or let it act within `dropping` alone:
    log-probabilities are compared. `textenv.testing.check_policy` tries all of this;
    docs/networks.md has an example.

    Args:
        vocab_size: Number of tokens V; `V` itself is the padding of observations.
        context: Longest observation.
        n_embd: Width of the hidden states.
        tokenizer: Kept with the policy, so that a checkpoint knows its vocabulary.
        seed: Seed of the policy's own random numbers, and of a `token_head`.

    Attributes:
        generator: Where `act` takes its random numbers from unless it is given another one.
        value_head: Linear layer from a hidden state to a value; it starts at zero.
        token_head: Linear layer from a hidden state to logits; None if the class has its own
            `logits`, which may set it.
        encoded_tokens: Tokens that its network has read so far, for scoring and for acting. A
            beginning that rows share counts once where it is read once, a pass that is computed
            again counts again.

    Raises:
        TypeError: The class has neither `forward` nor `hidden_states`.
    """

    def __init__(
        self,
        vocab_size: int,
        context: int,
        n_embd: int,
        tokenizer: Tokenizer | None = None,
        seed: int = 0,
    ):
        super().__init__()
        own = type(self)
        if own.forward is Policy.forward and own.hidden_states is Policy.hidden_states:
            raise TypeError(
                f"{own.__name__} reads no tokens: define forward(self, rows), from ids (S, W) to "
                "hidden states (S, W, n_embd), or hidden_states(self, tokens, lengths)"
            )
        self.vocab_size = vocab_size
        self.pad_token = vocab_size
        self.context = context
        self.tokenizer = tokenizer
        self.generator = np.random.default_rng(seed)
        self.encoded_tokens = 0
        self.value_head = nn.Linear(n_embd, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.token_head: nn.Linear | None = None
        if own.logits is Policy.logits:
            self.token_head = nn.Linear(n_embd, vocab_size, bias=False)
            # Small weights: the first choices are nearly uniform.
            nn.init.normal_(
                self.token_head.weight, std=0.02, generator=torch.Generator().manual_seed(seed)
            )

    # ---------------------------------------------------------------- what a network provides

    def forward(self, rows: Tensor) -> Tensor:
        """Hidden states of padded rows.

        Args:
            rows: Ids, shape (S, W), int64. Behind the end of a row stands any token; what is made
                of it is dropped.

        Returns:
            Shape (S, W, n_embd); the state at a place knows the tokens up to it, and no others.
        """
        raise NotImplementedError(f"{type(self).__name__} reads rows laid end to end only")

    def hidden_states(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Hidden states of whole rows laid end to end; by default `forward` of the padded rows.

        Args:
            tokens: The rows' tokens one after the other, shape (N,), int64.
            lengths: Tokens of each row, shape (S,), int64; they sum to N.

        Returns:
            Shape (N, n_embd).
        """
        rows = whole_rows(lengths)
        self.encoded_tokens += len(tokens)
        hidden: Tensor = self(tokens[rows.index])
        return hidden.flatten(0, 1).index_select(0, rows.places)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (N, n_embd) to logits (N, V); by default those of `token_head`.

        Raises:
            TypeError: A class with logits of its own asks for these, and has made no `token_head`.
        """
        if self.token_head is None:
            name = type(self).__name__
            raise TypeError(
                f"{name} has logits of its own, so no token_head was made, which super().logits() "
                f"needs: set self.token_head = nn.Linear(n_embd, vocab_size, bias=False) in "
                f"{name}.__init__"
            )
        return self.token_head(hidden)

    def new_store(self, num_rows: int) -> Store:
        """An empty store for what is kept of `num_rows` rows; by default their tokens alone."""
        return TokenStore(num_rows, self.context)

    def extend(self, store: Store, plan: Plan) -> Tensor:
        """Encode the tokens of `plan` behind what `store` holds of their rows.

        By default the whole rows are encoded anew.

        Args:
            store: From `new_store`; it holds each row up to the first token of `plan` in it.
            plan: New tokens. What the store has at their positions and behind is out of date.

        Returns:
            The hidden state of each taking-part row's last token, shape (k, n_embd).

        Raises:
            TypeError: The class has a store of its own and no `extend` that reads it.
        """
        if not isinstance(store, TokenStore):
            raise TypeError(
                f"{type(self).__name__}.new_store gives a {type(store).__name__}, which the "
                "default extend cannot read: define extend(self, store, plan) too"
            )
        tokens, lengths = (torch.from_numpy(x).to(self.device) for x in store.take_up(plan))
        return self.hidden_states(tokens, lengths).index_select(0, lengths.cumsum(0) - 1)

    def dropping(self, rates: Dropout) -> AbstractContextManager[None]:
        """A context in which the network drops at these rates; `policies.dropout.dropping` uses it.

        Outside it nothing is dropped, in `.train()` neither.

        Raises:
            UnsupportedModelError: The class does not say how.
        """
        raise UnsupportedModelError(
            f"{type(self).__name__} has no dropout that can be asked for: ask for none, or define "
            "dropping(self, rates), a context in which its layers drop"
        )

    # ---------------------------------------------------------------- on disk

    def description(self) -> dict[str, Any]:
        """What `save` writes beside the weights, as JSON."""
        own = type(self)
        name = f"{own.__module__}:{own.__qualname__}"
        shape = {"vocab_size": self.vocab_size, "context": self.context}
        return {"kind": OWN, "class": name, **shape}

    def save(self, folder: str | Path) -> Path:
        """Write the policy into `folder`, as safetensors and JSON.

        Not kept: which weights are trained, the device, hooks, and packed weights. A tokenizer of a
        class of your own is noted by its name, and must be given again if that is not known.
        """
        description = self.description() | {"generator": plain_state(self.generator)}
        return write_policy(folder, self.state_dict(), description, self.tokenizer)

    def load_weights(self, folder: str | Path) -> None:
        """Take the weights that `save` wrote for a policy of the same shape and vocabulary.

        Raises:
            CheckpointError: There are none, or they are of another kind or shape.
            VocabularyMismatchError: They were saved with another vocabulary.
        """
        folder = actors_folder(folder)
        description, weights = read_policy(folder)
        if description.get("kind") != OWN:
            raise CheckpointError(
                f"{folder} holds a policy of kind {description.get('kind')!r}, which "
                f"{type(self).__name__} cannot read: policies.load_policy(folder) reads it"
            )
        check_saved_vocabulary(folder, description, self.tokenizer)
        try:
            self.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"the weights in {folder} do not fit this {type(self).__name__}: make it with the "
                f"arguments of the one that was saved. torch says: {error}"
            ) from error

    # ---------------------------------------------------------------- acting

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.value_head.weight.device

    @property
    def unused_tokens(self) -> Tensor | None:
        """Ids that stand for no token of the tokenizer, shape (U,), int64; None if there is none.

        They are never chosen: their probability is 0 wherever choices are made or scored.
        """
        ids = unused_tokens_of(self.tokenizer)
        return torch.tensor(ids, device=self.device) if ids else None

    def choices(self, hidden: Tensor) -> Tensor:
        """`logits` of what can be chosen, float32; minus infinity at ids that are no tokens."""
        logits = self.logits(hidden).float()
        unused = self.unused_tokens
        if unused is None:
            return logits
        # In place where that harms nobody: in large vocabularies a copy takes as long as sampling.
        fill = logits.index_fill_ if logits.is_inference() else logits.index_fill
        return fill(1, unused, -torch.inf)

    def new_cache(self, num_rows: int, capacity: int | None = None) -> PrefixCache:
        """A prefix cache for observations of `num_rows` rows and `capacity` columns."""
        return PrefixCache(
            num_rows, capacity or self.context, self.new_store(num_rows), self.parameters()
        )

    def act(
        self,
        observations: ArrayLike,
        cache: PrefixCache | None = None,
        *,
        temperature: float = 1.0,
        action_masks: ArrayLike | None = None,
        deterministic: bool = False,
        generator: np.random.Generator | None = None,
        uniforms: NDArray[np.float64] | None = None,
        sampler: Sampler = sample,
    ) -> Step:
        """Choose the next token of every row.

        Args:
            observations: Token ids, shape (num_rows, L), right-padded; floats are cast back.
            cache: From `new_cache`, for the same rows at every call; if None, all is encoded anew.
            temperature: Logits are divided by it.
            action_masks: Which tokens may be chosen, shape (num_rows, V), or (V,) for all rows,
                bool; `envs.action_masks()` are those of an environment.
            deterministic: Take the likeliest token instead of sampling.
            generator: Source of the uniform numbers, one a row; the policy's own if None.
            uniforms: The numbers themselves, in [0, 1), shape (num_rows,), float64; a row's choice
                is then a function of its text and its number.
            sampler: How a number becomes a token; `policies.sampling.sample_gumbel` where policies
                are compared on the same numbers.

        Returns:
            Actions, log-probabilities and values.

        Raises:
            ValueError: Shapes do not fit, a row is empty or too long, an id is not a token or its
                number type rounds it, `temperature` is not positive, or no action can be chosen:
                all of a row are masked, or the weights are no longer numbers.
        """
        if temperature <= 0:
            raise ValueError(
                f"temperature is {temperature}; it must be positive (deterministic=True takes the "
                "likeliest token)"
            )
        with torch.inference_mode():
            hidden = self.last_hidden(observations, cache)
            logits = self.choices(hidden)
            # The stored log-probabilities are those of this distribution, mask and temperature
            # included: `outputs` computes the same ones.
            if temperature != 1.0:
                logits = logits / temperature
            if action_masks is not None:
                logits = forbid(logits, mask_tensor(action_masks).to(logits.device))
            if deterministic:
                likeliest = logits.argmax(-1, keepdim=True)
                logprobs = logits.log_softmax(-1).gather(1, likeliest).squeeze(1).cpu().numpy()
                actions = likeliest.squeeze(1).cpu().numpy()
            else:
                # One uniform number a row, drawn on the CPU: the same seed gives the same choices.
                if uniforms is None:
                    uniforms = (generator or self.generator).random(len(logits))
                actions, logprobs = sampler(logits, uniforms)
            values = self.value_head(hidden).float().squeeze(1).cpu().numpy()
        unsound = np.isnan(logprobs)
        if unsound.any():
            raise ValueError(
                f"no action can be chosen for row {int(unsound.argmax())}: its action mask leaves "
                "none, or its logits are NaN because training diverged"
            )
        return Step(actions, logprobs, values)

    def value(self, observations: ArrayLike, cache: PrefixCache | None = None) -> Tensor:
        """Estimated value of every observation, shape (num_rows,), float32, without gradient."""
        with torch.inference_mode():
            values = self.value_head(self.last_hidden(observations, cache)).float().squeeze(1)
        return values.clone()

    @torch.inference_mode()
    def last_hidden(self, observations: ArrayLike, cache: PrefixCache | None = None) -> Tensor:
        """Hidden state of each row's last token, shape (num_rows, n_embd), without gradient.

        Only what `cache` does not hold yet is encoded. The result is an inference tensor: clone it
        before using it where a gradient is needed.
        """
        ids = token_ids(observations, self.pad_token)
        if cache is None:
            cache = self.new_cache(*ids.shape)
        if ids.shape != cache.shape:
            raise ValueError(
                f"observations have shape {ids.shape}, the cache was made for {cache.shape}: use "
                "policy.new_cache(num_rows, length of an observation)"
            )
        lengths = checked_lengths(ids, self.pad_token, self.context)
        if cache.drafts is not None:
            return cache.drafts.last_hidden(self, cache, ids, lengths)
        for plan in cache.plans(ids, lengths):
            hidden = self.extend(cache.store, plan)
        return hidden

    def read(self, observations: Tensor) -> Tensor:
        """Hidden state of each row's last token, shape (n, n_embd), with gradient if enabled.

        For libraries that learn observation by observation; beginnings that rows have in common
        are encoded once.

        Args:
            observations: Token ids, shape (n, L), right-padded; floats are cast back.
        """
        ids = token_tensor(observations, self.pad_token)
        tokens, lengths = F.pad(ids, (0, 1)), (ids != self.pad_token).sum(1)
        after = torch.arange(tokens.shape[1], device=tokens.device) == lengths[:, None]
        return self.hidden_before(tokens, after, lengths)

    # ---------------------------------------------------------------- learning

    def outputs(
        self,
        tokens: Tensor,
        mask: Tensor,
        *,
        temperature: float = 1.0,
        action_masks: Tensor | None = None,
    ) -> PolicyOutputs:
        """Log-probabilities, values and entropies of all choices by one causal pass.

        Args:
            tokens: Sequences, shape (S, L), int64, right-padded.
            mask: True at the tokens that were chosen, shape (S, L), bool; never at position 0.
            temperature: The one the tokens were sampled with.
            action_masks: What could be chosen at each chosen token, in the order of `mask`'s True
                entries, shape (mask.sum(), V), bool.

        Returns:
            Three tensors of shape (S, L), zero outside the mask, with gradients if enabled.
        """
        # The token at p is chosen from the hidden state at p - 1. So nothing behind the last chosen
        # token has to be encoded.
        places = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.hidden_before(tokens, mask, (mask * places).amax(1).clamp(min=1))
        logprobs, entropies = self.token_logprobs(hidden, tokens[mask], temperature, action_masks)
        values = self.value_head(hidden).float().squeeze(1)
        return PolicyOutputs(*(spread(x, mask) for x in (logprobs, values, entropies)))

    def token_logprobs(
        self, hidden: Tensor, tokens: Tensor, temperature: float, action_masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies of choices, both (N,).

        A network whose logits are those of a linear `token_head` without bias need not keep them:
        see `policies.head.token_logprobs`. For all others this is the plain form.
        """
        default, layer = type(self).logits is Policy.logits, self.token_head
        if default and type(layer) is nn.Linear and layer.bias is None:
            return head.token_logprobs(
                hidden, layer.weight, tokens, temperature, action_masks, self.unused_tokens
            )
        logits = self.choices(hidden) / temperature
        return head.logprobs_of_logits(mask_logits(logits, action_masks), tokens)

    def hidden_before(self, tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Hidden states from which the chosen tokens were chosen, shape (mask.sum(), n_embd).

        Args:
            tokens: Sequences, shape (S, L), int64.
            mask: True at the chosen tokens, shape (S, L), bool.
            lengths: How many tokens of each sequence have to be read, shape (S,), int64.
        """
        inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        before = torch.zeros_like(mask)
        before[:, :-1] = mask[:, 1:]
        return self.hidden_states(tokens[inside], lengths)[before[inside]]

    # ---------------------------------------------------------------- plain use

    def generate(
        self,
        prompts: Sequence[str] | Sequence[Sequence[int]],
        max_new_tokens: int = 64,
        **sampling: Any,
    ) -> list[str]:
        """Answers to `prompts`, `n` to each; see `policies.generation.generate`.

        An environment's masks are its own: `generate(prompts, **envs.answer_rules)` keeps to them,
        and so do `min_new_tokens`, `forbidden_tokens` and `allowed_tokens` of the same values.
        """
        return generate(self, prompts, max_new_tokens, **sampling)

    def frozen_copy(self) -> Self:
        """A copy with the same weights that takes no gradient: the reference of a KL penalty."""
        frozen = copy.deepcopy(self)
        frozen.requires_grad_(False)
        return frozen.eval()


def tokenizer_of(policy: Policy, name: str = "the policy") -> Tokenizer:
    """The tokenizer of a policy whose texts are asked for.

    Raises:
        TokenizerError: It has none; the message calls it `name`.
    """
    if policy.tokenizer is None:
        raise TokenizerError(
            f"{name} was saved without a tokenizer: set policy.tokenizer and save it again"
        )
    return policy.tokenizer
