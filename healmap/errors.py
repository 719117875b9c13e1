"""The one exception family. Each error says what is wrong, where, and what to do.

Only the doors (``cli``) catch ``HealError``; everything below lets it pass. ``exit_code`` is the command line's:
1 the work failed, 2 the request was wrong.
"""

from __future__ import annotations


class HealError(Exception):
    """Base of every error that healmap raises on purpose: one line for humans.

    Args:
        what: what is wrong.
        where: the file, case or setting concerned.
        hint: what to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        message = what + (f" ({where})" if where else "") + (f": {hint}" if hint else "")
        # A file name may hold a line break; an error stays one line.
        super().__init__(" ".join(message.split()))


class ConfigError(HealError, ValueError):
    """A setting is unknown, of the wrong type, or cannot work."""

    exit_code = 2


class DataError(HealError, ValueError):
    """A file or a table cannot be used as it is."""


class UsageError(DataError):
    """The data given do not fit the request (wrong folder, no such split, leaking splits)."""

    exit_code = 2


class UnreadableError(DataError):
    """A file is damaged or of an unknown kind."""


class DecoderMissingError(UnreadableError):
    """A file is sound but its compression needs a package that is not installed (named in the message)."""


class TooLargeError(UnreadableError):
    """A file asks for more memory than the limits allow."""


class GeometryError(DataError):
    """Spacing, orientation or origin are contradictory, or sizes do not match."""


class WriteError(HealError, OSError):
    """A result cannot be written (disk full, no permission)."""


class CheckpointError(HealError):
    """A checkpoint or weights file is damaged, foreign, or belongs to another run."""


class CapabilityError(HealError, ValueError):
    """A method is asked for something it does not offer."""

    exit_code = 2


class TrainingError(HealError, RuntimeError):
    """Training cannot go on (a loss is not finite, the disk is full)."""


class Interrupted(HealError):
    """Training was asked to stop (Ctrl-C, SIGTERM); its state is saved and it can be resumed."""

    exit_code = 130


class MissingDependencyError(HealError, ImportError):
    """An optional package is not installed (named in the message)."""
