"""The figures of a search: all trials as lines over the keys, importances, and the progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pennyweight.report.drawing import COLOURS, GREY
from pennyweight.report.phrases import title
from pennyweight.search.results import SearchResult, TrialRow, shown

__all__ = ["SEARCH_FIGURES", "Scale", "scale_of"]

_WIDTH = 6.5
# Values that differ by more than this factor are drawn on a logarithmic axis.
_LOG_FACTOR = 30.0
_LABEL_LENGTH = 24
# Up to so many whole numbers are all named.
_FEW_VALUES = 6
_BEHIND_TEXT = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.6}


class Scale:
    """The axis of one key in parallel coordinates: where each value lies, from 0 to 1.

    Args:
        values: of all trials; numbers are placed by size, and anything else by its first place.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        self.is_numeric = len(numbers) == len(values) and len(set(values)) > 1
        self._is_whole = all(isinstance(number, int) for number in numbers)
        self.is_log = False
        self._names = list(dict.fromkeys(map(shown, values)))
        if self.is_numeric:
            low, high = min(numbers), max(numbers)
            self.is_log = low > 0 and high > _LOG_FACTOR * low
            self._low, self._high = self._transformed(low), self._transformed(high)

    def place(self, value: Any) -> float:
        """Return the height of a value."""
        if self.is_numeric:
            return float((self._transformed(value) - self._low) / (self._high - self._low))
        return self._names.index(shown(value)) / max(1, len(self._names) - 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Return the heights and texts of a few values."""
        if not self.is_numeric:
            return [
                (index / max(1, len(self._names) - 1), name[:_LABEL_LENGTH])
                for index, name in enumerate(self._names)
            ]
        if len(self._names) <= _FEW_VALUES and self._is_whole:
            return [(self.place(int(name)), name) for name in self._names]
        heights = np.linspace(0.0, 1.0, 5)
        values = self._low + heights * (self._high - self._low)
        return [
            (float(height), f"{10**value if self.is_log else value:.3g}")
            for height, value in zip(heights, values, strict=True)
        ]

    def _transformed(self, value: float) -> float:
        return float(np.log10(value)) if self.is_log else float(value)


def scale_of(result: SearchResult, key: str) -> Scale:
    """Return the axis of a key, over the values of all trials."""
    return Scale([row.values.get(key) for row in result.rows])


def _measured(result: SearchResult) -> list[TrialRow]:
    return [row for row in result.rows if row.value is not None]


def _parallel(result: SearchResult) -> Figure | None:
    """Draw each trial as a line over the keys and the metric; better trials are darker."""
    rows = _measured(result)
    if len(rows) < 2:
        return None
    scales = [scale_of(result, key) for key in result.keys]
    values = Scale([row.value for row in rows])
    figure, axes = plt.subplots(figsize=(_WIDTH, 3.0))
    for row in sorted(rows, key=lambda one: one.run == result.best):
        goodness = values.place(row.value)
        goodness = 1.0 - goodness if result.is_lower_better else goodness
        heights = [
            *(s.place(row.values.get(k)) for s, k in zip(scales, result.keys, strict=True)),
            values.place(row.value),
        ]
        is_best = row.run == result.best
        axes.plot(
            range(len(heights)),
            heights,
            color=COLOURS[1] if is_best else mpl.colormaps["Blues"](0.25 + 0.7 * goodness),
            linewidth=1.8 if is_best else 0.9,
            linestyle=":" if row.status == "pruned" else "-",
        )
    for x, scale in enumerate([*scales, values]):
        axes.axvline(x, color="black", linewidth=0.6)
        for height, text in scale.ticks():
            axes.text(x + 0.02, height, text, fontsize=7, va="center", bbox=_BEHIND_TEXT)
    names = [*result.keys, f"validation {title(result.metric)}"]
    axes.set_xticks(range(len(names)), [name.replace(".", ".\n") for name in names])
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(names) - 0.75)
    axes.spines[:].set_visible(False)
    return figure


def _importances(result: SearchResult) -> Figure | None:
    """Draw the share of each key in the variance of the metric."""
    if not result.importances:
        return None
    names = list(result.importances)[::-1]
    figure, axes = plt.subplots(figsize=(_WIDTH, 0.7 + 0.28 * len(names)))
    shares = [100 * result.importances[name] for name in names]
    bars = axes.barh(range(len(names)), shares, color=COLOURS[0], height=0.55)
    axes.bar_label(bars, [f"{share:.0f}%" for share in shares], padding=2, fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=f"importance for validation {title(result.metric)} (%)", xlim=(0, 112))
    return figure


def _progress(result: SearchResult) -> Figure | None:
    """Draw the metric of each trial in its order, and the best so far."""
    rows = [(number, row) for number, row in enumerate(result.rows) if row.value is not None]
    complete = [(number, row.value) for number, row in rows if row.status == "complete"]
    if len(rows) < 2 or not complete:
        return None
    figure, axes = plt.subplots(figsize=(_WIDTH, 2.2))
    for status, marker, colour in (("complete", "o", COLOURS[0]), ("pruned", "x", GREY)):
        points = [(number, row.value) for number, row in rows if row.status == status]
        if points:
            places, heights = zip(*points, strict=True)
            axes.scatter(places, heights, s=16, marker=marker, color=colour, label=status)
    best = np.minimum if result.is_lower_better else np.maximum
    numbers, values = zip(*complete, strict=True)
    axes.step(numbers, best.accumulate(values), where="post", color=COLOURS[1], label="best so far")
    axes.set(xlabel="trial", ylabel=f"validation {title(result.metric)}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure


# Each draws one figure, or returns None if the trials do not allow it.
SEARCH_FIGURES: Mapping[str, Callable[[SearchResult], Figure | None]] = MappingProxyType(
    {"parallel": _parallel, "importances": _importances, "progress": _progress}
)
