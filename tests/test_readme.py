"""Every command in README.md, the tutorials and the how-to guides works as printed.

Every command is parsed with the real parser, and its overrides are checked against the recipe.
Commands of README.md and of tutorials are also run, in order, in a directory with stand-ins for
the reader's files (see `_write_stand_ins`). Trainings are cut to a few steps.

An HTML comment before a block changes what is done with it:

- `<!-- test: parse -->`: only parse the block, because it needs a network or takes minutes;
- `<!-- test: run -->`: also run the block, in a how-to guide;
- `<!-- test: file NAME -->`: write the block into this file, so that later commands find it. A
  TOML block that begins with its name, as in `# mine.toml`, is written without a comment.
"""

from __future__ import annotations

import csv
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import pennyweight
from pennyweight.cli.main import app
from pennyweight.cli.options import RecipeOptions
from pennyweight.recipe import Recipe, load_recipe, shipped_recipes
from pennyweight.recipe.study import StudyTable, load_study, shipped_studies
from tiny import news, write_news

ROOT = Path(__file__).parents[1]
_SHELLS = ("", "bash", "sh", "shell", "console")
# Programs a block may call. A block without a language that calls none of them is output.
_PROGRAMS = (
    "pennyweight",
    "make",
    "pip",
    "python",
    "torchrun",
    "cd",
    "git",
    "mkdocs",
    "ruff",
    "pdflatex",
    "source",
)
# Commands that serve until they are stopped, or take minutes even on tiny data.
_ONLY_PARSED = ("ui", "serve", "report", "study")
_SHORT = {
    "train.max_steps": "2",
    "train.log_every": "1",
    "train.evaluate_every": "epoch",
    "data.max_tokens": "16",
}
# Outside of README.md also without what follows from regressions on the embeddings of all rows.
_SHORTER = {**_SHORT, "evaluate.baselines": "[]", "train.head_end": "trained"}
_FENCE = re.compile(
    r"(?:^<!-- test: (?P<mark>[^>]*?) -->\n\n?)?^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: str
    line: int
    language: str
    text: str
    mark: str

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def is_run(self) -> bool:
        if self.mark in ("parse", "run"):
            return self.mark == "run"
        return not self.document.startswith("docs/how-to/")

    @property
    def file(self) -> str | None:
        """The file that later commands expect to hold this block."""
        named = re.match(r"# ([\w-]+\.toml)\n", self.text) if self.language == "toml" else None
        return self.mark[5:] if self.mark.startswith("file ") else named[1] if named else None

    @property
    def commands(self) -> list[list[str]]:
        """The commands as lists of words; none if the block is not a shell block."""
        if self.language not in _SHELLS:
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        if any(line.startswith("$ ") for line in lines):
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        parts = [part for line in lines for part in line.split(" && ")]
        words = [_words(part) for part in parts if part.strip() and not part.startswith("#")]
        if self.language == "" and not any(_program(command) in _PROGRAMS for command in words):
            return []
        return [command for command in words if command]


def _words(line: str) -> list[str]:
    """Split a command line into words, without variables, comment, pipe and redirection."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # an apostrophe in output
        return line.split()
    for stop in ("|", "<", ">", ">>"):
        if stop in words:
            words = words[: words.index(stop)]
    return list(dropwhile(re.compile(r"[A-Z_]+=").match, words))


def _program(command: list[str]) -> str:
    path = Path(command[0])
    # A program of an environment, as in .venv/bin/pennyweight; any other path is not a program.
    name = path.name if path.parent.name in ("", "bin") else command[0]
    return "python" if name.startswith("python3") else name


def _documents() -> list[Path]:
    folders = (ROOT / "docs" / "tutorials", ROOT / "docs" / "how-to")
    return [
        ROOT / "README.md",
        *(path for folder in folders for path in sorted(folder.glob("*.md"))),
    ]


def _blocks(document: Path) -> Iterator[Block]:
    text = document.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        yield Block(
            document.relative_to(ROOT).as_posix(),
            text.count("\n", 0, match.start("language")) + 1,
            match["language"],
            match["text"],
            (match["mark"] or "").strip(),
        )


def _way(block: Block, command: list[str]) -> str:
    """Return whether a command is run besides being parsed."""
    is_run = block.is_run and _program(command) == "pennyweight" and command[1] not in _ONLY_PARSED
    return "parsed and run" if is_run else "parsed"


BLOCKS = [block for document in _documents() for block in _blocks(document)]
COMMANDS = [
    pytest.param(block, command, id=f"{block.place} ({_way(block, command)}) {' '.join(command)}")
    for block in BLOCKS
    for command in block.commands
]


@pytest.mark.parametrize(("block", "command"), COMMANDS)
def test_every_command_can_be_parsed(
    block: Block, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The runs of the documents do not exist here.
    monkeypatch.setattr("pennyweight.cli.options.require_run", lambda run: None)
    assert block.mark in ("", "parse", "run"), f"{block.place}: unknown mark {block.mark}"
    program = _program(command)
    if program in ("torchrun", "accelerate"):
        names = [Path(word).name for word in command]
        command, program = command[names.index("pennyweight") :], "pennyweight"
    match program:
        case "pennyweight":
            _check_arguments(command[1:])
        case "make":
            makefile = (ROOT / "Makefile").read_text()
            for target in (word for word in command[1:] if "=" not in word):
                assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target
        case "pip":
            _check_installation(command[1:])
        case "python":
            _check_script(command[1:])
        case _:
            assert program in _PROGRAMS, f"{block.place}: not a known program: {program}"


def _check_arguments(arguments: list[str]) -> None:
    """Parse the arguments, and validate the overrides of recipes and studies."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert arguments, "a command is missing"
        name, *arguments = arguments
        assert name in command.commands, f"no command {name}"
        command = command.commands[name]
    if "--help" in arguments:
        return
    values = command.make_context(command.name, list(arguments)).params
    overrides = values.get("overrides") or ()
    if values.get("study") in shipped_studies():
        load_study(values["study"], overrides=list(overrides))
    elif "study" not in values:
        _load_options(values)


def _recipe_options(values: dict[str, Any]) -> RecipeOptions:
    """Return the recipe and its overrides from the parameters of a command; "demo" has none."""
    names = {field.name for field in fields(RecipeOptions)} & set(values)
    return RecipeOptions(**{"recipe": "demo", **{name: values[name] for name in names}})


def _load_options(values: dict[str, Any]) -> Recipe:
    """Load the recipe of a command, with the quickstart in place of a reader's own recipe."""
    options = _recipe_options(values)
    # Only `plan` has rows of its own: those of the bundled sample.
    is_plan = "explain" in values
    assert options.recipe or options.data or is_plan, "neither a recipe nor --data"
    if options.recipe not in shipped_recipes():
        options = replace(options, recipe="quickstart")
    return options.load("data.target=sample:shifted")


def _load(recipe: str, overrides: list[str]) -> Recipe:
    # Files of the reader do not exist here, and no section is missing its target.
    return load_recipe(recipe, overrides=["data.target=sample:shifted", *overrides])


def _check_installation(arguments: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert arguments[0] in ("install", "wheel")
    for package in (word for word in arguments[1:] if "[" in word):
        for extra in package.partition("[")[2].rstrip("]").split(","):
            assert extra in extras, package


def _check_script(arguments: list[str]) -> None:
    if arguments and not arguments[0].startswith("-"):
        assert (ROOT / arguments[0]).is_file(), arguments[0]
    if arguments[:2] == ["-m", "pennyweight"]:
        _check_arguments(arguments[2:])


def _write_stand_ins(folder: Path) -> None:
    """Write the files that commands in the documents name.

    tickets.csv and tickets_test.csv (text, label, subject, body and queue; the labels are billing,
    bug and praise), new.csv (text, subject and body), train.csv, test.csv and unlabelled.csv
    (news), and words.md (sections of a paper).
    """
    words = {"billing": "invoice", "bug": "crash", "praise": "great"}
    tickets = [
        (f"{word} report number {n}", label, word, f"number {n}", label)
        for n in range(60)
        for label, word in words.items()
    ]
    header = ("text", "label", "subject", "body", "queue")
    for name, rows in (("tickets.csv", tickets[:150]), ("tickets_test.csv", tickets[150:])):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    with (folder / "new.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("text", "subject", "body"), *((row[0], row[2], row[3]) for row in tickets[:6])]
        )
    names = ("World", "Sports", "Business", "Sci/Tech")
    rows = news(172, seed=3)
    write_news(folder / "train.csv", [(names[n], text) for n, text in rows[:120]])
    write_news(folder / "test.csv", [(names[n], text) for n, text in rows[120:152]])
    text = "".join(f"{text}\n" for _, text in rows[152:])
    (folder / "unlabelled.csv").write_text(f"text\n{text}", encoding="utf-8")
    (folder / "words.md").write_text("# Overview\n\nWords of our own.\n", encoding="utf-8")


@pytest.mark.parametrize(
    "document", dict.fromkeys(block.document for block in BLOCKS if block.is_run)
)
def test_the_commands_of_a_document_run_in_order(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _write_stand_ins(tmp_path)
    for block in (block for block in BLOCKS if block.document == document):
        if block.file is not None:
            Path(block.file).write_text(block.text, encoding="utf-8")
        for command in block.commands if block.is_run else ():
            if _way(block, command) == "parsed and run":
                short = _SHORT if document == "README.md" else _SHORTER
                outcome = _run(command[1:], short)
                print(f"{block.place}: {outcome}: {shlex.join(command)}")  # noqa: T201


def _run(arguments: list[str], short: dict[str, str]) -> str:
    """Run a command, or only plan it if its training needs a network; return what was done.

    Args:
        arguments: of the command.
        short: the overrides that shorten a training.
    """
    verb, *rest = arguments
    if verb in ("train", "demo"):
        values: Any = (
            typer.main.get_command(app).commands[verb].make_context(verb, list(rest)).params  # type: ignore[attr-defined]
        )
        if _needs_network(_recipe_options(values).load()):
            sets = [part for text in values["overrides"] or () for part in ("--set", text)]
            _invoke(["plan", values["recipe"], *sets])
            return "planned"
        for key, value in short.items():
            rest += ["--set", f"{key}={value}"]
    _invoke([verb, *rest])
    return "run"


def _needs_network(recipe: Recipe) -> bool:
    sources = (recipe.data.train, recipe.data.validation, recipe.evaluate.test)
    is_local = recipe.base.name == "embedded" or Path(recipe.base.name).is_dir()
    return not is_local or any(s is not None and s.location.startswith("hub:") for s in sources)


def _invoke(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(f"{shlex.join(arguments)}: {result.exception}") from result.exception
    assert result.exit_code == 0, f"{shlex.join(arguments)}: {result.output}"


OTHERS = [
    pytest.param(block, id=block.place) for block in BLOCKS if block.language in ("toml", "python")
]


@pytest.mark.parametrize("block", OTHERS)
def test_recipes_are_valid_and_python_uses_names_that_exist(block: Block, tmp_path: Path) -> None:
    if block.language == "python":
        compile(block.text, block.place, "exec")
        for name in re.findall(r"(?<![/\w])pennyweight\.(\w+)", block.text):
            assert hasattr(pennyweight, name) or (ROOT / "src" / "pennyweight" / name).exists(), (
                name
            )
        return
    values = tomllib.loads(block.text)
    if "recipe" in values:
        StudyTable.model_validate(values)
    elif set(values) <= {*Recipe.model_fields, "extends"}:
        file = tmp_path / "recipe.toml"
        parent = "" if "extends" in values else 'extends = "quickstart"\n'
        file.write_text(parent + block.text, encoding="utf-8")
        _load(str(file), [])


def test_the_readme_has_commands_that_are_run() -> None:
    readme = [block for block in BLOCKS if block.document == "README.md"]
    verbs = {
        command[1]
        for block in readme
        if block.is_run
        for command in block.commands
        if _program(command) == "pennyweight"
    }
    assert {"train", "predict", "plan"} <= verbs
