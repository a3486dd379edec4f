"""Studies: rows, seeds, what they sum up to, and going on where one stopped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pennyweight.errors import RecipeError, RunError, TrainingError
from pennyweight.evaluation.compare import mean_interval, paired_p
from pennyweight.recipe import dump_recipe
from pennyweight.recipe.study import load_study, shipped_studies
from pennyweight.runs import studies
from pennyweight.runs.record import load_record
from pennyweight.runs.studies import run_study
from runs.tiny import tiny_recipe


@pytest.fixture
def file(roberta: Path, sets: Path, tmp_path: Path) -> Path:
    recipe = tmp_path / "base.toml"
    recipe.write_text(dump_recipe(tiny_recipe(roberta, sets, train={"max_steps": 3})))
    study = tmp_path / "study.toml"
    study.write_text(
        f"""
        summary = "two ranks"
        recipe = "{recipe}"
        seeds = [1, 2]
        set = ["adapter.alpha=4"]
        [[rows]]
        name = "one"
        set = ["adapter.rank=1"]
        [[rows]]
        name = "two"
        set = ["adapter.rank=2", "adapter.method=dora"]
        """
    )
    return study


def test_a_study_trains_every_row_with_every_seed_and_sums_up(file: Path, tmp_path: Path) -> None:
    rows = run_study(load_study(file), out=tmp_path / "out")
    assert [row.name for row in rows] == ["one", "two"]
    for number, row in enumerate(rows, start=1):
        runs = sorted((tmp_path / "out").glob(f"{number:02d}-*/seed-*"))
        records = [load_record(run) for run in runs]
        assert [record.recipe["seed"] for record in records] == row.seeds == [1, 2]
        found = [record.metrics["test"]["accuracy"] for record in records]
        assert row.accuracies["test"] == found
        assert row.mean["test"] == pytest.approx(np.mean(found))
        assert row.parameters == records[0].parameters["file"]
        assert records[0].recipe["adapter"]["alpha"] == 4.0
    assert rows[1].parameters > rows[0].parameters
    assert rows[0].p["test"] is None
    saved = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [row["mean"] for row in saved["rows"]] == [row.mean for row in rows]


def test_an_interrupted_study_goes_on_and_a_failed_run_does_not_stop_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, trained = studies.train, []

    def failing(recipe, *, out, **options):  # type: ignore[no-untyped-def]
        trained.append(out.parent.name)
        if out.parent.name == "01-one" and out.name == "seed-2":
            raise TrainingError("no luck")
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train(recipe, out=out, **options)

    monkeypatch.setattr(studies, "train", failing)
    with pytest.raises(KeyboardInterrupt):
        run_study(load_study(file), out=tmp_path / "out")
    rows = run_study(load_study(file), out=tmp_path / "out")
    assert rows[0].failures == {"2": "no luck"}
    assert rows[0].seeds == [1]
    assert rows[1].seeds == [1, 2]
    # The first run was found complete, and not trained again.
    assert trained == ["01-one", "01-one", "02-two", "01-one", "02-two", "02-two"]


def test_a_directory_of_another_recipe_is_refused(file: Path, tmp_path: Path) -> None:
    run_study(load_study(file), out=tmp_path / "out")
    with pytest.raises(RunError, match="trained with another recipe"):
        run_study(load_study(file, overrides=["adapter.alpha=5"]), out=tmp_path / "out")


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(
        'recipe = "spar-lora"\n[grid]\n"adapter.rank" = [1, 2]\n"adapter.targets" = [["query"]]\n'
    )
    study = load_study(path)
    names = [variation.name for variation in study.variations]
    assert names == [f'adapter.rank={r}, adapter.targets=["query"]' for r in (1, 2)]
    assert study.variations[1].recipes[0].adapter.rank == 2


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_are_valid(name: str) -> None:
    study = load_study(name)
    assert len(study.variations) > 1
    assert study.summary


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("summary = 1", "summary"),
        ('recipe = "spar-lora"', "at least one row"),
        ('recipe = "spar-lora"\n[[rows]]\nname = "a"\nsat = []', 'did you mean "set"'),
        ("rows = [", "not valid TOML"),
        ('recipe = "spar-lora"\n[[rows]]\nname = "a"\nset = ["adapter.rnk=2"]', "adapter.rnk"),
    ],
)
def test_a_mistake_in_a_study_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_study(path)
    assert said in str(caught.value)


def test_intervals_and_the_paired_test_are_scipy_s() -> None:
    low, high = mean_interval([0.9, 0.92, 0.94]) or (0.0, 0.0)
    # 4.303 is Student's t at 97.5 % with two degrees of freedom.
    half = 4.302652 * 0.02 / 3**0.5
    assert (low, high) == pytest.approx((0.92 - half, 0.92 + half), abs=1e-6)
    assert mean_interval([0.9]) is None
    assert paired_p([1.0, 2.0, 3.5], [1.0, 2.0, 3.5]) == 1.0
    assert paired_p([0.9], [0.8]) is None
    p = paired_p([0.90, 0.92, 0.91], [0.80, 0.83, 0.80])
    assert p is not None
    assert p < 0.01
