"""Base models from the hub: a cached copy if there is one, else a download, else a clear error."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import PreTrainedConfig

from pennyweight.base.config import read_config
from pennyweight.errors import BaseModelError, PennyweightError, first_line
from pennyweight.hub import unreachable

__all__ = ["cached_file", "fetch", "fetch_config"]

_ALTERNATIVES = (
    "use --set base.name=embedded (a small encoder that is already installed) or "
    "--set base.name=DIRECTORY (a local directory in the hub's format)"
)
# The second file says how a sentence encoder was trained to pool; most models have none.
_CONFIG = ("config.json", "1_Pooling/config.json")
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
    needed = ["config.json"] if files == _CONFIG else ["config.json", "model.safetensors"]
    paths = [try_to_load_from_cache(name, file, revision=revision) for file in needed]
    return all(isinstance(path, str) for path in paths)
