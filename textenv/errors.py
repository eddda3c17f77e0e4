"""Every error that a user of textenv can cause; messages name the value and a way out."""


class TextEnvError(Exception):
    """Base class of all errors raised by textenv, policies and agents on purpose."""


class PromptError(TextEnvError, ValueError):
    """A prompt, or a source of prompts, cannot be used."""


class EmptyPromptsError(PromptError):
    """A source holds no prompt, or a prompt encodes to no token."""


class PromptTooLongError(PromptError):
    """Prompts have more tokens than there is room for.

    Attributes:
        which: The prompts, one a line, with the number of their tokens and the room.
    """

    def __init__(self, which: str, way_out: str = ""):
        gap = "\n" if "\n" in which else ": "
        super().__init__(f"{which}{gap}{way_out}" if way_out else which)
        self.which = which


class SourceError(PromptError):
    """A text does not show where the source ends, or a choice was to be made inside the source."""


class MalformedRecordError(PromptError):
    """Lines of a file cannot be read; the message names the file and every line."""


class MissingFileError(MalformedRecordError, FileNotFoundError):
    """There is no file of the name that was given."""


class TokenizerError(TextEnvError, ValueError):
    """A tokenizer cannot be loaded, trained or used."""


class NoStopTokenWarning(UserWarning):
    """Nothing ends an answer but its budget, and nobody said that this is wanted."""


class FrameError(PromptError):
    """Messages cannot be framed: there is no template, or it has no form for them."""


class UnframedError(FrameError):
    """Messages are to be read where there is no frame.

    Attributes:
        which: Where they come from.
    """

    def __init__(self, which: str, way_out: str = ""):
        # One argument is all there is when it is unpickled, on its way from another process.
        super().__init__(f"{which}: {way_out}" if way_out else which)
        self.which = which


class FailedWorldWarning(UserWarning):
    """Conversations ended because their world failed; the message says how many, and one reason."""


class NothingToLearnWarning(UserWarning):
    """An update has nothing to learn from; the message says why, and what would change that."""


class NotSavedWarning(UserWarning):
    """A run goes on, and something of it cannot be saved; the message says what, and why."""


class DamagedCheckpointWarning(UserWarning):
    """A checkpoint is not as it was written, and an older one is used in its place."""


class ReplacedWorkerWarning(UserWarning):
    """A process that plays episodes has died; another one plays them again."""


class LateWorkerWarning(UserWarning):
    """Processes that are to play episodes cannot begin yet; the message says what they wait for."""


class RewrittenHistoryWarning(UserWarning):
    """A chat template writes earlier messages otherwise than they were said; here they stay."""


class UnknownTokenizerError(TokenizerError):
    """No tokenizer has the given name."""


class TokenizerUnavailableError(TokenizerError):
    """The tokenizer is known, but its files are not on this machine and cannot be fetched."""


class RewardError(TextEnvError):
    """A reward function failed; the message names the episode."""


class InvalidRewardError(RewardError, TypeError):
    """An object that was given as a reward cannot be used as one."""


class RewardRaisedError(RewardError, RuntimeError):
    """A reward function raised; the original exception is the cause."""


class RewardCountError(RewardError, ValueError):
    """A reward function returned the wrong number of values."""


class RewardValueError(RewardError, ValueError):
    """A reward is not a number, is not finite, or is too large to learn from in float32."""


class DivergedError(TextEnvError, ArithmeticError):
    """A loss or a gradient is not a finite number; the optimiser step was not taken."""


class UnscoredError(RewardError, ValueError):
    """Episodes have no score, and the algorithm cannot do without."""


class WorldError(TextEnvError):
    """A world failed, returned something else than a reply, or cannot be saved."""


WORLD_FAILURES = (Exception, SystemExit)
"""What a world or a tool may raise without ending more than its own episode.

`SystemExit` is among them: programs that read a command line raise it at wrong arguments.
"""


class ReplayError(WorldError):
    """A world may not be told turns again, or replied to them in another way than before."""


class ToolError(TextEnvError, ValueError):
    """A function cannot be used as a tool; the message names what is missing."""


class GrammarError(TextEnvError, ValueError):
    """A grammar cannot be used: it has a mistake, the vocabulary cannot write it, or it is refused.

    The message has llguidance's own, which says the place.
    """


class ActionError(TextEnvError, ValueError):
    """An action is not a token of the vocabulary, or the batch of actions has the wrong shape."""


class EpisodeOverError(TextEnvError, RuntimeError):
    """`step` was called on a row whose episode is over, without a reset."""


class SharedEnvironmentError(TextEnvError, RuntimeError):
    """Somebody else has stepped or reset the environment that a learner is in the middle of."""


class ResetOptionsError(TextEnvError, ValueError):
    """The `options` given to `reset` cannot be used."""


class ObjectNotFoundError(TextEnvError, ImportError):
    """A string such as `"package.module:name"` or `"file.py:name"` does not name an object.

    Attributes:
        spec: The string.
    """

    spec: str | None = None


class MissingExtraError(TextEnvError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""


class CheckpointError(TextEnvError):
    """A saved policy or learner cannot be loaded."""


class NotSavedError(TextEnvError, OSError):
    """A checkpoint cannot be written: the disk is full, or the folder may not be written."""


class VocabularyMismatchError(CheckpointError, ValueError):
    """A checkpoint was made with another vocabulary than the environment's."""


class ModelError(TextEnvError, ValueError):
    """A language model cannot be loaded, or not be used as asked."""


class ModelUnavailableError(ModelError):
    """The model is not on this machine and cannot be fetched."""


class UnsupportedModelError(ModelError):
    """The model is there, but it is of a kind that cannot be used."""


class AdapterError(ModelError):
    """An adapter does not fit, or what was asked for needs another kind of adapter."""


class AnnotationError(TextEnvError, ValueError):
    """What an `annotate` hook returned is no rollout, and no arrays that fit one."""


class UnmetNeedError(TextEnvError, ValueError):
    """An algorithm was not given what it learns from: groups, whole episodes or a reference."""


class FrozenPolicyError(TextEnvError, ValueError):
    """No parameter that the choices depend on is trained."""


class RemoteError(TextEnvError, ConnectionError):
    """A server could not be reached, refused, or gave an answer that cannot be used."""


class OptionError(TextEnvError, ValueError):
    """An option of a command, a configuration file or a setting cannot be used as it is given."""


class DeviceError(TextEnvError, RuntimeError):
    """The processor that was asked for is not on this machine."""


class LostProcessError(TextEnvError, RuntimeError):
    """Another process of a training that several share has ended, or does not answer."""
