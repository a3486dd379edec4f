"""The `pennyweight publish` command."""

from __future__ import annotations

from typing import Annotated

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.options import HubFolderOptions, Run
from pennyweight.cli.output import quiet_libraries

__all__ = ["command"]


@flatten_options
def command(
    run: Run,
    to: Annotated[
        str, typer.Option("--to", metavar="OWNER/NAME", help="The repository on the hub.")
    ],
    hub: HubFolderOptions,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, if it is new.")
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision", metavar="BRANCH", help="The branch; it is created if it is missing."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only list the files and the calls; needs no network and no token."
        ),
    ] = False,
) -> None:
    """Upload a run to the Hugging Face Hub.

    What is uploaded is what `export --to hub` writes. The token is that of `hf auth login`, or of
    the variable HF_TOKEN. Use --dry-run to see the files, their sizes and SHA-256, and what would
    be called.
    """
    quiet_libraries()
    from pennyweight.export.publish import Destination, publish

    published = publish(
        run,
        to=Destination(to, private=private, revision=revision),
        options=hub.plain(),
        dry_run=dry_run,
    )
    for file in published.files:
        typer.echo(f"{file.bytes:>12,}  {file.sha256}  {file.name}")
    if published.url is not None:
        typer.echo(f"published: {published.url}")
        return
    typer.echo("nothing was uploaded; without --dry-run, these calls would be made:")
    for call in published.calls:
        typer.echo(f"- {call}")
