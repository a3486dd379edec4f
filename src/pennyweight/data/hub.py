"""Load data sets from the Hugging Face hub by name, from the local cache if possible.

No code of a data set is ever executed. Loading scripts were the only way to do so, `datasets` has
refused them since version 4, and its `trust_remote_code` no longer allows them.
"""

from __future__ import annotations

from pathlib import Path

import datasets
from datasets.packaged_modules.cache.cache import Cache
from huggingface_hub import constants

from pennyweight.errors import DataError
from pennyweight.hub import unreachable

__all__ = ["load"]

_FIX = "use a local file instead, as in --set data.train=FILE"


def load(
    name: str, *, split: str, revision: str | None = None, timeout_seconds: float = 8.0
) -> datasets.Dataset:
    """Load one split of a data set, memory-mapped.

    A copy in the local cache is used as it is. Otherwise the hub is contacted first, so that a hub
    that cannot be reached, or that accepts the connection and never answers, is an error and not an
    endless wait.

    Args:
        name: the data set's name on the hub, or a local directory in the hub's format.
        split: the split in the notation of `datasets`, such as "train" or "test[:100]".
        revision: commit, tag or branch; None for the newest, or the newest that is cached.
        timeout_seconds: time limit for the hub's first answer.

    Raises:
        DataError: there is no such data set or split, the data set needs a loading script, or the
            hub cannot be reached.
    """
    if Path(name).is_dir():
        if revision is not None:
            raise DataError(
                f"hub:{name}: revision {revision} was given, but a local directory has no "
                "revisions; leave it out"
            )
        return _load_split(name, split, revision=None)
    cached = _load_cached(name, split, revision)
    if cached is not None:
        return cached
    if (reason := unreachable(timeout_seconds=timeout_seconds)) is not None:
        raise DataError(
            f"hub:{name}: not in the local cache, and {constants.ENDPOINT} "
            f"does not answer ({reason}); {_FIX}"
        )
    return _load_split(name, split, revision)


def _load_split(name: str, split: str, revision: str | None) -> datasets.Dataset:
    try:
        dataset = datasets.load_dataset(name, split=split, revision=revision)
    except Exception as error:
        raise DataError(f"hub:{name}: split {split}: {_one_line(error)}; {_FIX}") from error
    if not isinstance(dataset, datasets.Dataset):
        raise DataError(f"hub:{name}: split {split} is not a single table; {_FIX}")
    return dataset


def _load_cached(name: str, split: str, revision: str | None) -> datasets.Dataset | None:
    """Return the copy that an earlier load has left in the cache; None if there is none."""
    version = (
        {"version": "auto", "hash": "auto"}
        if revision is None
        else {"config_name": "default", "version": "0.0.0", "hash": revision}
    )
    try:
        builder = Cache(repo_id=name, dataset_name=name.rsplit("/", 1)[-1], **version)
        builder.download_and_prepare()
        return builder.as_dataset(split=split)
    except Exception:  # noqa: BLE001 - a missing or broken copy is not used, whatever is raised
        return None


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
