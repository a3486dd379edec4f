"""The captions of a paper's figures, in the metric that the report leads with."""

from __future__ import annotations

from pennyweight.evaluation.confusions import MATRIX_CLASSES
from pennyweight.report.facts import Facts
from pennyweight.report.figures import FEW_ROWS
from pennyweight.report.phrases import title

__all__ = ["caption_of"]

_CAPTIONS = {
    "ranks": "Rank of every adapted matrix, by layer.",
    "curves": "Training loss and validation {curve}.",
    "comparison": "{compared} with 95% intervals.",
    "spending": "{metric} against trained parameters.",
}
_BINS = "rows per bin (bottom). A calibrated classifier lies on the dotted diagonal."
_HOLLOW = f"Hollow markers are bins with fewer than {FEW_ROWS}"


def caption_of(figure: str, facts: Facts) -> str:
    """Return the caption of a figure, by its name in `figures.FIGURES`."""
    run = facts.main
    if figure == "confusion":
        if len(run.main_metrics.classes) > MATRIX_CLASSES:
            text = (
                "The most frequent confusions, each with the label above and the prediction below."
            )
        else:
            text = "Labels and predictions. The shade is the share of the label's rows."
        return f"{text} Rows of the {run.sets[0]} set."
    if figure == "reliability":
        if run.is_multi_label:
            return (
                "Share of decisions whose row has the label, by its probability (top), and "
                f"decisions per bin (bottom). {_BINS.partition('. ')[2]} {_HOLLOW} decisions."
            )
        return f"Accuracy by confidence (top) and {_BINS} {_HOLLOW} rows."
    names = {
        "curve": title(run.curve_metric),
        "compared": _capital(title(facts.compared_metric)),
        "metric": _capital(title(run.metric)),
    }
    return _CAPTIONS[figure].format_map(names)


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]
