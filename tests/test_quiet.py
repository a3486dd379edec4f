"""Progress bars and notices of libraries: off inside the block, and as before after it."""

from __future__ import annotations

import subprocess
import sys

import datasets
import pytest
from huggingface_hub import constants
from transformers.utils import logging

from pennyweight.quiet import quiet_libraries


@pytest.fixture(autouse=True)
def default_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the libraries as they are where no variable and no program has changed them."""
    # The package shows the class of the same name in place of this module.
    bars = sys.modules["datasets.utils.tqdm"]
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", None)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_DISABLE_PROGRESS_BARS", None)
    monkeypatch.setattr(bars, "HF_DATASETS_DISABLE_PROGRESS_BARS", None)
    monkeypatch.setattr(bars, "_hf_datasets_progress_bars_disabled", False)
    monkeypatch.setattr(logging, "_tqdm_active", True)


def test_the_settings_of_the_libraries_are_restored() -> None:
    before = logging.get_verbosity()
    with quiet_libraries():
        assert not logging.is_progress_bar_enabled()
        assert datasets.are_progress_bars_disabled()
        assert logging.get_verbosity() == logging.ERROR
    assert logging.is_progress_bar_enabled()
    assert not datasets.are_progress_bars_disabled()
    assert logging.get_verbosity() == before


def test_a_user_who_asks_for_messages_gets_them() -> None:
    before = logging.get_verbosity()
    logging.set_verbosity_info()
    try:
        with quiet_libraries():
            assert logging.is_progress_bar_enabled()
            assert logging.get_verbosity() == logging.INFO
    finally:
        logging.set_verbosity(before)


def test_importing_a_class_from_the_package_prints_nothing() -> None:
    # Its module imports PEFT, and PEFT bitsandbytes, which has much to say.
    command = [sys.executable, "-c", "import pennyweight; pennyweight.Classifier"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
