"""The maths of combining adapters, on small tensors."""

from __future__ import annotations

import pytest
import torch
from peft.utils.merge_utils import ties

from pennyweight.model.combinations import COMBINATIONS, Ingredients
from pennyweight.model.combine import (
    Residual,
    average_factors,
    concatenate,
    drop_and_rescale,
    elect_signs,
    sum_updates,
    truncate,
)
from pennyweight.model.trained_weights import LowRank, TrainedWeights


def _update(seed: int, *, rank: int = 2, scaling: float = 2.0) -> LowRank:
    draw = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, 7, generator=draw), torch.randn(9, rank, generator=draw)
    return LowRank(a, b, scaling)


def _sum(updates: list[LowRank], weights: list[float]) -> torch.Tensor:
    return sum(
        (weight * each.delta() for each, weight in zip(updates, weights, strict=True)),
        torch.zeros(9, 7),
    )


def _weights(*seeds: int) -> tuple[TrainedWeights, ...]:
    return tuple(
        TrainedWeights({"q": _update(seed)}, head={"head": torch.full((3,), float(seed))})
        for seed in seeds
    )


def test_the_average_of_factors_averages_a_and_b() -> None:
    one, other = _update(0), _update(1)
    average = average_factors([one, other], [0.25, 0.75])
    torch.testing.assert_close(average.a, 0.25 * one.a + 0.75 * other.a)
    torch.testing.assert_close(average.b, 0.25 * one.b + 0.75 * other.b)


def test_the_average_of_factors_is_not_that_of_deltas_but_with_the_same_a_it_is() -> None:
    one, other = _update(0), _update(1)
    apart = average_factors([one, other], [0.5, 0.5]).delta()
    assert not torch.allclose(apart, _sum([one, other], [0.5, 0.5]), atol=0.1)
    shared = LowRank(one.a, other.b, one.scaling)
    average = average_factors([one, shared], [0.5, 0.5]).delta()
    torch.testing.assert_close(average, _sum([one, shared], [0.5, 0.5]))


@pytest.mark.parametrize("scaling", [1.0, 0.3, 8.0])
def test_concatenated_updates_are_exactly_the_weighted_sum_of_deltas(scaling: float) -> None:
    updates, weights = [_update(0), _update(1, rank=3, scaling=0.5)], [0.3, 0.7]
    whole = concatenate(updates, weights, scaling=scaling)
    assert whole.rank == 5
    assert whole.scaling == scaling
    torch.testing.assert_close(whole.delta(), _sum(updates, weights))


def test_a_sum_at_the_rank_of_all_updates_together_is_exact() -> None:
    updates, weights = [_update(0), _update(1, scaling=0.5)], [0.4, 0.6]
    combined, residual = sum_updates(updates, weights, rank=4, scaling=3.0)
    torch.testing.assert_close(combined.delta(), _sum(updates, weights))
    assert residual.relative < 1e-6


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_sum_at_a_lower_rank_is_the_best_one_and_says_what_it_loses(rank: int) -> None:
    updates, weights = [_update(0), _update(1)], [0.5, 0.5]
    delta = _sum(updates, weights)
    combined, residual = sum_updates(updates, weights, rank=rank, scaling=2.0)
    directly, other_residual = truncate(delta, rank=rank, scaling=2.0)
    torch.testing.assert_close(combined.delta(), directly.delta())
    error = torch.linalg.norm(delta - combined.delta()) / torch.linalg.norm(delta)
    assert residual.relative == pytest.approx(float(error), abs=1e-5)
    assert other_residual.relative == pytest.approx(residual.relative, abs=1e-5)
    u, s, v = torch.linalg.svd(delta)
    torch.testing.assert_close(combined.delta(), u[:, :rank] * s[:rank] @ v[:rank])


def test_ranks_that_are_not_needed_are_zero() -> None:
    combined, residual = sum_updates([_update(0)], [1.0], rank=5, scaling=1.0)
    assert combined.a.shape == (5, 7)
    torch.testing.assert_close(combined.delta(), _update(0).delta())
    assert not combined.b[:, 2:].any()
    assert residual.relative < 1e-6


def test_residuals_add_up_to_the_error_of_all_matrices() -> None:
    assert (Residual(1.0, 2.0) + Residual(3.0, 14.0)).relative == 0.5
    assert Residual().relative == 0.0


def test_ties_keeps_the_largest_entries_and_averages_those_with_the_elected_sign() -> None:
    one = torch.tensor([[4.0, 0.1, 3.0, 0.2]])
    other = torch.tensor([[2.0, 0.1, -1.0, -0.2]])
    merged = elect_signs([one, other], [0.5, 0.5], density=0.5)
    torch.testing.assert_close(merged, torch.tensor([[3.0, 0.0, 3.0, 0.0]]))
    everything = elect_signs([one, one], [0.5, 0.5], density=1.0)
    torch.testing.assert_close(everything, one)


def test_ties_weights_elect_the_sign_and_average() -> None:
    deltas = [torch.tensor([[1.0, 1.0]]), torch.tensor([[-0.4, 0.4]]), torch.tensor([[-0.4, 0.4]])]
    # The first delta alone has the elected sign, or the two others.
    first = elect_signs(deltas, [0.9, 0.05, 0.05], density=1.0)
    torch.testing.assert_close(first, torch.tensor([[1.0, 0.94]]))
    others = elect_signs(deltas, [0.2, 0.4, 0.4], density=1.0)
    torch.testing.assert_close(others, torch.tensor([[-0.4, 0.52]]))


def test_ties_with_equal_weights_is_pefts() -> None:
    generator = torch.Generator().manual_seed(0)
    deltas = [torch.randn(6, 5, generator=generator) for _ in range(3)]
    merged = elect_signs(deltas, [1 / 3] * 3, density=0.5)
    torch.testing.assert_close(merged, ties(deltas, torch.ones(3), 0.5))


def test_dare_drops_entries_by_its_seed_and_keeps_the_expected_value() -> None:
    ones = torch.ones(100, 100)
    state = torch.random.get_rng_state()
    merged = drop_and_rescale([ones, ones], [0.5, 0.5], density=0.25, seed=3)
    assert set(merged.unique().tolist()) == {0.0, 2.0, 4.0}
    assert float(merged.mean()) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(merged, drop_and_rescale([ones, ones], [0.5, 0.5], density=0.25, seed=3))
    other = drop_and_rescale([ones, ones], [0.5, 0.5], density=0.25, seed=4)
    assert not torch.equal(merged, other)
    # Nobody draws from the global generator.
    assert torch.equal(state, torch.random.get_rng_state())


def _ingredients(*seeds: int, **changes: object) -> Ingredients:
    values = {
        "members": _weights(*seeds),
        "weights": (1 / len(seeds),) * len(seeds),
        "space": "factors",
        "parts": {"q": (2, 2.0)},
        "score": lambda weights: float(weights.head["head"][0]),
    }
    return Ingredients(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("row", COMBINATIONS.values(), ids=COMBINATIONS)
def test_every_method_leaves_equal_adapters_as_they_are(row: object) -> None:
    name = row.name  # type: ignore[attr-defined]
    for space in COMBINATIONS[name].spaces:
        parts = {"q": (4 if space == "ranks" else 2, 2.0)}
        combined = COMBINATIONS[name].combine(_ingredients(5, 5, space=space, parts=parts))
        delta = combined.weights.updates["q"].delta()
        # Without dropping, as the density is 1.
        torch.testing.assert_close(delta, _update(5).delta())
        assert combined.weights.head["head"].tolist() == [5.0, 5.0, 5.0]
        assert sum(combined.shares) == pytest.approx(1.0)


def test_greedy_keeps_those_that_do_not_make_validation_worse() -> None:
    # The score is the average of the heads: 4; then 4 with 4; 3 with 1; 4.67 with 6.
    combined = COMBINATIONS["greedy"].combine(_ingredients(4, 4, 1, 6))
    assert [trial.is_kept for trial in combined.trials] == [True, True, False, True]
    assert [trial.score for trial in combined.trials] == pytest.approx([4.0, 4.0, 3.0, 14 / 3])
    assert combined.shares == pytest.approx((1 / 3, 1 / 3, 0.0, 1 / 3))
    expected = average_factors([_update(4), _update(4), _update(6)], [1 / 3] * 3)
    torch.testing.assert_close(combined.weights.updates["q"].a, expected.a)


def test_the_head_of_the_first_is_kept_on_request() -> None:
    combined = COMBINATIONS["average"].combine(_ingredients(3, 9, head="first"))
    assert combined.weights.head["head"].tolist() == [3.0, 3.0, 3.0]


def test_a_member_without_an_adapter_on_a_matrix_adds_nothing_to_it() -> None:
    members = (_weights(1)[0], TrainedWeights({}, head={"head": torch.zeros(3)}))
    for name in ("average", "ties"):
        combined = (
            COMBINATIONS[name]
            .combine(_ingredients(1, 1, members=members, space="deltas"))
            .weights.updates["q"]
        )
        factor = 0.5 if name == "average" else 1.0
        torch.testing.assert_close(combined.delta(), factor * _update(1).delta())


def test_a_head_of_a_low_rank_is_averaged_as_a_product() -> None:
    names = ("down", "out")
    heads = [
        {"down": _update(seed).a, "out": _update(seed).b, "bias": torch.ones(9) * seed}
        for seed in (1, 2)
    ]
    members = tuple(TrainedWeights({}, head=head, product=names) for head in heads)
    combined = COMBINATIONS["average"].combine(
        _ingredients(1, 2, members=members, parts={}, space="deltas")
    )
    head = combined.weights.head
    whole = sum((0.5 * h["out"] @ h["down"] for h in heads), torch.zeros(9, 7))
    best, residual = truncate(whole, rank=2, scaling=1.0)
    torch.testing.assert_close(head["out"] @ head["down"], best.delta())
    assert combined.residuals["down"].relative == pytest.approx(residual.relative, abs=1e-5)
    assert head["bias"].tolist() == [1.5] * 9


def test_classes_are_put_into_another_order_in_the_output_layer_alone() -> None:
    prefix = "base_model.model"
    head = {
        f"{prefix}.classifier.out.weight": torch.arange(6.0).reshape(3, 2),
        f"{prefix}.classifier.out.bias": torch.arange(3.0),
        f"{prefix}.classifier.down.weight": torch.arange(3.0),
    }
    weights = TrainedWeights({}, head=head).reordered((2, 0, 1), output="classifier.out")
    assert weights.head[f"{prefix}.classifier.out.bias"].tolist() == [2.0, 0.0, 1.0]
    assert weights.head[f"{prefix}.classifier.out.weight"][0].tolist() == [4.0, 5.0]
    assert weights.head[f"{prefix}.classifier.down.weight"].tolist() == [0.0, 1.0, 2.0]
