"""Take and finish trials of a search until none is left, or until this process is killed.

    python kill_store.py OUT TRIALS

A line of `OUT/done.txt` names each trial that was finished.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pennyweight.search.store import WAIT, TrialStore
from search.simulated_job import make_job

if __name__ == "__main__":
    out, trials = Path(sys.argv[1]), int(sys.argv[2])
    store = TrialStore(make_job(out, trials=trials))
    (out / "begun.txt").touch()
    while (trial := store.take()) is not None:
        if isinstance(trial, str):
            assert trial == WAIT
            time.sleep(0.05)
            continue
        run = trial.user_attrs["run"]
        for percent in (25, 50):
            trial.report(0.5, percent)
            time.sleep(0.01)
        # What is finished is on record before the search knows it, as with a real run.
        with (out / f"{run}.txt").open("a") as file:
            file.write(f"{trial.number}\n")
        store.complete(trial, 0.5 + trial.number / 1000, seconds=0.1)
    store.close()
