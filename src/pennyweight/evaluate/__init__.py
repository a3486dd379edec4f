"""Metrics with intervals and calibration."""

from pennyweight.evaluate.metrics import ClassMetrics, Metrics, measure

__all__ = ["ClassMetrics", "Metrics", "measure"]
