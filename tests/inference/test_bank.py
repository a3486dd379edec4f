"""Several classifiers on one base answer as each of them does alone."""

from __future__ import annotations

import gc
import json
import logging
import re
import shutil
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.damage import record_hashes
from pennyweight.errors import DataError, RunError
from pennyweight.inference.bank import ClassifierBank
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.correction import Correction
from pennyweight.inference.loaded_classifier import LoadedClassifier
from pennyweight.inference.texts import Text
from pennyweight.training.train import train
from tiny import LABELS, news, tiny_recipe, write_news, write_pairs, write_several_labels

TEXTS = [text for _, text in news(30, seed=21)]


@pytest.fixture(scope="module")
def runs(
    run: Path, bert: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Return finished runs on the same base, whose recipes differ in all that a bank may mix."""
    folder = tmp_path_factory.mktemp("runs")
    several, pairs = folder / "several", folder / "pairs"
    several.mkdir()
    pairs.mkdir()
    write_several_labels(several)
    write_pairs(pairs)
    two = folder / "two"
    two.mkdir()
    for name in ("train", "validation", "test"):
        write_news(two / f"{name}.csv", [(label % 2, t) for label, t in news(24, seed=len(name))])
    recipes: dict[str, tuple[Path, dict[str, dict[str, Any]]]] = {
        "dora": (sets, {"adapter": {"method": "dora", "targets": ["*"], "rank": 3}}),
        "mean": (
            sets,
            {
                "base": {"pooling": "mean"},
                "data": {"max_tokens": 8, "clean": ["punctuation"]},
                "adapter": {"rank": 4},
            },
        ),
        "several": (several, {"data": {"task": "multi-label", "label_separator": "|"}}),
        "pairs": (pairs, {"data": {"max_tokens": 40}, "adapter": {"head": "low-rank"}}),
        "two": (two, {"data": {"labels": ["World", "Sports"]}, "adapter": {"head": "output-only"}}),
    }
    finished = {"plain": run}
    for name, (rows, sections) in recipes.items():
        finished[name] = folder / f"run-{name}"
        train(tiny_recipe(bert, rows, **sections), out=finished[name])
    return finished


@pytest.fixture(scope="module")
def alone(runs: dict[str, Path]) -> dict[str, Classifier]:
    return {name: Classifier.load(run) for name, run in runs.items()}


def _mixed(names: list[str]) -> tuple[list[Text], list[str]]:
    """Return texts, or pairs for the run on pairs, and the names of their classifiers."""
    drawn = np.random.default_rng(0).permutation(names * 6).tolist()
    texts: list[Text] = []
    for number, name in enumerate(drawn):
        text = f"!?{TEXTS[number % len(TEXTS)]}, ..."
        texts.append((text, TEXTS[0]) if name == "pairs" else text)
    return texts, drawn


def _check(
    texts: list[Text], names: list[str], vectors: list[np.ndarray], alone: dict[str, Classifier]
) -> None:
    for text, name, vector in zip(texts, names, vectors, strict=True):
        assert vector.dtype == np.float64
        (expected,) = alone[name].predict_probabilities([text])
        np.testing.assert_allclose(vector, expected, atol=1e-5, err_msg=name)


def test_texts_for_different_classifiers_get_the_answers_of_each_alone(
    runs: dict[str, Path], alone: dict[str, Classifier]
) -> None:
    bank = ClassifierBank()
    for name, run in runs.items():
        info = bank.load(run, name=name)
        assert (info.name, info.run, info.labels) == (name, run, alone[name].labels)
        assert (info.task, info.pair_columns) == (alone[name].task, alone[name].pair_columns)
        np.testing.assert_equal(info.thresholds, alone[name].thresholds)
        counts = alone[name].record.parameters
        assert counts is not None
        assert info.trainable_parameters == counts.model
        assert info.bytes >= 4 * counts.model
    assert [info.name for info in bank.classifiers] == sorted(runs)
    texts, names = _mixed(list(runs))
    _check(texts, names, bank.predict_probabilities(texts, names), alone)
    expected = [alone[name].predict([text])[0] for text, name in zip(texts, names, strict=True)]
    assert bank.predict(texts, names) == expected
    assert bank.predict_probabilities([], []) == []


def test_a_correction_and_its_features_belong_to_one_classifier(
    runs: dict[str, Path], copied_run: Path
) -> None:
    source = np.full(4, 0.25)
    Correction(1.5, source, np.array([[0.7, 0.1, 0.1, 0.1]])).save(copied_run / "adapter")
    record_hashes(copied_run)
    corrected = {"plain": Classifier.load(runs["plain"]), "corrected": Classifier.load(copied_run)}
    bank = ClassifierBank()
    bank.load(runs["plain"], name="plain")
    bank.load(copied_run, name="corrected")
    texts, names = _mixed(list(corrected))
    vectors = bank.predict_probabilities(texts, names)
    _check(texts, names, vectors, corrected)
    two = bank.predict_probabilities(TEXTS[:1] * 2, ["plain", "corrected"])
    assert not np.allclose(two[0], two[1])


def test_another_base_is_refused_with_the_names_of_both(
    runs: dict[str, Path], roberta: Path, bert: Path, sets: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    train(tiny_recipe(roberta, sets, train={"max_steps": 1}), out=other)
    bank = ClassifierBank()
    bank.load(runs["plain"])
    expected = f"{re.escape(str(roberta))}.*{re.escape(str(bert))}.*{re.escape(str(runs['plain']))}"
    with pytest.raises(RunError, match=expected):
        bank.load(other)
    assert [info.name for info in bank.classifiers] == [runs["plain"].name]


def test_a_method_that_cannot_share_a_base_is_refused_by_name_and_says_how_to_go_on(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    out = tmp_path / "vera"
    recipe = tiny_recipe(bert, sets, adapter={"method": "vera", "rank": 2}, train={"max_steps": 1})
    train(recipe, out=out)
    with pytest.raises(RunError, match=rf"vera, .*pennyweight merge {re.escape(str(out))} --out"):
        ClassifierBank().load(out)


def test_a_name_is_replaced_and_unloaded(
    runs: dict[str, Path], alone: dict[str, Classifier]
) -> None:
    bank = ClassifierBank()
    bank.load(runs["plain"], name="a")
    before = bank.predict_probabilities(TEXTS[:2], ["a", "a"])
    assert bank.load(runs["dora"], name="a") in bank.classifiers
    assert len(bank.classifiers) == 1
    after = bank.predict_probabilities(TEXTS[:2], ["a", "a"])
    np.testing.assert_allclose(before, alone["plain"].predict_probabilities(TEXTS[:2]), atol=1e-5)
    np.testing.assert_allclose(after, alone["dora"].predict_probabilities(TEXTS[:2]), atol=1e-5)
    bank.unload("a")
    for use in (lambda: bank.unload("a"), lambda: bank.predict_probabilities(["x"], ["a"])):
        with pytest.raises(RunError, match="a: not in the bank; loaded are: none"):
            use()


def test_texts_that_do_not_fit_are_named_by_their_place(runs: dict[str, Path]) -> None:
    bank = ClassifierBank()
    bank.load(runs["plain"], name="plain")
    bank.load(runs["pairs"], name="pairs")
    with pytest.raises(DataError, match=r"element 1 is one text.*premise"):
        bank.predict_probabilities(["one", "two"], ["plain", "pairs"])
    with pytest.raises(DataError, match="texts and names: give lists, such as"):
        bank.predict_probabilities("a text", "one")
    with pytest.raises(DataError, match="2 texts and 1 names"):
        bank.predict_probabilities(["one", "two"], ["plain"])


def test_the_least_recently_used_leave_a_full_memory_and_are_read_again(
    runs: dict[str, Path], alone: dict[str, Classifier], caplog: pytest.LogCaptureFixture
) -> None:
    names = ["plain", "dora", "mean"]
    free = ClassifierBank()
    sizes = {name: free.load(runs[name], name=name).bytes for name in names}
    bank = ClassifierBank(memory_bytes=sizes["plain"] + sizes["dora"])
    caplog.set_level(logging.INFO)
    for name in names[:2]:
        bank.load(runs[name], name=name)
    bank.predict_probabilities(TEXTS[:1], ["plain"])
    bank.load(runs["mean"], name="mean")
    assert [record.args[0] for record in caplog.records if record.args] == ["dora"]
    assert [info.name for info in bank.classifiers] == sorted(names)
    texts, mixed = _mixed(names)
    _check(texts, mixed, bank.predict_probabilities(texts, mixed), alone)
    assert any("dora: read again from" in message for message in caplog.messages)
    with pytest.raises(RunError, match=r"needs [\d,]+ bytes, and memory_bytes is 1,000; raise it"):
        ClassifierBank(memory_bytes=1000).load(runs["plain"])
    with pytest.raises(ValueError, match="memory_bytes: given 0"):
        ClassifierBank(memory_bytes=0)


def test_a_run_that_changed_after_it_left_the_memory_is_refused(
    runs: dict[str, Path], copied_run: Path
) -> None:
    free = ClassifierBank()
    size = max(free.load(runs[name]).bytes for name in ("plain", "two"))
    bank = ClassifierBank(memory_bytes=size)
    bank.load(copied_run, name="first")
    bank.load(runs["plain"], name="second")
    shutil.rmtree(copied_run)
    shutil.copytree(runs["two"], copied_run)
    with pytest.raises(RunError, match=f"{re.escape(str(copied_run))}: this run has changed"):
        bank.predict_probabilities(TEXTS[:1], ["first"])


def test_a_run_that_was_trained_anew_in_its_place_is_refused(
    runs: dict[str, Path], copied_run: Path, bert: Path, sets: Path
) -> None:
    bank = ClassifierBank(memory_bytes=ClassifierBank().load(runs["plain"]).bytes)
    bank.load(copied_run, name="first")
    bank.load(runs["plain"], name="second")
    shutil.rmtree(copied_run)
    # All that differs is the weights.
    train(tiny_recipe(bert, sets, optimizer={"learning_rate": 0.02}), out=copied_run)
    with pytest.raises(RunError, match=f"{re.escape(str(copied_run))}: this run has changed"):
        bank.predict_probabilities(TEXTS[:1], ["first"])


def test_labels_are_those_of_the_classifier_that_answered(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = ClassifierBank()
    bank.load(runs["plain"], name="one")
    before = bank.predict(TEXTS, ["one"] * len(TEXTS))
    compute = ClassifierBank._predict

    def unload_meanwhile(self: ClassifierBank, *arguments: Any) -> None:
        compute(self, *arguments)
        self.unload("one")

    monkeypatch.setattr(ClassifierBank, "_predict", unload_meanwhile)
    assert bank.predict(TEXTS, ["one"] * len(TEXTS)) == before


def test_the_memory_of_a_classifier_is_free_once_it_is_unloaded(runs: dict[str, Path]) -> None:
    bank = ClassifierBank()
    bank.load(runs["plain"], name="one")
    bank.predict(TEXTS[:1], ["one"])
    head = weakref.ref(bank._members["one"].adapter.head)
    bank.unload("one")
    gc.collect()
    assert head() is None


def test_the_memory_of_the_base_is_not_touched_by_loading(runs: dict[str, Path]) -> None:
    bank = ClassifierBank()
    # With a second classifier, so that the first one is not folded into its weights.
    for name in ("plain", "dora"):
        bank.load(runs[name], name=name)
    before = bank.predict_probabilities(TEXTS, ["plain"] * len(TEXTS))
    for name in ("mean", "pairs", "two"):
        bank.load(runs[name], name=name)
    np.testing.assert_array_equal(before, bank.predict_probabilities(TEXTS, ["plain"] * len(TEXTS)))


def test_loading_replacing_and_unloading_never_disturbs_a_thread_that_predicts(
    runs: dict[str, Path], alone: dict[str, Classifier]
) -> None:
    bank = ClassifierBank(memory_bytes=200_000)
    answers = {n: alone[n].predict_probabilities(TEXTS[:4]) for n in ("plain", "dora", "mean")}
    bank.load(runs["plain"], name="fixed")
    bank.load(runs["dora"], name="changing")
    stop, problems = threading.Event(), list[str]()

    def predict() -> None:
        while not stop.is_set():
            try:
                vectors = bank.predict_probabilities(TEXTS[:4], ["fixed", "changing"] * 2)
            except RunError as error:
                if "not in the bank" not in str(error):
                    problems.append(str(error))
                continue
            fixed = np.allclose(vectors[::2], answers["plain"][::2], atol=1e-5)
            known = any(
                np.allclose(vectors[1::2], answers[n][1::2], atol=1e-5) for n in ("dora", "mean")
            )
            if not (fixed and known):
                problems.append("a wrong classifier's answer")

    threads = [threading.Thread(target=predict) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            bank.load(runs["mean"], name="changing")
            bank.load(runs["two"], name="other")
            bank.unload("changing")
            bank.load(runs["dora"], name="changing")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert problems == []


def test_a_loaded_classifier_is_a_plain_value(runs: dict[str, Path]) -> None:
    info = ClassifierBank().load(runs["two"], name="two")
    assert isinstance(info, LoadedClassifier)
    assert info.base == json.loads((runs["two"] / "record.json").read_text())["base"]["name"]
    assert info.max_tokens == 24
    assert info.labels == LABELS[:2]
