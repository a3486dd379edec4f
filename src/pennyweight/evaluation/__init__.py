"""Metrics with confidence intervals and calibration, statistics over seeds, and label shift."""

from pennyweight.evaluation.metrics import ClassMetrics, Metrics, measure

__all__ = ["ClassMetrics", "Metrics", "measure"]
