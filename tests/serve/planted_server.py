"""Serve planted classifiers in a process of its own.

    python planted_server.py FOLDER SECONDS SECONDS_PER_ROW QUEUE_ROWS TIMEOUT

Every directory in FOLDER is a planted run; prints the address once the server answers.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pennyweight.serve.options import Access, Batching, Limits, ServeOptions
from pennyweight.serve.server import serve
from serve.planted import PlantedBank


def main() -> None:
    folder = Path(sys.argv[1])
    seconds, per_row, queue_rows, timeout = map(float, sys.argv[2:6])
    options = ServeOptions(
        port=0,
        drain_seconds=0.5,
        limits=Limits(queue_rows=int(queue_rows), request_texts=64, timeout_seconds=timeout),
        batching=Batching(batch_rows=32),
        access=Access(loading_folder=folder),
    )
    runs = {run.name: run for run in sorted(folder.iterdir())}
    bank = PlantedBank(seconds=seconds, seconds_per_row=per_row)
    serve(bank, runs, options, announce=announce)


def announce(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
