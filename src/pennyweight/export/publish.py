"""Push a run to the Hugging Face Hub, or say what would be pushed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError

from pennyweight.errors import RunError
from pennyweight.export.hub_folder import (
    FolderFile,
    HubOptions,
    HubReport,
    export_to_hub,
    require_hub_id,
)
from pennyweight.hub import unreachable
from pennyweight.quiet import quiet_libraries

__all__ = ["Destination", "Published", "publish"]

_MESSAGE = "Upload with Pennyweight"


@dataclass(frozen=True, slots=True)
class Destination:
    """The destination of a published run.

    Attributes:
        repository: id of the repository, OWNER/NAME.
        private: whether a new repository is private; one that exists stays as it is.
        revision: the branch, which is created if it is missing; None for the main branch.
    """

    repository: str
    private: bool = False
    revision: str | None = None

    def calls(self) -> tuple[str, ...]:
        """Return the calls of `huggingface_hub` that publish a folder, in order."""
        name = repr(self.repository)
        lines = [f"HfApi.create_repo({name}, private={self.private}, exist_ok=True)"]
        branch = ""
        if self.revision is not None:
            branch = f", revision={self.revision!r}"
            lines.append(f"HfApi.create_branch({name}, branch={self.revision!r}, exist_ok=True)")
        lines.append(f"HfApi.upload_folder(repo_id={name}{branch}, commit_message={_MESSAGE!r})")
        return tuple(lines)


@dataclass(frozen=True, slots=True)
class Published:
    """A publication, or a plan of one.

    Attributes:
        files: of the folder that was or would be uploaded.
        calls: of `huggingface_hub`, in order.
        url: of the commit; None for a plan.
    """

    files: tuple[FolderFile, ...]
    calls: tuple[str, ...]
    url: str | None = None


@quiet_libraries()
def publish(
    run: str | Path,
    *,
    to: Destination,
    options: HubOptions | None = None,
    dry_run: bool = False,
    api: HfApi | None = None,
) -> Published:
    """Write a folder with `export_to_hub` and upload it.

    Args:
        run: the run's directory.
        to: the repository on the hub.
        options: what is put into the folder; None for the defaults.
        dry_run: whether to return the plan instead, which needs neither a network nor a token.
        api: the client of the hub; None for one with the user's token.

    Raises:
        RunError: the folder cannot be written, see `export_to_hub`; or the hub cannot be reached,
            there is no token, or the hub refuses the upload.
    """
    require_hub_id("--to", to.repository)
    if "/" not in to.repository:
        raise RunError(f"--to {to.repository}: expected OWNER/NAME, with your name on the hub")
    if not dry_run and api is None:
        api = _client(to)
    with tempfile.TemporaryDirectory(prefix="pennyweight-") as folder:
        # A new name in it, because the temporary folder itself cannot be replaced.
        directory = Path(folder) / "hub"
        report: HubReport = export_to_hub(run, out=directory, options=options)
        if dry_run or api is None:
            return Published(report.files, to.calls())
        with _one_line_errors(to):
            url = _upload(api, directory, to)
    return Published(report.files, to.calls(), url)


def _client(to: Destination) -> HfApi:
    """Return a client with the user's token, if the hub can be reached.

    Raises:
        RunError: it cannot, or there is no token.
    """
    if (reason := unreachable()) is not None:
        raise RunError(
            f"--to {to.repository}: the hub cannot be reached: {reason}; --dry-run and pennyweight "
            "export --to hub work without it"
        )
    token = get_token()
    if token is None:
        raise RunError(
            f"--to {to.repository}: there is no token for the hub; run: hf auth login, or set "
            "HF_TOKEN to a token that may write"
        )
    return HfApi(endpoint=constants.ENDPOINT, token=token)


def _upload(api: HfApi, directory: Path, to: Destination) -> str:
    api.create_repo(to.repository, private=to.private, exist_ok=True)
    if to.revision is not None:
        api.create_branch(to.repository, branch=to.revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=to.repository,
        folder_path=directory,
        revision=to.revision,
        commit_message=_MESSAGE,
    )
    return str(commit.commit_url)


@contextmanager
def _one_line_errors(to: Destination) -> Iterator[None]:
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = {
            401: "; the token is not valid: run hf auth login again",
            403: "; the token may not write there: use one with write access, or another --to",
            404: "; there is no such repository, or the token may not see it",
        }.get(status, "")
        reason = (error.server_message or str(error)).strip().splitlines()[0]
        raise RunError(f"--to {to.repository}: the hub answered {status}: {reason}{hint}") from None
    except (OSError, ValueError, httpx2.HTTPError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(f"--to {to.repository}: the upload failed: {reason}") from None
