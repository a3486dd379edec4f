"""The `pennyweight serve` command."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.output import preload, quiet_libraries
from pennyweight.errors import ServeError

if TYPE_CHECKING:
    from pennyweight.serve.options import Access, Batching, Limits, ServeOptions

__all__ = [
    "AccessArguments",
    "BatchingArguments",
    "LimitArguments",
    "OperationArguments",
    "command",
]

_TOKEN_VARIABLE = "PENNYWEIGHT_SERVE_TOKEN"  # noqa: S105 - the name of a variable
_SHORTEST_TOKEN = 16
_MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingArguments:
    """How texts of several requests are computed together."""

    batch_rows: Annotated[
        int,
        typer.Option(
            "--batch-rows", metavar="NUMBER", help="The maximum number of texts in a batch."
        ),
    ] = 64
    max_wait_ms: Annotated[
        float,
        typer.Option(
            "--max-wait-ms",
            metavar="MS",
            help="How long a text may wait for texts of other clients to fill its batch; with one "
            "client, texts do not wait.",
        ),
    ] = 5.0

    @property
    def values(self) -> Batching:
        """The options as plain values."""
        from pennyweight.serve.options import Batching

        return Batching(batch_rows=self.batch_rows, max_wait_ms=self.max_wait_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitArguments:
    """Bounds of requests and of the queue."""

    max_body_kb: Annotated[
        int,
        typer.Option("--max-body-kb", metavar="KB", help="The maximum size of a request's body."),
    ] = 1024
    max_characters: Annotated[
        int,
        typer.Option(
            "--max-characters", metavar="NUMBER", help="The maximum number of characters in a text."
        ),
    ] = 20_000
    max_texts: Annotated[
        int,
        typer.Option(
            "--max-texts", metavar="NUMBER", help="The maximum number of texts in a request."
        ),
    ] = 128
    max_queue: Annotated[
        int,
        typer.Option(
            "--max-queue",
            metavar="NUMBER",
            help="The maximum number of texts that wait to be computed; further requests are "
            "answered with 429.",
        ),
    ] = 1024
    max_requests: Annotated[
        int,
        typer.Option(
            "--max-requests",
            metavar="NUMBER",
            help="The maximum number of requests that are answered at the same time.",
        ),
    ] = 256
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", help="The maximum duration of a request."),
    ] = 30.0

    @property
    def values(self) -> Limits:
        """The options as plain values."""
        from pennyweight.serve.options import Limits

        return Limits(
            body_bytes=self.max_body_kb * 1024,
            text_characters=self.max_characters,
            request_texts=self.max_texts,
            queue_rows=self.max_queue,
            open_requests=self.max_requests,
            timeout_seconds=self.timeout,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessArguments:
    """Who may ask, and what clients may load."""

    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="The address to listen on; 0.0.0.0 for all addresses of this machine. The default "
            "can be reached from this machine only. With another one, set a token.",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int, typer.Option("--port", help="The port to listen on; 0 picks a free one.")
    ] = 8000
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="A name by which clients reach the server, without the port, if it is neither "
            'localhost nor --host; "*" allows any name. Can be repeated.',
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="A file with a bearer token per line, one of which a request must have. The "
            f"variable {_TOKEN_VARIABLE} can hold a token instead.",
        ),
    ] = None
    allow_loading_from: Annotated[
        Path | None,
        typer.Option(
            "--allow-loading-from",
            metavar="DIR",
            help="Let clients load, replace and remove classifiers; they may load runs below this "
            "directory.",
        ),
    ] = None

    @property
    def values(self) -> Access:
        """The options as plain values.

        Raises:
            ServeError: the tokens cannot be used, or the directory does not exist.
        """
        from pennyweight.serve.options import LOOPBACK_HOSTS, Access

        folder = self.allow_loading_from
        if folder is not None and not folder.is_dir():
            raise ServeError(f"--allow-loading-from {folder}: no such directory")
        names = (name.lower().strip("[]") for name in (self.host, *(self.allow_host or ())))
        return Access(
            tokens=_tokens(self.token_file),
            hosts=tuple(dict.fromkeys((*LOOPBACK_HOSTS, *names))),
            loading_folder=folder,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationArguments:
    """Memory, stopping and the log."""

    memory_mb: Annotated[
        int | None,
        typer.Option(
            "--memory-mb",
            min=1,
            metavar="MB",
            help="The maximum memory of all adapters. If they need more, the least recently used "
            "ones are removed from memory, and read again from their runs when they are needed.",
            show_default=False,
        ),
    ] = None
    drain_seconds: Annotated[
        float,
        typer.Option(
            "--drain-seconds",
            metavar="SECONDS",
            help="After SIGTERM, how long new requests are still accepted while /readyz already "
            "answers 503.",
        ),
    ] = 1.0
    log_texts: Annotated[
        bool, typer.Option("--log-texts", help="Log the texts of requests as well.")
    ] = False

    @property
    def memory_bytes(self) -> int | None:
        """The memory of all adapters."""
        return None if self.memory_mb is None else self.memory_mb * _MEBIBYTE


@flatten_options
def command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Finished runs on the same base. Clients name a classifier by its directory's "
            "name, or by NAME if it is given as NAME=RUN.",
        ),
    ],
    access: AccessArguments,
    batching: BatchingArguments,
    limits: LimitArguments,
    operation: OperationArguments,
) -> None:
    """Classify texts over HTTP with one or more finished runs.

    The runs share one base in memory, and texts of several clients are computed in one batch. Open
    the printed address in a browser to try them; /openapi.json describes the routes.
    """
    _require_extra()
    from pennyweight.runs.exists import require_run
    from pennyweight.serve.catalog import name_runs
    from pennyweight.serve.options import ServeOptions

    options = ServeOptions(
        limits=limits.values,
        batching=batching.values,
        access=access.values,
        host=access.host,
        port=access.port,
        drain_seconds=operation.drain_seconds,
        memory_bytes=operation.memory_bytes,
        log_texts=operation.log_texts,
    )
    named = name_runs(runs)
    for run in named.values():
        require_run(run)
    quiet_libraries()
    preload("peft", "pennyweight.inference.bank")
    from pennyweight.inference.bank import ClassifierBank
    from pennyweight.serve.server import serve

    bank = ClassifierBank(memory_bytes=options.memory_bytes)
    serve(bank, named, options, announce=lambda address: _announce(address, list(named), options))


def _announce(address: str, names: list[str], options: ServeOptions) -> None:
    if options.is_open:
        loading = " and load and remove classifiers" if options.access.loading_folder else ""
        # On standard output, since standard error is a log of JSON objects.
        typer.echo(
            f"warning: there is no token, so anybody who reaches {options.host} may classify texts"
            f"{loading}; give --token-file FILE, or set {_TOKEN_VARIABLE}"
        )
    typer.echo(f"{address} serves {', '.join(names)}; press Ctrl-C to stop")


def _tokens(file: Path | None) -> tuple[str, ...]:
    """Return the tokens of a file, and that of the environment."""
    lines = []
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ServeError(f"--token-file {file}: cannot be read: {error}") from None
    tokens = [line.strip() for line in lines if line.strip()]
    if file is not None and not tokens:
        raise ServeError(f"--token-file {file}: it has no token; write one per line")
    from_variable = os.environ.get(_TOKEN_VARIABLE, "").strip()
    tokens += [from_variable] if from_variable else []
    if any(len(token) < _SHORTEST_TOKEN or not token.isascii() for token in tokens):
        raise ServeError(
            f"a token has fewer than {_SHORTEST_TOKEN} characters or others than ASCII; make one "
            "with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return tuple(tokens)


def _require_extra() -> None:
    """Check that the packages of the extra are installed."""
    from importlib.util import find_spec

    missing = [name for name in ("fastapi", "prometheus_client", "uvicorn") if not find_spec(name)]
    if missing:
        raise ServeError(
            f"{', '.join(missing)} cannot be imported; install what serving needs with: "
            "pip install 'pennyweight[serve]'"
        )
