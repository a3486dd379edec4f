"""Find out within seconds whether the hub can be reached; nothing is downloaded.

The libraries that download retry and wait, which helps nobody without a network. So one short
request to the same endpoint precedes every download, unless a cached copy is there.
"""

from __future__ import annotations

import http.client
import threading
import urllib.error
import urllib.request

from huggingface_hub import constants

__all__ = ["unreachable"]


def unreachable(*, timeout_seconds: float = 5.0) -> str | None:
    """Return why the hub cannot be used now, in a few words; None if it answers.

    Any HTTP response counts, an error status too. The request, name resolution included, takes no
    longer than `timeout_seconds`.
    """
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    answer: list[str | None] = []
    # A thread, because no timeout of the standard library covers resolving the host's name.
    thread = threading.Thread(
        target=lambda: answer.append(_ask(constants.ENDPOINT, timeout_seconds)), daemon=True
    )
    thread.start()
    thread.join(timeout_seconds)
    return answer[0] if answer else f"no answer within {timeout_seconds:g} seconds"


def _ask(endpoint: str, timeout_seconds: float) -> str | None:
    if not endpoint.startswith(("https://", "http://")):
        return f"HF_ENDPOINT is not a web address: {endpoint}"
    request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds):  # noqa: S310
            return None
    except urllib.error.HTTPError:
        return None
    except (OSError, http.client.HTTPException, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
