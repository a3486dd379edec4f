"""Base models from the hub: a cached copy if there is one, else downloaded, else a clear error."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoConfig, PreTrainedConfig

from pennyweight.errors import BaseModelError, PennyweightError
from pennyweight.hub import unreachable

__all__ = ["fetch", "fetch_config"]

_WAYS_ON = (
    "go on with --set base.name=embedded (a small encoder that is already installed), or with "
    "--set base.name=DIRECTORY (a local directory in the hub's format)"
)
_CONFIG = ("config.json",)
_ALL = ("*.json", "*.txt", "*.model", "model.safetensors", "model-*.safetensors")


def fetch_config(name: str, *, revision: str | None) -> tuple[PreTrainedConfig, str]:
    """The config of a hub model, and the commit it is of.

    Raises:
        BaseModelError: within 10 seconds, if the hub cannot be reached or has no such model.
    """
    directory = _snapshot(name, revision=revision, files=_CONFIG)
    try:
        return AutoConfig.from_pretrained(directory), directory.name
    except (ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BaseModelError(f"base.name: {name}: its config cannot be used: {reason}") from None


def fetch(name: str, *, revision: str | None) -> Path:
    """A local directory with a hub model's config, tokenizer and safetensors weights.

    Raises:
        BaseModelError: as for `fetch_config`.
    """
    return _snapshot(name, revision=revision, files=_ALL)


def _snapshot(name: str, *, revision: str | None, files: tuple[str, ...]) -> Path:
    try:
        complete = _is_cached(name, revision=revision, files=files)
        if not complete and (reason := unreachable()) is not None:
            raise BaseModelError(
                f"base.name: {name}: the hub cannot be reached ({reason}); {_WAYS_ON}"
            )
        path = snapshot_download(
            name, revision=revision, allow_patterns=list(files), local_files_only=complete
        )
    except (RepositoryNotFoundError, HFValidationError, GatedRepoError) as error:
        reason = (
            "it is gated; log in first" if isinstance(error, GatedRepoError) else "no such model"
        )
        raise BaseModelError(
            f"base.name: {name}: {reason} on the hub, and no such directory here; {_WAYS_ON}"
        ) from None
    except RevisionNotFoundError:
        raise BaseModelError(f"base.revision: {name} has no revision {revision}") from None
    except PennyweightError:
        raise
    except Exception as error:  # noqa: BLE001 - the libraries under the hub's raise many kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BaseModelError(f"base.name: {name}: download failed ({reason}); {_WAYS_ON}") from None
    return Path(path)


def _is_cached(name: str, *, revision: str | None, files: tuple[str, ...]) -> bool:
    """Whether the cache holds what is needed, so that the hub need not be asked at all."""
    needed = ("config.json",) if files == _CONFIG else ("config.json", "model.safetensors")
    found = [try_to_load_from_cache(name, file, revision=revision) for file in needed]
    return all(isinstance(path, str) for path in found)
