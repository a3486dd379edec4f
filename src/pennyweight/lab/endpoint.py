"""A client of servers with an OpenAI-compatible API, such as llama.cpp's and vLLM's.

Requests go to the address that the recipe names and nowhere else: redirects are not followed, and
the proxies of the environment are not used for an address on this machine.
"""

from __future__ import annotations

import ipaddress
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from pennyweight.errors import DataError

__all__ = ["ChatClient", "Endpoint", "api_key"]

_TRIES = 6
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0
_SHOWN_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server and how it is used; see the recipe's `[generate]` with `method = "endpoint"`.

    Attributes:
        url: address of the API; requests go to its `chat/completions`.
        model: the server's name of the model.
        api_key_env: name of the environment variable with the API key; None for no key.
        concurrency: requests at a time.
        timeout_seconds: the longest wait for an answer.
    """

    url: str
    model: str
    api_key_env: str | None
    concurrency: int
    timeout_seconds: float


def api_key(endpoint: Endpoint) -> str | None:
    """Return the key from the environment; None if the endpoint needs none.

    Raises:
        DataError: the variable is not set, or does not hold a key.
    """
    name = endpoint.api_key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise DataError(
            f"generate.api_key_env: the environment variable {name} is not set; set it to the API "
            f"key of {endpoint.url}"
        )
    if not (key.isascii() and key.isprintable()):
        raise DataError(f"generate.api_key_env: {name}: not an API key: only ASCII is possible")
    return key


class _RetryError(Exception):
    """A failure that may pass.

    Args:
        reason: what happened, for a message.
        wait_seconds: how long the server asks to wait; None if it does not say.
    """

    def __init__(self, reason: str, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class ChatClient:
    """Asks a server for answers; may be used by several threads. Close it after use.

    Args:
        endpoint: the server.

    Raises:
        DataError: the API key is missing.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._where = f"endpoint {endpoint.url}"
        key = api_key(endpoint)
        self._cancelled = threading.Event()
        self._client = httpx2.Client(
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
            timeout=endpoint.timeout_seconds,
            limits=httpx2.Limits(max_connections=endpoint.concurrency),
            follow_redirects=False,
            trust_env=not _is_on_this_machine(endpoint.url),
        )

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; no request may be under way any more."""
        self.cancel()
        self._client.close()

    def cancel(self) -> None:
        """Let requests that wait for another try fail at once, and failed ones not be repeated."""
        self._cancelled.set()

    def answer(self, prompt: str, *, options: Mapping[str, Any]) -> str:
        """Return the model's answer to one message, without white space around it.

        A server that is busy or fails for the moment (status 408, 429 or 5xx, a broken connection,
        no answer in time, an empty answer) is asked again after a growing wait.

        Args:
            prompt: the message.
            options: further fields of the request, such as temperature.

        Raises:
            DataError: the server cannot be reached, refuses the request, or gives no usable answer.
        """
        message = {"role": "user", "content": prompt}
        request = {"model": self._endpoint.model, "messages": [message], **options}
        wait = _FIRST_WAIT_SECONDS
        for number in range(1, _TRIES + 1):
            try:
                return self._ask(request)
            except _RetryError as failure:
                if number == _TRIES or self._cancelled.is_set():
                    raise DataError(f"{self._where}: {failure}, {number} times in a row") from None
                pause = wait if failure.wait_seconds is None else failure.wait_seconds
                self._pause(min(pause, _LONGEST_WAIT_SECONDS))
                wait *= 2.0
        raise AssertionError("the last try returns or raises")

    def _pause(self, seconds: float) -> None:
        """Wait, or until the requests are cancelled."""
        self._cancelled.wait(seconds)

    def _ask(self, request: Mapping[str, Any]) -> str:
        seconds = self._endpoint.timeout_seconds
        try:
            response = self._client.post(f"{self._endpoint.url}/chat/completions", json=request)
        except httpx2.ConnectError as error:
            raise DataError(
                f"{self._where}: cannot be reached ({error}); start the server, or correct "
                "generate.url"
            ) from None
        except httpx2.TimeoutException:
            raise _RetryError(f"no answer within {seconds:g} seconds (generate.timeout)") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise _RetryError(f"the connection failed ({_one_line(str(error))})") from None
        self._check_status(response)
        text = self._content(response).strip()
        if not text:
            raise _RetryError("the answer is empty")
        return text

    def _check_status(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status == 200:
            return
        given = f"status {status} {response.reason_phrase}".strip()
        if status in (401, 403):
            # The body is not shown, as some servers repeat the key in it.
            name = self._endpoint.api_key_env
            hint = (
                f"check the API key in {name}"
                if name
                else "name the environment variable with the API key in generate.api_key_env"
            )
            raise DataError(f"{self._where}: {given}: not authorized; {hint}")
        reason = _reason(response)
        if status in (408, 429) or status >= 500:
            raise _RetryError(f"{given}{reason}", _retry_after(response))
        hint = "check generate.url, which usually ends in /v1, and generate.model"
        raise DataError(f"{self._where}: {given}{reason}; {hint}")

    def _content(self, response: httpx2.Response) -> str:
        try:
            content = response.json()["choices"][0]["message"]["content"]
            if content is None or isinstance(content, str):
                return content or ""
        except (ValueError, LookupError, TypeError):
            pass
        raise DataError(
            f"{self._where}: the answer has no choices[0].message.content: "
            f"{_one_line(response.text) or 'it is empty'}; generate.url must name an "
            "OpenAI-compatible API, such as http://127.0.0.1:8080/v1"
        )


def _is_on_this_machine(url: str) -> bool:
    """Return whether an address is that of a loopback interface."""
    host = httpx2.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _retry_after(response: httpx2.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else None


def _reason(response: httpx2.Response) -> str:
    """Return the error message in a response, after a colon; nothing if there is none."""
    try:
        error = response.json()["error"]
        message = error["message"] if isinstance(error, dict) else error
    except (ValueError, LookupError, TypeError):
        message = response.text
    return f": {_one_line(str(message))}" if str(message).strip() else ""


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_LENGTH else f"{line[: _SHOWN_LENGTH - 3]}..."
