"""Every error that wavespark raises on purpose.

    WavesparkError
    ├── InputError (ValueError)        an input cannot be used; `.reason` is its code
    │   └── VolumeError                one file or series, by the name that may be shown
    ├── SettingsError (ValueError)     a setting is unknown, of the wrong kind or impossible
    ├── MaskError (ValueError)         a mask would hide everything or nothing
    ├── SitesError (ValueError)        sites of a sparse value are not usable, and which row
    ├── ShapeError (ValueError)        a tensor has a shape that the operation cannot take
    ├── ModelError (ValueError)        a model name or argument is not known
    ├── StoreError (RuntimeError)      a store is missing, locked, of another recipe or damaged
    ├── CheckpointError (RuntimeError) a checkpoint or export is missing, damaged or of another
    model ├── TrainingStopped (RuntimeError) a run ended early; the last good checkpoint is kept └──
    DependencyError (ImportError)  an optional package is needed; how to install it

`exit_code` is what the command line returns (see `wavespark --help`). Messages say what, where, the
numbers and the way out; they never quote file contents, tag values or another library's exception
text, because those can identify a patient.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    """Usage or settings."""
    DIVERGED = 4
    """Stopped on a non-finite loss or a collapse; the last good checkpoint is kept."""
    OUT_OF_MEMORY = 5
    INTERRUPTED = 75
    """Stopped by a signal after saving (EX_TEMPFAIL): schedulers requeue on it."""


class WavesparkError(Exception):
    """Anything that wavespark refuses, with a sentence for the person who must act."""

    exit_code = ExitCode.FAILED


class InputError(WavesparkError, ValueError):
    """An input that cannot be used."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        """A reason code, for example `truncated`."""
        self.sentence = sentence
        """Sentence for the user: the problem and the remedy."""


class VolumeError(InputError):
    """One file or series that cannot become a volume."""


class SettingsError(WavesparkError, ValueError):
    """A setting that is unknown, of the wrong kind or impossible."""

    exit_code = ExitCode.USAGE


class MaskError(WavesparkError, ValueError):
    """A mask that would hide everything or nothing."""

    exit_code = ExitCode.USAGE


class SitesError(WavesparkError, ValueError):
    """Sites of a sparse value that are duplicate, negative, out of range, not integers or on
    another device."""


class ShapeError(WavesparkError, ValueError):
    """A tensor whose shape the operation cannot take."""


class ModelError(WavesparkError, ValueError):
    """A model name or argument that is not known."""

    exit_code = ExitCode.USAGE


class StoreError(WavesparkError, RuntimeError):
    """A store that is missing, locked, of another recipe or damaged."""


class CheckpointError(WavesparkError, RuntimeError):
    """A checkpoint or export that is missing, damaged or of another model."""


class TrainingStopped(WavesparkError, RuntimeError):
    """A run that ended before its last step; the last good checkpoint is kept."""

    def __init__(self, sentence: str, exit_code: ExitCode) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class DependencyError(WavesparkError, ImportError):
    """An optional package that is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed. Type: pip install 'wavespark[{extra}]'")
