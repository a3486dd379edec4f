"""Base models from the hub: a cached copy if there is one, else a download, else a clear error."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import PreTrainedConfig

from pennyweight.base.config import read_config
from pennyweight.documents import read_json_table
from pennyweight.errors import BaseModelError, PennyweightError, first_line
from pennyweight.hub import unreachable

__all__ = ["cached_file", "fetch", "fetch_config"]

_ALTERNATIVES = (
    "use --set base.name=embedded (a small encoder that is already installed) or "
    "--set base.name=DIRECTORY (a local directory in the hub's format)"
)
# The second file says how a sentence encoder was trained to pool; most models have none.
_POOLING = "1_Pooling/config.json"
_CONFIG = ("config.json", _POOLING)
_ALL = ("*.json", "*.txt", "*.model", "model.safetensors", "model-*.safetensors")


def fetch_config(name: str, *, revision: str | None) -> tuple[PreTrainedConfig, str]:
    """Return the config of a model on the hub and the commit it comes from.

    Raises:
        BaseModelError: the hub cannot be reached (within 10 seconds), or has no such model.
    """
    directory = _snapshot(name, revision=revision, files=_CONFIG)
    return read_config(directory, name=name), directory.name


def fetch(name: str, *, revision: str | None) -> Path:
    """Return a local directory with a hub model's config, tokenizer and safetensors weights.

    Raises:
        BaseModelError: as for `fetch_config`.
    """
    return _snapshot(name, revision=revision, files=_ALL)


def cached_file(name: str, file: str, *, revision: str | None) -> Path | None:
    """Return a file of a hub model that has been downloaded already, or None."""
    path = try_to_load_from_cache(name, file, revision=revision)
    return Path(path) if isinstance(path, str) else None


def _snapshot(name: str, *, revision: str | None, files: tuple[str, ...]) -> Path:
    try:
        cached = _is_cached(name, revision=revision, files=files)
        if not cached and (reason := unreachable()) is not None:
            raise BaseModelError(
                f"base.name: {name}: the hub cannot be reached ({reason}); {_ALTERNATIVES}"
            )
        path = snapshot_download(
            name, revision=revision, allow_patterns=list(files), local_files_only=cached
        )
    except (RepositoryNotFoundError, HFValidationError, GatedRepoError) as error:
        reason = (
            "access to it is restricted on the hub; log in first"
            if isinstance(error, GatedRepoError)
            else "no such model on the hub, and no such local directory"
        )
        raise BaseModelError(f"base.name: {name}: {reason}; {_ALTERNATIVES}") from None
    except RevisionNotFoundError:
        raise BaseModelError(f"base.revision: {name} has no revision {revision}") from None
    except PennyweightError:
        raise
    except Exception as error:  # noqa: BLE001 - the hub's libraries raise many kinds
        raise BaseModelError(
            f"base.name: {name}: download failed ({first_line(error)}); {_ALTERNATIVES}"
        ) from None
    return Path(path)


def _is_cached(name: str, *, revision: str | None, files: tuple[str, ...]) -> bool:
    """Return whether the cache holds the files, so that the hub need not be contacted."""
    if cached_file(name, "config.json", revision=revision) is None:
        return False
    if files == _CONFIG:
        _fetch_pooling(name, revision=revision)
        return True
    if cached_file(name, "model.safetensors", revision=revision) is not None:
        return True
    index = cached_file(name, "model.safetensors.index.json", revision=revision)
    if index is None:
        return False
    shards = set(read_json_table(index).get("weight_map", {}).values())
    return all(cached_file(name, str(shard), revision=revision) for shard in shards)


def _fetch_pooling(name: str, *, revision: str | None) -> None:
    """Fetch the file that says how a model pools, if it is not known whether there is one.

    A model that transformers has downloaded lacks the file. Where the hub cannot be reached, it
    stays unknown.
    """
    known = try_to_load_from_cache(name, _POOLING, revision=revision)
    if known is None and unreachable() is None:
        # If there is none, the cache remembers that.
        with suppress(EntryNotFoundError, HfHubHTTPError, OSError):
            hf_hub_download(name, _POOLING, revision=revision)
