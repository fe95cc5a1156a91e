"""Everything Interplay raises on purpose, and the exit codes that go with it.

    InterplayError            one clear line; the command line prints it and exits with 2
    |-- ConfigError           a setting has a value that is not allowed            (also ValueError)
    |-- DataError             a data set cannot be read as what the run needs      (also ValueError)
    |-- ModelError            a model folder or name cannot be used                (also ValueError)
    |-- StoreError            a run folder cannot be written or read               (also OSError)
    |   `-- RowsWaiting       ... for now: its rows stay in memory and go with the next flush
    `-- DivergedError         the loss or a weight is no longer a finite number    (also ArithmeticError)
    Interrupted               SIGTERM or Ctrl-C arrived (a KeyboardInterrupt, so nothing swallows it)

Every message names the argument, the value received, what is allowed and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class InterplayError(Exception):
    """Base of all errors that a person can mend; its text is one line."""


class ConfigError(InterplayError, ValueError):
    """A setting has a value that is not allowed."""


class DataError(InterplayError, ValueError):
    """A data set cannot be read as what the run needs."""


class ModelError(InterplayError, ValueError):
    """A model folder or name cannot be used."""


class StoreError(InterplayError, OSError):
    """A run folder cannot be written or read."""


class RowsWaiting(StoreError):
    """Rows cannot be written for now; they stay in memory and go with the next flush."""


class DivergedError(InterplayError, ArithmeticError):
    """The loss or a weight is no longer a finite number."""


class Interrupted(KeyboardInterrupt):
    """SIGTERM or Ctrl-C arrived; the run is closed in state `interrupted`."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def allowed(words: Iterable[str]) -> str:
    """The allowed values, sorted and quoted, for the middle of a message."""
    return ", ".join(sorted(words))
