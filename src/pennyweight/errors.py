"""All exceptions that Pennyweight raises on purpose.

PennyweightError                the message is for the user: one line, no traceback, exit code 2
├── RecipeError                 a recipe that cannot be read, or says something that is not allowed
├── DataError                   a file, row or column that cannot be used
│   └── UnsafePickleError       a pickle that asks for more than plain columns
├── BaseModelError              a base model that cannot be found, reached or used
├── BudgetError                 a plan over its budget, or a count that does not add up
├── TrainingError               training that cannot start or go on
│   ├── NonFiniteLossError      a loss that is NaN or infinite
│   ├── OutOfMemoryError        a step or a prediction that needs more memory than there is
│   └── PrunedError             training that whoever watches it has ended early
├── NonFiniteLogitsError        a model whose logits are NaN or infinite
├── RunError                    a run directory or adapter that cannot be read or written
├── ReportError                 a report that cannot be made
└── ServeError                  a server that cannot start

KeyboardInterrupt
└── TerminatedError             SIGTERM or SIGHUP asked the process to stop; exit code 128 + number
"""

from __future__ import annotations

import signal

__all__ = [
    "BaseModelError",
    "BudgetError",
    "DataError",
    "NonFiniteLogitsError",
    "NonFiniteLossError",
    "OutOfMemoryError",
    "PennyweightError",
    "PrunedError",
    "RecipeError",
    "ReportError",
    "RunError",
    "ServeError",
    "TerminatedError",
    "TrainingError",
    "UnsafePickleError",
    "first_line",
]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not empty, or else the error's type."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


class PennyweightError(Exception):
    """Base of all; its text says what was given, what is allowed and how to go on."""


class RecipeError(PennyweightError):
    """A recipe that cannot be read, or says something that is not allowed."""


class DataError(PennyweightError):
    """A file, row or column that cannot be used."""


class UnsafePickleError(DataError):
    """A pickle that asks for more than plain columns; nothing of it was executed."""


class BaseModelError(PennyweightError):
    """A base model that cannot be found, reached or used."""


class BudgetError(PennyweightError):
    """A plan over its budget, or a count that does not add up."""


class TrainingError(PennyweightError):
    """Training that cannot start or go on."""


class NonFiniteLossError(TrainingError):
    """A loss that is NaN or infinite."""


class OutOfMemoryError(TrainingError):
    """A step or a prediction that needs more memory than there is."""


class PrunedError(TrainingError):
    """Training that whoever watches it has ended early; the run's record says "pruned"."""


class NonFiniteLogitsError(PennyweightError):
    """A model whose logits are NaN or infinite."""


class RunError(PennyweightError):
    """A run directory or adapter that cannot be read or written."""


class ReportError(PennyweightError):
    """A report that cannot be made, or that is over its limit of pages."""


class ServeError(PennyweightError):
    """A server that cannot start as it was asked to."""


class TerminatedError(KeyboardInterrupt):
    """A signal asked the process to stop.

    Args:
        number: of the signal.
        ended: the processes of this training, by their ranks, that had ended before.
    """

    def __init__(self, number: int, ended: tuple[int, ...] = ()) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number
        self.ended = ended
