"""The rules that derive "auto" keys, on facts alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pennyweight.defaults.rules import FEW_ROWS, RULES, Facts

FACTS = Facts(
    rows=10_000,
    classes=10,
    rows_by_class=(1_000,) * 10,
    length=40,
    longest_input=512,
)


def test_a_fraction_that_the_recipe_sets_decides_the_validation_rows() -> None:
    few = replace(FACTS, rows=250, classes=5, rows_by_class=(50,) * 5)
    assert few.evaluated_rows == 0
    split = replace(few, validation_fraction=0.25)
    assert (split.evaluated_rows, split.training_rows) == (62, 188)
    assert RULES["train.evaluate_every"](split).reason == "12 evaluations in all"
    none = replace(FACTS, validation_fraction=0.0)
    assert (none.evaluated_rows, none.training_rows) == (0, 10_000)
    assert RULES["train.early_stopping"](none).value == "off"
    # As in the run that training starts from.
    assert replace(FACTS, start_validation_fraction=0.03).validation_rows == 300


@given(
    rows=st.integers(2, 2_000_000),
    classes=st.integers(2, 1_000),
    length=st.integers(1, 10_000),
    own_validation_rows=st.none() | st.integers(1, 5_000),
    is_multi_label=st.booleans(),
)
def test_every_rule_gives_a_usable_value_and_a_reason(
    rows: int, classes: int, length: int, own_validation_rows: int | None, is_multi_label: bool
) -> None:
    facts = Facts(
        rows=rows,
        classes=classes,
        rows_by_class=(max(1, rows // classes),) * classes,
        length=length,
        longest_input=512,
        own_validation_rows=own_validation_rows,
        is_multi_label=is_multi_label,
    )
    values = {}
    for key, rule in RULES.items():
        derived = rule(facts)
        # Keys of the head whose value does not matter are not shown.
        assert derived.reason or key.startswith("adapter.head")
        values[key] = derived.value
    assert 0.0 <= values["data.validation_fraction"] <= 0.5
    assert 32 <= values["data.max_tokens"] <= 512
    assert values["train.epochs"] >= 1
    assert values["train.evaluate_every"] >= 1
    assert values["train.batch_rows"] >= 1
    assert 0.0 < values["optimizer.learning_rate"] < 1e-2


def test_a_low_rank_that_a_recipe_asks_for_saves_parameters() -> None:
    rank = RULES["adapter.head_rank"]
    assert rank(replace(FACTS, classes=5)).value == 4
    assert rank(replace(FACTS, classes=2)).value == 1
    assert rank(replace(FACTS, classes=77)).value == 8
    # The low rank of a base's own head is that of its dense layer.
    assert rank(replace(FACTS, classes=5, is_pooled=False)).value == 8


def test_validation_rows_are_a_part_of_the_file_that_rows_are_drawn_from() -> None:
    drawn = replace(FACTS, rows=4_000, file_rows=100_000)
    assert RULES["data.validation_fraction"](drawn).value == pytest.approx(400 / 100_000)
    assert drawn.training_rows == 4_000
    assert replace(FACTS, rows=4_000, file_rows=4_000).training_rows == 3_600


def test_a_target_of_longer_texts_is_not_cut_to_the_length_of_the_training_texts() -> None:
    longer = replace(FACTS, target_length=150)
    derived = RULES["data.max_tokens"](longer)
    assert derived.value == 160
    assert "of the target" in derived.reason
    assert RULES["data.max_tokens"](replace(FACTS, target_length=20)).value == 48


def test_a_run_that_starts_from_another_has_the_same_validation_rows() -> None:
    started = replace(FACTS, start_validation_fraction=0.07)
    assert RULES["data.validation_fraction"](started).value == 0.07
    assert "training starts from" in RULES["data.validation_fraction"](started).reason


def test_few_rows_are_all_trained_on() -> None:
    facts = replace(FACTS, rows=FEW_ROWS - 1)
    assert RULES["data.validation_fraction"](facts).value == 0.0
    assert RULES["train.early_stopping"](facts).value == "off"
    assert facts.training_rows == facts.rows
    steps = -(-facts.rows // RULES["train.batch_rows"](facts).value)
    assert RULES["train.evaluate_every"](facts).value == steps * RULES["train.epochs"](facts).value


def test_few_rows_of_each_class_are_few_too() -> None:
    facts = replace(FACTS, rows=616, classes=77)
    assert facts.has_few_rows
    assert RULES["data.validation_fraction"](facts).value == 0.0
    assert not replace(FACTS, rows=616, classes=10).has_few_rows


def test_a_validation_file_leaves_all_rows_for_training() -> None:
    facts = replace(FACTS, own_validation_rows=100)
    assert facts.training_rows == facts.rows
    assert facts.evaluates


def test_more_rows_are_seen_fewer_times_but_more_of_them_in_all() -> None:
    sizes = (100, 1_000, 10_000, 100_000)
    epochs = [RULES["train.epochs"](replace(FACTS, rows=rows)).value for rows in sizes]
    assert epochs == sorted(epochs, reverse=True)
    seen = [rows * count for rows, count in zip(sizes, epochs, strict=True)]
    assert seen == sorted(seen)


@pytest.mark.parametrize(("length", "tokens"), [(20, 32), (40, 48), (100, 112), (3_000, 256)])
def test_texts_are_cut_only_where_they_are_long(length: int, tokens: int) -> None:
    assert RULES["data.max_tokens"](replace(FACTS, length=length)).value == tokens


def test_evaluations_follow_the_epochs_and_batches_that_the_recipe_sets() -> None:
    own = replace(FACTS, epochs=2, batch_rows=10, own_validation_rows=100)
    assert RULES["train.evaluate_every"](own).value == 2 * 1_000 // 4


def test_uneven_classes_select_by_macro_f1() -> None:
    assert RULES["train.keep_best"](FACTS).value == "accuracy"
    uneven = replace(FACTS, rows_by_class=(9_000, 500, 500))
    assert RULES["train.keep_best"](uneven).value == "macro_f1"


@pytest.mark.parametrize(
    ("rows", "contrastive", "order"), [(9_000, 1.0, "classes"), (20_000, 0.0, "grouped")]
)
def test_texts_are_compared_where_classes_have_few_rows(
    rows: int, contrastive: float, order: str
) -> None:
    facts = replace(FACTS, rows=rows)
    assert RULES["train.contrastive"](facts).value == contrastive
    assert RULES["train.batch_order"](facts).value == order
    own = {"classes": 1.0, "grouped": 0.0}
    for expected, weight in own.items():
        assert RULES["train.batch_order"](replace(facts, contrastive=weight)).value == expected


def test_the_noise_of_validation_decides_which_checkpoints_are_equally_good() -> None:
    few, many = (replace(FACTS, rows=rows) for rows in (1_000, 20_000))
    assert RULES["train.keep_within"](few).value == pytest.approx(0.0357)
    assert RULES["train.keep_within"](many).value == pytest.approx(0.008)
    assert RULES["train.keep_within"](replace(FACTS, own_validation_rows=2_000)).value == 0.008


def test_the_head_is_fitted_again_where_that_is_quick() -> None:
    assert RULES["train.head_end"](replace(FACTS, rows=1_000)).value == "logistic"
    assert RULES["train.head_end"](replace(FACTS, rows=50_000)).value == "trained"
    assert RULES["train.head_end"](replace(FACTS, rows=1_000, is_pooled=False)).value == "trained"


@pytest.mark.parametrize(
    ("classes", "budget", "head"),
    [(77, 1_000_000, "full"), (1_000, 1_000_000, "full"), (1_000, 300_000, "low-rank")],
)
def test_a_head_takes_at_most_half_of_the_budget(classes: int, budget: int, head: str) -> None:
    facts = replace(FACTS, classes=classes, budget=budget, hidden=384)
    assert RULES["adapter.head"](facts).value == head
    rank = RULES["adapter.head_rank"](facts).value
    size = rank * (384 + classes) + classes if head == "low-rank" else classes * 385
    assert size <= budget / 2
    if head == "low-rank":
        assert size + 384 + classes > budget / 2
