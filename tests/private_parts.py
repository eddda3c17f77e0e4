"""Private parts of other packages that textenv uses: the first place to look after an upgrade.

A part is private if a name on the way to it begins with an underscore, or if it is imported from
inside numba, transformers or peft, whose documentation promises only what their top level (and
`numba.extending`) has. `python -m pytest tests/test_private_parts.py` says which part has moved and
which files use it; it also fails where a part is used that is not listed here.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

PUBLIC = {
    "numba": {"numba", "numba.extending"},
    "transformers": {"transformers"},
    "peft": {"peft"},
}
"""Packages of which only these modules are public, whatever the others are called."""


@dataclass(frozen=True)
class Part:
    """A private part of another package.

    Attributes:
        path: Its package, modules, class and name, with dots.
        why: What textenv does with it.
        owner: Makes the object that has it, where the class has not.
        overridden: A class of ours defines a method of this name in place of it.
    """

    path: str
    why: str
    owner: Callable[[], Any] | None = None
    overridden: bool = False

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rsplit(".", 1)[1]


def resolve(path: str) -> Any:
    """What is at a path of a package, modules, classes and attributes.

    Raises:
        AttributeError: A name is not where it was.
        ImportError: The package is not installed, or a module has moved.
    """
    names = path.split(".")
    found = importlib.import_module(names[0])
    for i, name in enumerate(names[1:], 2):
        if not hasattr(found, name):  # a module that nobody has imported yet
            importlib.import_module(".".join(names[:i]))
        found = getattr(found, name)
    return found


def there(part: Part) -> bool:
    """Whether a part is where it was."""
    try:
        if part.owner is not None:
            return hasattr(part.owner(), part.name)
        resolve(part.path)
        return True
    except (AttributeError, ImportError):
        return False


# ------------------------------------------------------------------------- what has parts


def module() -> Any:
    """A module of torch."""
    return resolve("torch.nn.Module")()


def configuration() -> Any:
    """The configuration of a model of transformers."""
    return resolve("transformers.PreTrainedConfig")()


def generation_settings() -> Any:
    """How a model of transformers generates."""
    return resolve("transformers.GenerationConfig")()


def encoding() -> Any:
    """A vocabulary of tiktoken."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    return resolve("tiktoken.Encoding")(
        "bytes", pat_str=".", mergeable_ranks=ranks, special_tokens={}
    )


def checkpointing_layer() -> Any:
    """What a layer of transformers calls for its checkpoints."""
    layer_class = resolve("transformers.modeling_layers.GradientCheckpointingLayer")
    forward = {"forward": lambda self, x: x}
    layer = type("Layer", (layer_class,), forward)()
    called = SimpleNamespace()
    layer.gradient_checkpointing = True
    layer._gradient_checkpointing_func = lambda *arguments: setattr(
        called, "_gradient_checkpointing_func", arguments
    )
    layer.train()(0)
    return called


def vec_env() -> Any:
    """A vector environment of Stable-Baselines3."""
    space = resolve("gymnasium.spaces.Discrete")(2)
    vectors = resolve("stable_baselines3.common.vec_env")

    class Environment(resolve("gymnasium.Env")):
        observation_space = action_space = space

    return vectors.DummyVecEnv([Environment])


PARTS = [
    Part("torch.ops.mkldnn._reorder_linear_weight", "lays weights out for oneDNN, once"),
    Part("torch.ops.mkldnn._linear_pointwise", "multiplies with such weights"),
    Part("torch.Tensor._version", "notices that weights were changed in place"),
    Part("torch.nn.Module._parameters", "walks through layers faster than `children`", module),
    Part("torch.nn.Module._modules", "the same", module),
    Part("torch.nn.Module._forward_hooks", "leaves a layer with hooks as it is", module),
    Part("torch.nn.Module._forward_pre_hooks", "the same", module),
    Part(
        "torch.utils._python_dispatch.is_traceable_wrapper_subclass",
        "tells quantised states of optimisers from plain tensors",
    ),
    Part("numba.core.cgutils", "loops inside a function that is written in LLVM"),
    Part("numba.core.event", "hears of the first function that is compiled"),
    Part(
        "transformers.utils.chat_template_utils.render_jinja_template",
        "renders a chat template whose tokenizer is of the tokenizers library",
    ),
    Part("transformers.distributed.DistributedConfig", "asks for a model's own plan of its layers"),
    Part(
        "transformers.PreTrainedModel._resolve_parallel_plans",
        "the plan of a model's layers for tensor parallel, module by module",
    ),
    Part(
        "transformers.distributed.tensor_parallel.apply_tensor_parallelism",
        "divides the layers of a model that is loaded already",
    ),
    Part("transformers.PreTrainedConfig._attn_implementation", "which attention a model uses"),
    Part("transformers.PreTrainedConfig._name_or_path", "where a model is from", configuration),
    Part(
        "transformers.GenerationConfig._from_model_config",
        "tells ends that somebody chose from those of a configuration's defaults",
        generation_settings,
    ),
    Part("transformers.cache_utils.DynamicCache", "is filled with our keys and values"),
    Part("transformers.cache_utils.EncoderDecoderCache", "the same beside an encoder"),
    Part(
        "transformers.integrations.sdpa_attention.sdpa_attention_forward",
        "attends where our loops cannot",
    ),
    Part("transformers.masking_utils.sdpa_mask", "the mask for it"),
    Part(
        "transformers.modeling_layers.GradientCheckpointingLayer",
        "which layers can compute their activations again",
    ),
    Part(
        "transformers.modeling_layers.GradientCheckpointingLayer._gradient_checkpointing_func",
        "makes them do so as ours does",
        checkpointing_layer,
    ),
    Part("transformers.models.auto.modeling_auto", "which kinds of models there are"),
    Part(
        "transformers.models.gptj.modeling_gptj.GPTJAttention._attn",
        "attends in GPT-J, and under the same name in CodeGen and GPT-Neo; is replaced",
    ),
    Part(
        "transformers.models.falcon.modeling_falcon.FalconAttention._split_heads",
        "gives queries, keys and values of Falcon, whose attention is replaced",
    ),
    Part("peft.tuners.tuners_utils.BaseTunerLayer", "finds the layers of adapters"),
    Part("peft.utils.other.AuxiliaryTrainingWrapper", "finds modules trained beside an adapter"),
    Part("tiktoken.Encoding._mergeable_ranks", "saves and compares vocabularies", encoding),
    Part("tiktoken.Encoding._pat_str", "the same", encoding),
    Part("tiktoken.Encoding._special_tokens", "the same", encoding),
    Part(
        "stable_baselines3.common.policies.BasePolicy._dummy_schedule",
        "stands for a learning rate in a policy that is saved alone",
    ),
    Part(
        "stable_baselines3.common.policies.BaseModel._get_constructor_parameters",
        "says what a saved policy is made from",
        overridden=True,
    ),
    Part("stable_baselines3.common.policies.BasePolicy._predict", "acts", overridden=True),
    Part(
        "trl.trainer.grpo_trainer.GRPOTrainer._compute_loss",
        "the loss of its trainers without a trainer, for `check_loss`",
    ),
    Part("stable_baselines3.common.vec_env.VecEnv._get_indices", "the rows that are meant"),
    Part("stable_baselines3.common.vec_env.VecEnv._seeds", "seeds of the next reset", vec_env),
    Part("stable_baselines3.common.vec_env.VecEnv._options", "options of the next reset", vec_env),
    Part("stable_baselines3.common.vec_env.VecEnv._reset_seeds", "forgets the seeds"),
    Part("stable_baselines3.common.vec_env.VecEnv._reset_options", "forgets the options"),
]
