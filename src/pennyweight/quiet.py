"""Keep progress bars and notices of transformers and datasets out of the user's output."""

from __future__ import annotations

import logging as standard_logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import datasets
from huggingface_hub import constants
from transformers.utils import logging

__all__ = ["quiet_libraries", "quiet_logger"]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Turn off progress bars and notices inside the block, and restore them afterwards.

    Nothing is changed for a user who asked for messages, with `TRANSFORMERS_VERBOSITY=info` or
    `transformers.logging.set_verbosity_info()`, and progress bars stay on where
    `HF_HUB_DISABLE_PROGRESS_BARS=0` or `HF_DATASETS_DISABLE_PROGRESS_BARS=0` is set. Can also be
    used as a decorator.
    """
    verbosity = logging.get_verbosity()
    if verbosity <= logging.INFO:
        yield
        return
    with ExitStack() as restore:
        logging.set_verbosity_error()
        restore.callback(logging.set_verbosity, verbosity)
        # With a variable set, the libraries warn when a program decides otherwise.
        if constants.HF_HUB_DISABLE_PROGRESS_BARS is None and logging.is_progress_bar_enabled():
            logging.disable_progress_bar()
            restore.callback(logging.enable_progress_bar)
        if (
            datasets.config.HF_DATASETS_DISABLE_PROGRESS_BARS is None
            and not datasets.are_progress_bars_disabled()
        ):
            datasets.disable_progress_bars()
            restore.callback(datasets.enable_progress_bars)
        yield


@contextmanager
def quiet_logger(name: str | None = None) -> Iterator[None]:
    """Keep warnings, and messages of a logger below errors, out of the output inside the block.

    Args:
        name: of the logger; None for the root logger.
    """
    logger = standard_logging.getLogger(name)
    level = logger.level
    logger.setLevel(standard_logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
