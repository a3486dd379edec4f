"""Kill commands at random moments, again and again, and check that nothing is lost.

Every scenario runs a command once without a fault. Then it runs the command in a new directory and
with a new cache, kills it with SIGKILL at a random moment, and runs the command that continues it,
which is killed as well, several times; at last it lets the command end, and compares every
result with that of the unbroken one, byte by byte. Two more scenarios start two processes in one
run directory at once, and damage a random byte of the last checkpoint.

    make torture TORTURE="--minutes 30 --kills 200 --write docs/concepts/faults.md"
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from command_server import CommandServer, Ended
from pennyweight.environment import describe_environment
from pennyweight.lab.language_model import LanguageModel, ModelSize
from pennyweight.recipe import dump_recipe
from pennyweight.runs.record import load_record
from tiny import news, save_base, tiny_recipe, write_news

# How often a command is killed before it may end.
_MOST_KILLS = 8
_RATES = {"optimizer.learning_rate": {"low": 1e-3, "high": 1e-1, "log": True}}


@dataclass(slots=True)
class Count:
    """Outcomes of the tries of a scenario."""

    tried: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A command that is killed.

    Attributes:
        first: its arguments, given the directory of the try.
        again: the arguments that continue it.
        results: hashes of what it leaves, by name.
    """

    first: Callable[[Path], tuple[str, ...]]
    again: Callable[[Path], tuple[str, ...]]
    results: Callable[[Path], Mapping[str, str]]


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _run_results(run: Path) -> dict[str, str]:
    """Return hashes of a run's adapter, predictions, losses and metrics."""
    record = load_record(run)
    saved = record.model_dump(mode="json")
    values = {name: saved[name] for name in ("status", "metrics", "best", "mistakes", "data")}
    for step in (values["data"]["training"] or {}).get("steps", ()):
        step["file"] = None  # in the cache, of which every try has its own
    values["losses"] = [(step.step, step.loss, step.evaluation) for step in record.history]
    hashes = {name: _hash(json.dumps(value).encode()) for name, value in values.items()}
    with np.load(run / "predictions.npz") as predictions:
        hashes["predictions"] = _hash(*(predictions[name].tobytes() for name in predictions))
    for file in sorted((run / "adapter").iterdir()):
        if file.name != "README.md":  # its title is the name of the directory
            hashes[file.name] = _hash(file.read_bytes())
    leftovers = [file.name for file in run.rglob(".*") if file.name != ".lock"]
    return {**hashes, "leftovers": ", ".join(leftovers)}


def _search_results(out: Path) -> dict[str, str]:
    search = json.loads((out / "search.json").read_text(encoding="utf-8"))
    values = [(row["run"], row["values"], row["value"]) for row in search["rows"]]
    hashes = {"rows": _hash(json.dumps(values).encode())}
    for row in search["rows"]:
        file = out / row["run"] / "adapter" / "adapter_model.safetensors"
        hashes[row["run"]] = _hash(file.read_bytes())
    return hashes


def _study_results(out: Path) -> dict[str, str]:
    study = json.loads((out / "study.json").read_text(encoding="utf-8"))
    values = [(row["name"], row["values"], row["failures"]) for row in study["rows"]]
    return {"rows": _hash(json.dumps(values).encode())}


def _file_results(out: Path) -> dict[str, str]:
    leftovers = [file.name for file in out.iterdir() if file.name.startswith(".")]
    return {"answers": _hash((out / "answers.csv").read_bytes()), "leftovers": str(leftovers)}


def scenarios(folder: Path) -> dict[str, Scenario]:
    """Return what is killed, by name; recipes are in `folder`."""

    def training(recipe: str) -> Scenario:
        return Scenario(
            lambda out: ("train", f"{recipe}.toml", "--out", str(out)),
            lambda out: ("train", f"{recipe}.toml", "--out", str(out), "--resume"),
            _run_results,
        )

    def repeated(*arguments: str, results: Callable[[Path], Mapping[str, str]]) -> Scenario:
        def command(out: Path) -> tuple[str, ...]:
            return (*arguments, "--out", str(out))

        return Scenario(command, command, results)

    def predict(out: Path) -> tuple[str, ...]:
        out.mkdir(exist_ok=True)
        return ("predict", "trained", "--data", "rows.csv", "--out", str(out / "answers.csv"))

    return {
        "training": training("train"),
        "augmentation": training("augment"),
        "generation": training("generate"),
        "search": repeated("search", "search.toml", results=_search_results),
        "study": repeated("study", "study.toml", results=_study_results),
        "predict": Scenario(predict, predict, _file_results),
    }


def write_recipes(folder: Path) -> None:
    """Write a tiny base, rows, and a recipe for each scenario."""
    base = save_base(folder / "bert", "bert")
    # As few rows as give some checkpoints: the moments between them matter, and not the steps.
    rows = news(56, seed=1)
    for name, part in (("train", rows[:32]), ("validation", rows[32:44]), ("test", rows[44:])):
        write_news(folder / f"{name}.csv", part)
    write_news(folder / "rows.csv", news(600, seed=2))

    def write(name: str, **sections: Mapping[str, Any]) -> None:
        own = {**sections, "train": {"evaluate_every": 2, "epochs": 2, **sections.get("train", {})}}
        recipe = tiny_recipe(base, folder, **{"evaluate": {"baselines": []}, **own})
        (folder / f"{name}.toml").write_text(dump_recipe(recipe), encoding="utf-8")

    write(
        "train",
        adapter={"dropout": 0.1},
        train={"trackers": ["tensorboard"]},
        evaluate={"baselines": ["tf-idf"]},
    )
    augmentations = [{"method": "swap"}, {"method": "typos", "copies": 2}]
    filters = [{"method": "duplicates"}]
    write("augment", data={"augmentations": augmentations, "filters": filters})
    texts = [text for _, text in rows]
    size = ModelSize(vocabulary=300, layers=1, width=32, heads=2, context=64)
    LanguageModel.untrained(texts, size).save(folder / "language-model")
    write(
        "generate",
        data={"target": str(folder / "rows.csv")},
        generate={
            "model": str(folder / "language-model"),
            "per_class": 4,
            "longest": 8,
            "batch_rows": 4,
            "adaptation": {"method": "lora", "rank": 2, "epochs": 1.0},
            "gates": {"judge": "off"},
        },
    )
    write("search", search={"trials": 2, "ranges": _RATES, "pruning": "off"})
    (folder / "study.toml").write_text(
        'recipe = "train.toml"\nseeds = [1]\n[[rows]]\nname = "one"\n'
        '[[rows]]\nname = "two"\nset = ["optimizer.learning_rate=0.02"]\n',
        encoding="utf-8",
    )


class Torture:
    """Tries every scenario until the time is up or the tries are done.

    Args:
        folder: a directory, which is created.
        seed: of the moments.
    """

    def __init__(self, folder: Path, *, seed: int) -> None:
        self.folder = folder
        self.draw = random.Random(seed)  # noqa: S311 - moments, not secrets
        self.counts: dict[str, Count] = {}
        folder.mkdir()
        write_recipes(folder)
        (folder / "logs").mkdir()
        self.server = CommandServer(folder / "logs", cache=folder / "cache")
        self.scenarios = scenarios(folder)
        self.others = {"damaged checkpoint": self.damage, "two processes in one run": self.race}
        self.expected: dict[str, Mapping[str, str]] = {}
        self.seconds: dict[str, float] = {}
        self._require(self.server.run(*self._train("trained"), cwd=folder))

    def _train(self, out: str, *more: str) -> tuple[str, ...]:
        return ("train", "train.toml", "--out", out, *more)

    @staticmethod
    def _require(ended: Ended) -> None:
        if ended.code:
            raise SystemExit(f"without a fault, the command ends with {ended.code}: {ended.output}")

    def _reference(self, name: str) -> None:
        """Run a scenario without a fault, with a cache of its own."""
        scenario, out = self.scenarios[name], self.folder / f"{name}-whole"
        cache = self.folder / f"{name}-cache"
        ended = self.server.run(*scenario.first(out), cwd=self.folder, cache=cache)
        self._require(ended)
        self.expected[name], self.seconds[name] = scenario.results(out), ended.seconds

    def kill(self, name: str) -> None:
        """Kill a command up to `_MOST_KILLS` times, let it end, and compare."""
        if name not in self.expected:
            self._reference(name)
        scenario, count = self.scenarios[name], self.counts.setdefault(name, Count())
        out, cache = self.folder / "try", self.folder / "try-cache"
        for path in (out, cache):
            shutil.rmtree(path, ignore_errors=True)
        arguments, kills = scenario.first(out), 0
        options = {"cwd": self.folder, "cache": cache}
        moments: list[str] = []
        for _ in range(self.draw.randint(1, _MOST_KILLS)):
            moment = self.draw.uniform(0.0, self.seconds[name])
            ended = self.server.start(*arguments, **options).wait(kill_after=moment)
            if ended.code != -signal.SIGKILL:
                break
            kills += 1
            moments.append(f"{moment:.2f} s")
            if out.is_dir():
                arguments = scenario.again(out)
        if ended.code == -signal.SIGKILL:
            ended = self.server.run(*arguments, **options)
        count.tried += kills
        problem = self._problem(name, ended, out)
        if problem is None:
            count.survived += kills
        elif kills or ended.code:
            count.lost.append(f"killed after {', '.join(moments)}: {problem}")
            shutil.copytree(out, self.folder / f"lost-{name}-{len(count.lost)}", dirs_exist_ok=True)

    def _problem(self, name: str, ended: Ended, out: Path) -> str | None:
        """Return what differs from the unbroken command; None if nothing does."""
        if ended.code:
            return f"exit code {ended.code}: {ended.last_line}"
        try:
            results = self.scenarios[name].results(out)
        except Exception as error:  # noqa: BLE001 - any of them is a loss
            return f"{type(error).__name__}: {error}"
        expected = self.expected[name]
        differing = [key for key in expected if results.get(key) != expected[key]]
        return f"other bytes: {', '.join(differing)}" if differing else None

    def damage(self) -> None:
        """Kill a training, flip a random bit of its last checkpoint, and resume it."""
        count = self.counts.setdefault("damaged checkpoint", Count())
        if "training" not in self.expected:
            self._reference("training")
        out = self.folder / "try"
        shutil.rmtree(out, ignore_errors=True)
        command = self.server.start(*self.scenarios["training"].first(out), cwd=self.folder)
        command.wait_for("step 5/")
        command.signal(signal.SIGKILL)
        command.wait()
        if not (out / "checkpoints" / "previous").is_dir():
            return
        count.tried += 1
        file = self.draw.choice(sorted((out / "checkpoints" / "last").glob("*[!n]")))
        content = bytearray(file.read_bytes())
        content[self.draw.randrange(len(content))] ^= 1 << self.draw.randrange(8)
        file.write_bytes(content)
        ended = self.server.run(*self.scenarios["training"].again(out), cwd=self.folder)
        problem = self._problem("training", ended, out)
        if "the checkpoint before it is used" not in ended.output:
            problem = problem or f"{file.name}: the damage was not seen"
        if problem is None:
            count.survived += 1
        else:
            count.lost.append(problem)

    def race(self) -> None:
        """Start two processes in one run directory at the same time."""
        count = self.counts.setdefault("two processes in one run", Count())
        if "training" not in self.expected:
            self._reference("training")
        out = self.folder / "try"
        shutil.rmtree(out, ignore_errors=True)
        arguments = self.scenarios["training"].first(out)
        both = [self.server.start(*arguments, cwd=self.folder) for _ in range(2)]
        ended = sorted((command.wait() for command in both), key=lambda one: one.code)
        count.tried += 1
        problem = self._problem("training", ended[0], out)
        if ended[1].code != 2 or "Traceback" in ended[1].output:
            problem = problem or f"the second was not refused: {ended[1].last_line}"
        if problem is None:
            count.survived += 1
        else:
            count.lost.append(problem)

    def run(self, *, minutes: float, kills: int, others: int) -> None:
        """Try until so many kills and others are done, or the time is up.

        Every fault gets the same share of the time, so short commands are killed more often.
        """
        end = time.monotonic() + 60.0 * minutes
        spent = dict.fromkeys((*self.scenarios, *self.others), 0.0)
        while time.monotonic() < end:
            done = sum(map(self._tried, self.scenarios))
            pending = [
                *(self.scenarios if done < kills else ()),
                *(name for name in self.others if self._tried(name) < others),
            ]
            if not pending:
                return
            name = min(pending, key=spent.__getitem__)
            began = time.monotonic()
            if name in self.others:
                self.others[name]()
            else:
                self.kill(name)
            spent[name] += time.monotonic() - began
            print(table(_total([self])), flush=True)

    def _tried(self, name: str) -> int:
        return self.counts.get(name, Count()).tried


def table(counts: Mapping[str, Count]) -> str:
    """Return the counts as a Markdown table, with a line for each loss."""
    lines = ["| Fault | Tried | Survived | Lost |", "|---|--:|--:|--:|"]
    for name, count in counts.items():
        lost = count.tried - count.survived
        lines.append(f"| {name} | {count.tried} | {count.survived} | {lost} |")
    losses = [f"- {name}: {problem}" for name, count in counts.items() for problem in count.lost]
    return "\n".join([*lines, *(["", *losses] if losses else [])]) + "\n"


def _total(tortures: Sequence[Torture]) -> dict[str, Count]:
    """Return the sums of the counts."""
    total: dict[str, Count] = {}
    for torture in tortures:
        for name, count in torture.counts.items():
            title = f"SIGKILL during {name}" if name in torture.scenarios else name
            part = total.setdefault(title, Count())
            part.tried += count.tried
            part.survived += count.survived
            part.lost += count.lost
    return dict(sorted(total.items()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="stop after so many minutes")
    parser.add_argument("--kills", type=int, default=200, help="the number of kills")
    parser.add_argument("--others", type=int, default=20, help="tries of each other fault")
    parser.add_argument("--jobs", type=int, default=1, help="how many are tried at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--write", type=Path, help="a page between whose marks the table goes")
    return parser.parse_args()


def _write(page: Path, counts: str, *, command: str, minutes: float) -> None:
    """Replace what is between the marks of a page."""
    text = page.read_text(encoding="utf-8")
    start, end = "<!-- torture -->", "<!-- /torture -->"
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    facts = describe_environment()
    machine = f"{facts['processor']}, {platform.system()}"
    note = f"Measured with `{command}` on {machine}, in {minutes:.0f} minutes."
    page.write_text(f"{before}{start}\n{counts}\n{note}\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Run everything and print the table; exit with 1 if anything was lost."""
    options = _options()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        tortures = [
            Torture(Path(folder) / str(job), seed=options.seed + job) for job in range(options.jobs)
        ]
        shares = {
            "minutes": options.minutes,
            "kills": -(-options.kills // options.jobs),
            "others": -(-options.others // options.jobs),
        }
        try:
            for future in [pool.submit(torture.run, **shares) for torture in tortures]:
                future.result()
        finally:
            for torture in tortures:
                torture.server.close()
    counts = _total(tortures)
    minutes = (time.monotonic() - began) / 60.0
    print(f"{table(counts)}\n{minutes:.0f} minutes")
    if options.write is not None:
        arguments = f"--kills {options.kills} --jobs {options.jobs} --seed {options.seed}"
        command = f'make torture TORTURE="{arguments}"'
        _write(options.write, table(counts), command=command, minutes=minutes)
    if any(count.lost for count in counts.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
