"""A language model is adapted once, and an interrupted training of LoRA goes on to the same end."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pennyweight.errors import DataError
from pennyweight.lab import adaptation, fine_tuning
from pennyweight.lab.adaptation import adapted_model
from pennyweight.lab.fine_tuning import FineTuning, FineTuningStep, Lora
from pennyweight.lab.language_model import LanguageModel, ModelSize
from tiny import news

NEWS = [text for _, text in news(200, seed=5)]
# A habit of the target, which the model has yet to learn.
TEXTS = [f"goal over goal over goal over {text}" for text in NEWS]
FULL = FineTuning(epochs=1.0, learning_rate=1e-3, seed=1)
LORA = FineTuning(epochs=3.0, learning_rate=1e-2, seed=1, batch_tokens=512, lora=Lora(4, 8.0))


@pytest.fixture(scope="module")
def name(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "lm"
    size = ModelSize(vocabulary=400, layers=2, width=32, heads=2, context=96)
    model = LanguageModel.untrained(NEWS, size)
    model.fit(NEWS, FineTuning(epochs=16, learning_rate=1e-2, batch_tokens=512))
    model.save(folder)
    return str(folder)


def _adapted(
    name: str, tuning: FineTuning | None, cache: Path, *, texts: list[str] = TEXTS
) -> tuple[LanguageModel, str, list[str]]:
    lines: list[str] = []
    model, key = adapted_model(name, texts, tuning, precision="fp32", cache=cache, log=lines.append)
    return model, key, lines


@pytest.mark.parametrize("tuning", [FULL, LORA])
def test_a_model_is_adapted_once_for_the_same_texts(
    tuning: FineTuning, name: str, tmp_path: Path
) -> None:
    first, key, lines = _adapted(name, tuning, tmp_path)
    assert lines[0].startswith(f"fine-tuning {name} on 200 target texts for ")
    cached, same_key, no_lines = _adapted(name, tuning, tmp_path)
    assert no_lines == []
    assert same_key == key
    np.testing.assert_allclose(cached.perplexities(TEXTS[:5]), first.perplexities(TEXTS[:5]))
    _, other_key, lines = _adapted(name, tuning, tmp_path, texts=TEXTS[1:])
    assert other_key != key
    assert lines


def test_lora_learns_the_texts_and_the_cache_holds_the_adapter_alone(
    name: str, tmp_path: Path
) -> None:
    before = LanguageModel.load(name).perplexities(TEXTS[:20]).mean()
    model, key, lines = _adapted(name, replace(LORA, epochs=8.0), tmp_path)
    assert model.perplexities(TEXTS[:20]).mean() < 0.85 * before
    assert sorted(path.name for path in tmp_path.iterdir()) == [key]
    weights = load_file(tmp_path / key / "adapter_model.safetensors")
    # Four matrices in each of two layers; the output layer and the embeddings are not adapted.
    assert len(weights) == 2 * 2 * 4
    assert all("lora_" in weight and ".h." in weight for weight in weights)
    assert not (tmp_path / key / "model.safetensors").exists()
    assert "LoRA of rank 4, fp32" in lines[0]


def test_the_options_of_lora_change_what_is_learned(name: str, tmp_path: Path) -> None:
    assert LORA.lora is not None
    others = [replace(LORA, lora=Lora(2, 8.0)), replace(LORA, lora=Lora(4, 2.0))]
    results = [_adapted(name, tuning, tmp_path) for tuning in (LORA, *others)]
    assert len({key for _, key, _ in results}) == 3
    assert len({float(model.perplexities(TEXTS[:20]).mean()) for model, _, _ in results}) == 3


def test_an_interrupted_training_of_lora_ends_with_the_same_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine_tuning, "_CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(adaptation, "_LINE_SECONDS", 0.0)
    _, key, whole = _adapted(name, LORA, tmp_path / "whole")
    lines: list[str] = []

    def interrupt(line: str) -> None:
        if "step 5 " in line:
            raise KeyboardInterrupt
        lines.append(line)

    with pytest.raises(KeyboardInterrupt):
        adapted_model(name, TEXTS, LORA, precision="fp32", cache=tmp_path / "cut", log=interrupt)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [f"{key}.checkpoint.pt"]
    _, _, resumed = _adapted(name, LORA, tmp_path / "cut")
    assert resumed[1] == "language model: resuming an interrupted training"
    steps = [int(line.split()[3]) for line in resumed[2:]]
    assert steps == list(range(5, steps[-1] + 1))
    assert [_loss(line) for line in lines[1:] + resumed[2:]] == [_loss(line) for line in whole[1:]]
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [key]
    one, other = (
        load_file(tmp_path / run / key / "adapter_model.safetensors") for run in ("whole", "cut")
    )
    assert all(torch.equal(one[weight], other[weight]) for weight in one)


def _loss(line: str) -> str:
    match = re.fullmatch(
        r"language model: step \d+ of \d+, (loss \d+\.\d+), [\d,]+ tokens/s(, .+ left)?", line
    )
    assert match is not None, line
    return match[1]


def test_a_broken_checkpoint_is_an_error_that_names_the_file(name: str, tmp_path: Path) -> None:
    _, key, _ = _adapted(name, LORA, tmp_path / "whole")
    checkpoint = tmp_path / "cut" / f"{key}.checkpoint.pt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match=rf"{key}\.checkpoint\.pt: .* delete the file"):
        _adapted(name, LORA, tmp_path / "cut")


def test_an_interrupted_save_is_not_taken_for_a_finished_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: LanguageModel, directory: Path) -> None:
        (directory / "config.json").write_text("{}")
        raise KeyboardInterrupt

    tuning = replace(FULL, epochs=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _adapted(name, tuning, tmp_path)
    _, _, lines = _adapted(name, tuning, tmp_path)
    assert lines[0].startswith("fine-tuning")


def test_without_adaptation_the_texts_are_not_read_and_the_model_is_not_copied(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "_fingerprint", lambda texts: pytest.fail("texts were hashed"))
    same, _, lines = _adapted(name, None, tmp_path / "cache")
    model = LanguageModel.load(name)
    np.testing.assert_allclose(same.perplexities(TEXTS[:5]), model.perplexities(TEXTS[:5]))
    assert lines == []
    assert not (tmp_path / "cache").exists()


def test_in_bf16_the_frozen_weights_take_half_the_memory_and_learn_as_well(
    name: str, tmp_path: Path
) -> None:
    model, _ = adapted_model(
        name, TEXTS, LORA, precision="bf16", cache=tmp_path, log=lambda line: None
    )
    assert {weight.dtype for weight in model.model.parameters()} == {torch.bfloat16}
    exact, _, _ = _adapted(name, LORA, tmp_path)
    np.testing.assert_allclose(
        model.perplexities(TEXTS[:20]).mean(), exact.perplexities(TEXTS[:20]).mean(), rtol=0.1
    )


def test_few_texts_are_read_as_often_as_the_epochs_say(name: str) -> None:
    model = LanguageModel.load(name)
    (tokens,) = {len(ids) for ids in model.tokenizer(TEXTS[:1])["input_ids"]}
    steps: list[FineTuningStep] = []
    texts = TEXTS[:1] * 20
    blocks = 20 * (tokens + 1) // 96
    tuning = FineTuning(epochs=5.0, learning_rate=1e-3, batch_tokens=100_000)
    model.fit(texts, tuning, on_step=steps.append)
    assert [step.step for step in steps] == [1, 2, 3, 4, 5]
    half = FineTuning(epochs=1.5, learning_rate=1e-3, batch_tokens=2 * 96)
    steps.clear()
    model.fit(texts, half, on_step=steps.append)
    assert steps[-1].last == len(steps) == -(-3 * blocks // 4)


def test_gradients_do_not_depend_on_how_many_rows_go_through_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    for most in (2**26, 1):
        monkeypatch.setattr(fine_tuning, "_MOST_LOGITS", most)
        model = LanguageModel.load(name)
        # Dropout would draw other masks for smaller groups of rows.
        for module in model.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        steps: list[FineTuningStep] = []
        tuning = replace(LORA, epochs=1.0, precision="fp32")
        model.fit(TEXTS, tuning, on_step=steps.append)
        losses.append([step.loss for step in steps])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
