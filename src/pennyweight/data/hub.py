"""Data sets from the hub, by name: from the local cache, or over a connection that was tried."""

from __future__ import annotations

from pathlib import Path

import datasets
from datasets.packaged_modules.cache.cache import Cache
from huggingface_hub import constants

from pennyweight.errors import DataError
from pennyweight.hub import unreachable

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
        if revision is not None:
            raise DataError(f"hub:{name}: a local directory has no revision {revision}")
        return _split_of(name, split, revision=None)
    cached = _cached(name, split, revision)
    if cached is not None:
        return cached
    if (reason := unreachable(timeout_seconds=timeout_seconds)) is not None:
        raise DataError(
            f"hub:{name}: not in the local cache, and {constants.ENDPOINT} "
            f"does not answer ({reason}); {_WAY_ON}"
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


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
