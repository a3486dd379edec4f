"""Plan files: rank and alpha of every matrix, and the head, as TOML that people read and edit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from pennyweight.budget.methods import AdapterSection
from pennyweight.budget.spending import AUTO_SCALING
from pennyweight.budget.summary import Matrix, PlanSummary
from pennyweight.documents import DocumentError, read_toml
from pennyweight.errors import RecipeError
from pennyweight.files import replacing
from pennyweight.recipe.problems import describe
from pennyweight.section import Section

__all__ = [
    "PlanFile",
    "PlannedHead",
    "PlannedMatrix",
    "dump_plan_file",
    "read_plan_file",
    "with_plan_file",
    "write_plan_file",
]


class PlannedMatrix(Section):
    """The adapter of one matrix; rank 0 leaves it without one."""

    rank: NonNegativeInt = Field(description="the rank")
    alpha: PositiveFloat | None = Field(None, description="the alpha; if not set, twice the rank")


class PlannedHead(Section):
    """How the classification head is trained."""

    kind: Literal["full", "low-rank", "output-only", "frozen"] = Field(
        description="the value of adapter.head"
    )
    rank: PositiveInt | None = Field(None, description="the value of adapter.head_rank")
    alpha: PositiveFloat | None = Field(
        None, description="the alpha of a low-rank head's adapter; if not set, twice the rank"
    )


class PlanFile(Section):
    """The content of a plan file."""

    head: PlannedHead
    matrices: dict[str, PlannedMatrix] = Field(min_length=1)


def read_plan_file(path: Path) -> PlanFile:
    """Read a plan file.

    Raises:
        RecipeError: it does not exist, or is not a plan; the message names the key.
    """
    try:
        plan = PlanFile.model_validate(read_toml(path))
    except ValidationError as error:
        message = describe(error, model=PlanFile, origin=lambda _: f"plan {path}")
        raise RecipeError(message) from None
    except DocumentError as error:
        raise RecipeError(f"plan {path}: {error}") from None
    except OSError as error:
        raise RecipeError(
            f"plan {path}: cannot be read: {error.strerror}; write one with "
            f"pennyweight plan --out {path}"
        ) from None
    if not any(matrix.rank for matrix in plan.matrices.values()):
        raise RecipeError(f"plan {path}: every matrix has rank 0, so there is nothing to adapt")
    if plan.head.kind == "low-rank" and plan.head.rank is None:
        raise RecipeError(f'plan {path}: head.rank: missing; head.kind = "low-rank" needs one')
    return plan


def with_plan_file(section: AdapterSection) -> AdapterSection:
    """Return an `[adapter]` section with the ranks, alphas and head of its plan file.

    A section that names no plan file is returned as it is.

    Raises:
        RecipeError: the file cannot be used.
    """
    values: dict[str, Any] = section.model_dump()
    if values.get("plan") is None:
        return section
    plan = read_plan_file(Path(values["plan"]))
    adapted = {name: matrix for name, matrix in plan.matrices.items() if matrix.rank}
    values |= {
        "plan": None,
        "allocate": None,
        "targets": tuple(adapted),
        "top_layers": "all",
        "rank": {name: matrix.rank for name, matrix in adapted.items()},
        "alpha": _alphas(adapted, plan.head),
        "head": plan.head.kind,
    }
    if plan.head.rank is not None:
        values["head_rank"] = plan.head.rank
    return type(section).model_validate(values)


def _alphas(adapted: Mapping[str, PlannedMatrix], head: PlannedHead) -> str | dict[str, float]:
    """Return the value of `adapter.alpha`: "auto" where every alpha is twice the rank."""
    given = {name: m.alpha or AUTO_SCALING * m.rank for name, m in adapted.items()}
    of_head = head.alpha or AUTO_SCALING * (head.rank or 1)
    if of_head == AUTO_SCALING * (head.rank or 1) and all(
        alpha == AUTO_SCALING * adapted[name].rank for name, alpha in given.items()
    ):
        return "auto"
    # The only matrix besides the listed ones is the dense layer of a low-rank head.
    return {"*": of_head, **given}


def write_plan_file(path: Path, text: str) -> None:
    """Write the text of a plan file.

    Raises:
        RecipeError: the file cannot be written.
    """
    try:
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"--out {path}: cannot be written: {error.strerror or error}") from None


def dump_plan_file(
    summary: PlanSummary,
    section: AdapterSection,
    *,
    head_dense: str | None,
    left_out: Sequence[str],
    origin: str,
) -> str:
    """Return a plan as the text of a plan file.

    Args:
        summary: the plan.
        section: the explicit `[adapter]` section that gave it.
        head_dense: name of the dense layer of the head, which has an adapter if the head is
            "low-rank"; None if there is none.
        left_out: names of matrices without an adapter, which are listed with rank 0.
        origin: one line on where the plan comes from, for the comment at its top.
    """
    values = section.model_dump()
    adapted = [m for m in summary.matrices if m.rank is not None]
    listed = {m.name: m for m in adapted if m.name != head_dense}
    head = next((m for m in adapted if m.name == head_dense), None)
    names = sorted([*listed, *left_out], key=_natural)
    lines = [
        f"# {summary.trainable_parameters:,} of {summary.budget:,} trainable parameters allowed; "
        f"{origin}.",
        "# Edit it, and train with it:",
        "#   pennyweight train RECIPE --plan FILE --out RUN",
        "# A matrix of rank 0 gets no adapter. Without an alpha, it is twice the rank.",
        "",
        "[head]",
        f"kind = {json.dumps(values['head'])}",
        *_head_lines(values, head),
        "",
        "[matrices]",
        *(_line(name, listed.get(name)) for name in names),
    ]
    return "\n".join(lines) + "\n"


def _head_lines(values: Mapping[str, Any], adapter: Matrix | None) -> Iterator[str]:
    if values["head"] != "low-rank":
        return
    yield f"rank = {values['head_rank']}"
    if adapter is not None and adapter.alpha is not None:
        yield f"alpha = {adapter.alpha!r}"


def _line(name: str, matrix: Matrix | None) -> str:
    if matrix is None or not matrix.rank:
        return f"{json.dumps(name)} = {{ rank = 0 }}"
    alpha = "" if matrix.alpha is None else f", alpha = {float(matrix.alpha)!r}"
    return f"{json.dumps(name)} = {{ rank = {matrix.rank}{alpha} }}"


def _natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    """Return a sort key that puts layer 2 before layer 10."""
    return tuple((not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in name.split("."))
