"""Every command of the command line, invoked for real on tiny data."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pennyweight.cli.main import app, main
from pennyweight.errors import BaseModelError
from pennyweight.runs.record import load_record
from pennyweight.training import train

OUTPUT_DENSE = 'adapter.targets=["query", "output.dense"]'
ALL_THREE = 'adapter.targets=["query", "value", "output.dense"]'


def _commands(group: Any, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


VERBS = tuple(_commands(typer.main.get_command(app)))


@dataclass(frozen=True)
class Example:
    """A command line for the workspace.

    Attributes:
        arguments: what follows the verb, as typed into a shell.
        output: a part of what it prints.
        file: a file that it writes.
    """

    arguments: str
    output: str
    file: str | None = None


SHORT_DEMO = (
    "--set train.max_steps=1 --set data.train_rows=48 --set data.max_tokens=16 "
    "--set evaluate.test=sample:shifted --set evaluate.also={} --set evaluate.baselines=[]"
)
LENGTH_FILTER = "--set 'data.filters=[{method=\"length\", shortest=6}]'"
SWAP = "--set 'data.augmentations=[{method=\"swap\"}]'"
GENERATE = (
    "--set generate.model={lm} --set generate.per_class=2 --set generate.longest=12 "
    "--set 'generate.adaptation={method=\"none\"}' --set data.target=test.csv"
)
EXAMPLES = {
    "demo": Example(f"--out runs/demo {SHORT_DEMO}", "Predictions:", "runs/demo/record.json"),
    "plan": Example("tiny.toml --out plan.toml", " of 1,000,000 allowed", "plan.toml"),
    "train": Example("tiny.toml --out runs/two", "verified in runs/two/adapter"),
    "adapt": Example(
        "runs/one --target test.csv --out runs/three --shares uniform --set train.epochs=1",
        "TRANSDUCTIVE: self-training on the target",
    ),
    "evaluate": Example("runs/one --data test.csv", "test.csv accuracy "),
    "predict": Example(
        "runs/one --data test.csv --out predictions.csv",
        "12 rows in predictions.csv",
        "predictions.csv",
    ),
    "drift": Example("runs/one --data test.csv", "expected accuracy "),
    "submit": Example(
        "runs/one --data test.csv --out submission.csv",
        "12 rows in submission.csv",
        "submission.csv",
    ),
    "merge": Example("runs/one --out merged", "merged model in merged", "merged/config.json"),
    "export": Example(
        "runs/one --to onnx --out onnx --minimum-agreement 0.5 --precision int8-dynamic",
        "int8-dynamic ONNX model in onnx",
        "onnx/model.onnx",
    ),
    "publish": Example(
        "runs/one --to me/news --dry-run --base-id me/bert",
        "- HfApi.create_repo('me/news', private=False, exist_ok=True)",
    ),
    "combine": Example(
        "runs/one copies/one --out combined/one",
        "verified in combined/one/adapter",
        "combined/one/record.json",
    ),
    "inspect": Example("runs/one/adapter", "trainable parameters in adapter_model.safetensors"),
    "study": Example("study.toml --out studies/tiny", "accuracy (95%)", "studies/tiny/study.json"),
    "compare": Example("--group one=runs/one --group copy=copies/one", "12 rows, accuracy in %"),
    "search": Example(
        "tiny.toml --out searches/tiny --trials 2", "best recipe: ", "searches/tiny/report.html"
    ),
    "report": Example("runs/one --out report --only figures", "", "report/figures/curves.svg"),
    "ui": Example("runs --port 0", "shows runs"),
    "recipes": Example("", "spar-lora"),
    "methods": Example("", "block_size"),
    "doctor": Example("", "embedded base"),
    "data preview": Example("tiny.toml --set 'data.clean=[\"stop-words\"]'", "before"),
    "data clean": Example("tiny.toml --out clean.parquet", "48 rows", "clean.parquet"),
    "data filter": Example(
        f"tiny.toml --out kept.parquet {LENGTH_FILTER}", " rows in kept.parquet", "kept.parquet"
    ),
    "data augment": Example(
        f"tiny.toml --out made.parquet {SWAP}", " rows in made.parquet", "made.parquet"
    ),
    "data generate": Example(
        f"tiny.toml --out texts.parquet {GENERATE}", " rows in texts.parquet", "texts.parquet"
    ),
    "data overlap": Example("tiny.toml", "found in"),
    "data language-model": Example(
        "train.csv --out lm --layers 1 --width 32 --vocabulary 300 --epochs 0.1",
        "language model in lm",
        "lm/config.json",
    ),
}


@pytest.fixture
def failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[Any, str]]:
    """Runs a command line as the program does; returns its exit code and standard error."""

    def run(*arguments: str) -> tuple[Any, str]:
        monkeypatch.setattr(sys, "argv", ["pennyweight", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    return run


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Asks a server that `ui` starts for its page, and then stops it."""
    pages: list[bytes] = []
    serve_forever = ThreadingHTTPServer.serve_forever

    def ask(server: ThreadingHTTPServer) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=10) as page:
            pages.append(page.read())
        server.shutdown()

    def serve(server: ThreadingHTTPServer) -> None:
        threading.Thread(target=ask, args=(server,)).start()
        serve_forever(server)

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", serve)
    return pages


# `serve` runs until it is stopped; tests/serve starts it.
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "serve"])
def test_every_verb_does_its_work(
    verb: str,
    pennyweight: Callable[..., str],
    in_workspace: Path,
    language_model: Path,
    served: list[bytes],
) -> None:
    example = EXAMPLES[verb]
    arguments = shlex.split(example.arguments.replace("{lm}", str(language_model)))
    assert example.output in pennyweight(*verb.split(), *arguments)
    if example.file is not None:
        assert (in_workspace / example.file).stat().st_size > 0
    assert [b"<html" in page for page in served] == ([True] if verb == "ui" else [])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_its_options(verb: str) -> None:
    result = CliRunner().invoke(app, [*verb.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output
    command: Any = typer.main.get_command(app)
    for name in verb.split():
        command = command.commands[name]
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{verb} {parameter.name}"


def test_the_summaries_in_the_list_of_verbs_are_not_cut_off() -> None:
    for group in ((), ("data",)):
        output = CliRunner().invoke(app, [*group, "--help"]).output
        assert "..." not in output.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("command", "needless"),
    [
        (["--help"], {"torch", "transformers", "datasets", "pydantic", "numpy"}),
        (["recipes"], {"torch", "transformers", "datasets", "peft", "sklearn"}),
        # Needs torch, transformers and PEFT, so it takes seconds. The last one is the compiler,
        # which bitsandbytes would load.
        (["plan", "spar-lora"], {"datasets", "pandas", "sklearn", "torch._inductor.compile_fx"}),
        # Mistakes that are seen without a library.
        (["predict", "nowhere", "--data", "x.csv"], {"torch", "transformers", "datasets"}),
        (["combine", "nowhere", "--out", "x"], {"torch", "transformers", "datasets"}),
    ],
)
def test_commands_load_nothing_that_they_do_not_need(
    command: list[str], needless: set[str]
) -> None:
    code = (
        "import contextlib, sys\nfrom pennyweight.cli.main import app\n"
        "from pennyweight.errors import RunError\n"
        f"with contextlib.suppress(RunError):\n    app({command!r}, standalone_mode=False)\n"
        f"sys.exit(', '.join({needless!r} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("recipe", "changes", "trainable", "total"),
    [
        ("spar-lora", (), 741_124, 125_389_832),
        ("spar-lora", ("adapter.rank=8",), 888_580, 125_537_288),
        ("leon-lora", (), 916_996, 125_463_560),
        ("spar-lora", (OUTPUT_DENSE,), 925_444, 125_574_152),
        ("spar-lora", (ALL_THREE, "adapter.rank=2"), 796_420, 125_445_128),
        ("spar-lora", ('adapter.rank="fill"',), 999_172, 125_647_880),
    ],
)
def test_plan_gives_the_published_counts(
    recipe: str, changes: tuple[str, ...], trainable: int, total: int
) -> None:
    sets = [part for change in changes for part in ("--set", change)]
    result = CliRunner().invoke(app, ["plan", recipe, "--json", *sets])
    plan = json.loads(result.output)
    assert (plan["trainable_parameters"], plan["total_parameters"]) == (trainable, total)
    assert plan["within_budget"]
    assert sum(matrix["parameters"] for matrix in plan["matrices"]) == trainable
    assert set(plan["matrices"][0]) == {
        *("name", "kind", "rank", "alpha", "parameters"),
        *("layer", "role"),
    }


def test_plan_groups_the_matrices_of_all_layers_by_their_role(
    pennyweight: Callable[..., str],
) -> None:
    lines = [line.split() for line in pennyweight("plan", "spar-lora").splitlines()]
    assert ["attention.self.query", "lora", "4", "16", "12", "73,728"] in lines
    assert ["classifier.out_proj.bias", "head", "1", "4"] in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "spar-lroa"), 'did you mean "spar-lora"?'),
        (("plan", "spar-lora", "--set", "adapter.rnak=4"), 'did you mean "rank"?'),
        (
            (
                "plan",
                "spar-lora",
                *("--set", "adapter.rank=16"),
                *("--set", 'adapter.targets=["query","key","value","output.dense"]'),
            ),
            "1,510,596 more than the 1,000,000 allowed",
        ),
        (("evaluate", "nowhere", "--data", "x.csv"), "record.json is missing"),
        (("inspect", "nowhere"), "adapter_config.json is missing"),
        (("publish", "nowhere", "--to", "me/news", "--dry-run"), "record.json is missing"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], message: str, failure: Callable[..., tuple[Any, str]]
) -> None:
    code, errors = failure(*arguments)
    assert code == 2
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_process_ends_with_the_exit_code_of_a_mistake() -> None:
    command = [sys.executable, "-m", "pennyweight", "plan", "spar-lroa"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pennyweight: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_unknown_base_is_an_error_that_names_the_embedded_one(
    tmp_path: Path, pennyweight: Callable[..., str]
) -> None:
    run = tmp_path / "run"
    with pytest.raises(BaseModelError, match=r"--set base\.name=embedded"):
        pennyweight("train", "demo", "--out", str(run), "--set", "base.name=no/such")
    assert not run.exists()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("adapters", "lora"),
        ("allocation", "uniform"),
        ("optimizers", "adamw"),
        ("cleaning", "whitespace"),
        ("filters", "length"),
        ("augmentations", "swap"),
        ("formats", "csv"),
        ("combinations", "greedy"),
    ],
)
def test_every_kind_of_method_is_listed(
    kind: str, name: str, pennyweight: Callable[..., str]
) -> None:
    rows = json.loads(pennyweight("methods", kind, "--json"))
    assert name in [next(iter(row.values())) for row in rows]
    assert all(text for row in rows for key, text in row.items() if key not in ("paper", "endings"))
    assert name in pennyweight("methods", kind)


def test_the_parts_of_a_report_are_those_that_can_be_chosen() -> None:
    from pennyweight.cli.report import PartName
    from pennyweight.report.write import PARTS

    assert [part.value for part in PartName] == list(PARTS)


def test_the_ways_to_combine_runs_are_those_that_can_be_chosen() -> None:
    from pennyweight.cli.combine import CombinationName
    from pennyweight.model.combinations import COMBINATIONS

    assert [name.value for name in CombinationName] == list(COMBINATIONS)


def test_weights_that_are_no_numbers_are_refused(
    in_workspace: Path, failure: Callable[..., tuple[Any, str]]
) -> None:
    arguments = ("combine", "runs/one", "copies/one", "--out", "x", "--method", "weighted")
    expected = "pennyweight: --weights a,b: expected numbers, such as 2,1\n"
    assert failure(*arguments, "--weights", "a,b") == (2, expected)


def test_full_fine_tuning_names_the_directory_that_holds_its_model(
    pennyweight: Callable[..., str], in_workspace: Path, tmp_path: Path
) -> None:
    out = tmp_path / "full"
    output = pennyweight("train", "tiny.toml", "--out", str(out), "--set", "adapter.method=full")
    assert output.endswith(f"verified in {out / 'model'}\n")
    assert (out / "model" / "config.json").is_file()


def test_only_the_first_of_several_processes_prints_the_results(
    pennyweight: Callable[..., str],
    in_workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ("train", "tiny.toml", "--set", "train.max_steps=1", "--out")
    monkeypatch.setattr(train, "train", lambda *_, **__: load_record("runs/one"), raising=True)
    assert "verified in" in pennyweight(*arguments, str(tmp_path / "0"))
    monkeypatch.setenv("RANK", "1")
    assert pennyweight(*arguments, str(tmp_path / "1")) == ""


def test_a_run_over_its_budget_is_said_to_be(
    pennyweight: Callable[..., str], in_workspace: Path, tmp_path: Path
) -> None:
    changes = ["--set", "adapter.method=full", "--set", "budget.trainable_parameters=1000"]
    output = pennyweight("train", "tiny.toml", "--out", str(tmp_path / "full"), *changes)
    last = output.splitlines()[-1]
    assert "over the budget of 1,000: it can serve as a teacher or a baseline" in last
    assert "allowed" not in last


def test_rows_of_other_columns_and_bad_rows_are_read_as_the_options_say(
    pennyweight: Callable[..., str], in_workspace: Path, tmp_path: Path
) -> None:
    data = tmp_path / "rows.txt"
    data.write_text("title,body,queue\nlate goal,the coach,1\nshares,a merger,9\n")
    options = ["--format", "csv", "--text-column", "title", "--text-column", "body"]
    arguments = ["evaluate", "runs/one", "--data", str(data), *options, "--label-column", "queue"]
    metrics = json.loads(pennyweight(*arguments, "--skip-bad-rows", "--json"))
    assert metrics["rows"] == 1
    assert metrics["leaks"] == []
