"""Metrics with intervals and calibration."""

from pennyweight.evaluation.metrics import ClassMetrics, Metrics, measure

__all__ = ["ClassMetrics", "Metrics", "measure"]
