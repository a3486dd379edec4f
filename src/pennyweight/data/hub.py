"""Data sets from the hub, by name: from the local cache, or over a connection that was tried."""

from __future__ import annotations

import threading
from pathlib import Path

import datasets
from datasets.packaged_modules.cache.cache import Cache
from huggingface_hub import constants, get_session

from pennyweight.errors import DataError

__all__ = ["load"]

_WAY_ON = "use a local file instead, as in --set data.train=FILE"


def load(
    name: str, *, split: str, revision: str | None = None, timeout_seconds: float = 8.0
) -> datasets.Dataset:
    """Loads one split of a data set, memory-mapped.

    A copy in the local cache is used as it is. Otherwise the hub is tried first, so that one which
    cannot be reached, or takes the connection and stays silent, is an error and no endless wait.

    Args:
        name: the data set's name on the hub, or a local directory in the hub's format.
        split: which split, as `datasets` writes it ("train", "test[:100]").
        revision: commit, tag or branch; None for the newest, or the newest that is cached.
        timeout_seconds: how long the hub may take to answer at all.

    Raises:
        DataError: there is no such data set or split, or the hub cannot be reached.
    """
    if Path(name).is_dir():
        return _split_of(name, split, revision=None)
    cached = _cached(name, split, revision)
    if cached is not None:
        return cached
    if constants.is_offline_mode():
        raise DataError(f"hub:{name}: not in the local cache, and HF_HUB_OFFLINE is set; {_WAY_ON}")
    if not _answers(constants.ENDPOINT, timeout_seconds):
        raise DataError(
            f"hub:{name}: not in the local cache, and {constants.ENDPOINT} does not answer; "
            f"{_WAY_ON}"
        )
    return _split_of(name, split, revision)


def _split_of(name: str, split: str, revision: str | None) -> datasets.Dataset:
    try:
        dataset = datasets.load_dataset(name, split=split, revision=revision)
    except Exception as error:
        raise DataError(f"hub:{name}: split {split}: {_one_line(error)}; {_WAY_ON}") from error
    if not isinstance(dataset, datasets.Dataset):
        raise DataError(f"hub:{name}: split {split} is no single table; {_WAY_ON}")
    return dataset


def _cached(name: str, split: str, revision: str | None) -> datasets.Dataset | None:
    """The copy that an earlier load left, or None."""
    which = (
        {"version": "auto", "hash": "auto"}
        if revision is None
        else {"config_name": "default", "version": "0.0.0", "hash": revision}
    )
    try:
        builder = Cache(repo_id=name, dataset_name=name.rsplit("/", 1)[-1], **which)
        builder.download_and_prepare()
        return builder.as_dataset(split=split)
    except Exception:  # noqa: BLE001 - an absent or broken copy is no copy, whatever is raised
        return None


def _answers(endpoint: str, timeout_seconds: float) -> bool:
    """Whether the hub sends any HTTP answer at all within the time.

    The request runs in a thread that is given up on, since no client has a limit for everything:
    looking up the name, connecting and reading each have their own.
    """
    answered, finished = threading.Event(), threading.Event()

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=timeout_seconds)
        except Exception:  # noqa: BLE001, S110 - whatever it is, the hub was not reached
            pass
        else:
            answered.set()
        finally:
            finished.set()

    threading.Thread(target=ask, name="hub-probe", daemon=True).start()
    finished.wait(timeout_seconds)
    return answered.is_set()


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
