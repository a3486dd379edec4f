"""The reference of recipes and studies, from their schema."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pennyweight.recipe import Recipe, shipped_recipes
from pennyweight.recipe.data import SourceTable
from pennyweight.recipe.fields import literals_of, models_in
from pennyweight.recipe.study import Row, StudyTable, shipped_studies
from reference_pages.markdown import GENERATED, anchor, code, table
from reference_pages.types import type_of, without_none

__all__ = ["recipe_page"]


def recipe_page() -> str:
    """Return the reference of recipes and studies: every section with its keys."""
    intro = """\
    # Recipes

    A recipe is a TOML file that describes a complete training run. Every key has a default unless
    the tables below say *required*, so a recipe contains only the keys that differ from the
    defaults. An unknown key is an error that suggests the closest known key, and an invalid value
    is an error that lists the allowed values.

    - `extends = "NAME"` starts from a shipped recipe or from another file. Sections are merged key
      by key: a key of the extending recipe replaces the same key of the other one.
    - `--set KEY=VALUE` on the command line overrides a single key, for example
      `--set adapter.rank=8`.
    - Relative paths in a recipe file are resolved against the file's folder, and those in `--set`
      and in shipped recipes against the working directory.
    - `recipe.toml` in a run directory is the complete recipe, with every default written out.
      `pennyweight train RUN --out NEW` repeats the run.

    These recipes ship with Pennyweight and are referred to by name instead of by file:
    """
    blocks = [
        GENERATED + textwrap.dedent(intro).rstrip(),
        table(("Name", "Summary"), [(f"`{n}`", s) for n, s in shipped_recipes().items()]),
        *_section_blocks("Top-level keys", [Recipe], path=()),
        "## Sources of rows",
        _sentence(SourceTable) + " `data.train`, `data.validation`, `data.target` and the sets in "
        "`[evaluate]` are sources:",
        code(
            'train = "tickets.csv"', 'validation = { location = "b.csv", label_column = "queue" }'
        ),
        _key_table([SourceTable], path=()),
        "[File formats](methods.md#file-formats) lists the formats.",
        *_study_blocks(),
    ]
    return "\n\n".join(blocks) + "\n"


def _study_blocks() -> Iterator[str]:
    intro = """\
    ## Studies

    A study is a TOML file that describes variations of a recipe.
    `pennyweight study STUDY --out DIR` trains every row with every seed, each in its own run
    directory, and prints a table with means, 95% intervals and a paired test against the first
    row.

    ```toml
    recipe = "spar-lora"
    seeds = [1, 2, 3]

    [[rows]]
    name = "rank 4"

    [[rows]]
    name = "rank 8"
    set = ["adapter.rank=8"]
    ```

    Paths in a study, including that of its recipe, are relative to the working directory. These
    studies ship with Pennyweight and are referred to by name instead of by file:
    """
    yield textwrap.dedent(intro).rstrip()
    yield table(("Name", "Summary"), [(f"`{n}`", s) for n, s in shipped_studies().items()])
    yield _key_table([StudyTable], path=())
    yield from _section_blocks("`[[rows]]`", [Row], path=("rows",))


def _section_blocks(
    title: str, models: Sequence[type[BaseModel]], *, path: tuple[str, ...]
) -> Iterator[str]:
    """Yield heading, description and keys of a section, followed by its subsections."""
    yield f"{'#' * min(len(path) + 2, 4)} {title}"
    if len(models) == 1:
        if path:
            yield _sentence(models[0])
    else:
        yield "The key `method` selects one of the following:"
        yield table(
            ("Method", "Description"),
            [(_method_names(model), _sentence(model)) for model in models],
        )
    keys = _key_table(models, path=path)
    yield keys or "This section has no other keys."
    for name, field in _fields(models):
        members = _subsections(field)
        if members:
            inner = (*path, name)
            yield from _section_blocks(_title(field, inner), members, path=inner)


def _title(field: FieldInfo, path: tuple[str, ...]) -> str:
    """Return the name of a section as it stands in TOML."""
    is_list = get_origin(without_none(field.annotation)) is tuple
    name = ".".join(path)
    return f"`[[{name}]]`" if is_list else f"`[{name}]`"


def _fields(models: Sequence[type[BaseModel]]) -> list[tuple[str, FieldInfo]]:
    """Return the fields of all models, each name once."""
    return list({name: f for m in reversed(models) for name, f in m.model_fields.items()}.items())


def _subsections(field: FieldInfo) -> list[type[BaseModel]]:
    """Return the sections below a field; a source of rows is described in one place."""
    return [model for model in models_in(field.annotation) if model is not SourceTable]


def _key_table(models: Sequence[type[BaseModel]], *, path: tuple[str, ...]) -> str:
    """Return a table of the keys; where methods differ in a key, with one row for each variant."""
    rows: dict[tuple[str, str, str, str], list[type[BaseModel]]] = {}
    for model in models:
        for name, field in model.model_fields.items():
            if name == "method" and len(models) > 1:
                continue
            row = (f"`{name}`", type_of(field), _default(field), _description(field, (*path, name)))
            rows.setdefault(row, []).append(model)
    if not rows:
        return ""
    order = {name: number for number, name in enumerate(dict.fromkeys(row[0] for row in rows))}
    ordered = sorted(rows, key=lambda row: order[row[0]])
    if len(models) == 1:
        return table(("Key", "Type", "Default", "Description"), ordered)
    return table(
        ("Key", "Methods", "Type", "Default", "Description"),
        [(row[0], _which_methods(rows[row], models), *row[1:]) for row in ordered],
    )


def _which_methods(chosen: Sequence[type[BaseModel]], models: Sequence[type[BaseModel]]) -> str:
    if len(chosen) == len(models):
        return "all"
    left_out = [model for model in models if model not in chosen]
    if len(left_out) == 1 and len(chosen) > 1:
        return f"all but {_method_names(left_out[0])}"
    return ", ".join(_method_names(model) for model in chosen)


def _method_names(model: type[BaseModel]) -> str:
    names = literals_of(model.model_fields["method"].annotation)
    return ", ".join(f"`{name}`" for name in names)


def _sentence(model: type[BaseModel]) -> str:
    """Return the docstring of a section as one paragraph."""
    text = " ".join(str(model.__doc__).split()).removeprefix("`[adapter]`: ")
    return text[0].upper() + text[1:]


def _description(field: FieldInfo, path: tuple[str, ...]) -> str:
    members = _subsections(field)
    if field.description is None:
        text = _sentence(members[0])
    else:
        text = f"{field.description[0].upper()}{field.description[1:]}"
    if members:
        title = _title(field, path)
        text = f"{text.rstrip('.')}; see [{title}](#{anchor(title)})"
    return text if text.endswith(".") else f"{text}."


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "not set"
    if isinstance(value, BaseModel):
        return f'`method = "{value.method}"`' if hasattr(value, "method") else "all defaults"
    return f"`{_toml(value)}`"


def _toml(value: object) -> str:
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return f"{value:_}" if value >= 10_000 else str(value)
    if isinstance(value, Mapping):
        return "{}" if not value else json.dumps(value)
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
