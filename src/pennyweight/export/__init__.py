"""Folders to take away: ONNX models, and adapters and merged models for the hub."""
