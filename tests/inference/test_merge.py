"""Merging a finished run into one plain model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pennyweight.errors import RunError
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.merge import merge


def test_the_merged_model_gives_the_same_probabilities_in_plain_transformers(
    run: Path, texts: list[str], tmp_path: Path
) -> None:
    (note,) = merge(run, out=tmp_path / "merged")
    assert "max_length=24" in note
    assert note in (tmp_path / "merged" / "README.md").read_text()
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    batch = AutoTokenizer.from_pretrained(tmp_path / "merged")(
        texts, padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        probabilities = torch.softmax(model(**batch).logits, dim=1).numpy()
    expected = Classifier.load(run).predict_probabilities(texts)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert model.config.id2label[3] == "Sci/Tech"


def test_a_directory_in_use_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty; name a new directory"):
        merge(run, out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
