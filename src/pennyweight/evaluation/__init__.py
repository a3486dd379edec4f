"""Metrics with confidence intervals and calibration, statistics over seeds, and label shift."""

from pennyweight.evaluation.metrics import (
    AnyMetrics,
    ClassMetrics,
    Headline,
    LabelMetrics,
    Metrics,
    MultiLabelMetrics,
    measure,
)

__all__ = [
    "AnyMetrics",
    "ClassMetrics",
    "Headline",
    "LabelMetrics",
    "Metrics",
    "MultiLabelMetrics",
    "measure",
]
