"""Plan files are read strictly, and become explicit ranks, alphas and a head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pennyweight.budget.summary import Matrix, PlanSummary
from pennyweight.errors import RecipeError
from pennyweight.recipe.plan_file import dump_plan_file, read_plan_file, with_plan_file
from runs.records import example_recipe

QUERY = "bert.encoder.layer.10.attention.self.query"
VALUE = "bert.encoder.layer.2.attention.self.value"


def _file(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _section(path: Path, **keys: Any) -> Any:
    return with_plan_file(example_recipe(adapter={"plan": str(path), **keys}).adapter)


def test_a_plan_file_replaces_ranks_alphas_targets_and_head(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        f'[head]\nkind = "low-rank"\nrank = 3\n[matrices]\n"{QUERY}" = {{ rank = 2 }}\n'
        f'"{VALUE}" = {{ rank = 0 }}\n',
    )
    section = _section(path, rank="fill", dropout=0.1)
    assert section.targets == (QUERY,)
    assert section.rank == {QUERY: 2}
    assert section.alpha == "auto"
    assert (section.head, section.head_rank) == ("low-rank", 3)
    assert section.plan is None
    assert section.dropout == 0.1


def test_alphas_of_their_own_are_kept(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        f'[head]\nkind = "low-rank"\nrank = 3\nalpha = 9.0\n[matrices]\n'
        f'"{QUERY}" = {{ rank = 2, alpha = 16.0 }}\n"{VALUE}" = {{ rank = 5 }}\n',
    )
    # "*" is for the adapter of the head's dense layer.
    assert _section(path).alpha == {"*": 9.0, QUERY: 16.0, VALUE: 10.0}


def test_a_section_without_a_plan_file_stays_as_it_is() -> None:
    section = example_recipe().adapter
    assert with_plan_file(section) is section


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[head", "not valid TOML"),
        ("[matrices]\na = { rank = 1 }", "head: missing"),
        ('[head]\nkind = "ful"\n[matrices]\na = { rank = 1 }', 'head.kind: given "ful"'),
        (
            '[head]\nkind = "full"\n[matrices]\na = { rank = 1, aplha = 2.0 }',
            'did you mean "alpha"',
        ),
        ('[head]\nkind = "full"\n[matrices]\na = { rank = -1 }', "matrices.a.rank: given -1"),
        ('[head]\nkind = "full"\n[matrices]\na = { rank = 0 }', "every matrix has rank 0"),
        ('[head]\nkind = "low-rank"\n[matrices]\na = { rank = 1 }', "head.rank: missing"),
        ('[head]\nkind = "full"\n[matrices]', "matrices: "),
    ],
)
def test_a_wrong_plan_file_is_refused_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        read_plan_file(path)
    assert str(caught.value).startswith(f"plan {path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_plan_file_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"No such file.*pennyweight plan --out"):
        read_plan_file(tmp_path / "none.toml")


@given(
    ranks=st.dictionaries(
        st.integers(0, 12).map(lambda layer: f"encoder.layer.{layer}.attention.self.query"),
        st.tuples(st.integers(1, 99), st.floats(0.01, 500.0)),
        min_size=1,
    )
)
def test_what_is_written_is_read_again(
    ranks: dict[str, tuple[int, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    matrices = tuple(
        Matrix(name, "lora", rank, alpha, 4 * rank, 0, "attention.self.query")
        for name, (rank, alpha) in ranks.items()
    )
    summary = PlanSummary(1000, 10, 100, True, matrices)
    section = example_recipe(adapter={"head": "output-only"}).adapter
    text = dump_plan_file(
        summary, section, head_dense=None, left_out=["encoder.layer.99.x"], origin="a test"
    )
    plan = read_plan_file(_file(tmp_path_factory.mktemp("plan"), text))
    read = {name: (m.rank, m.alpha) for name, m in plan.matrices.items()}
    assert read.pop("encoder.layer.99.x") == (0, None)
    assert read == ranks
    assert plan.head.kind == "output-only"
    layers = [int(name.split(".")[2]) for name in plan.matrices]
    assert layers == sorted(layers)


def test_an_adapter_outside_the_layers_is_listed_and_that_of_the_head_is_not(
    tmp_path: Path,
) -> None:
    matrices = tuple(
        Matrix(name, "lora", 2, alpha, 8, None, name)
        for name, alpha in (("electra.embeddings_project", 4.0), ("classifier.dense", 6.0))
    )
    section = example_recipe(adapter={"head": "low-rank", "head_rank": 2}).adapter
    text = dump_plan_file(
        PlanSummary(1000, 10, 100, True, matrices),
        section,
        head_dense="classifier.dense",
        left_out=[],
        origin="a test",
    )
    plan = read_plan_file(_file(tmp_path, text))
    assert {name: m.rank for name, m in plan.matrices.items()} == {"electra.embeddings_project": 2}
    assert plan.head.alpha == 6.0
