"""Options that make the adapters of every method small, on matrices of 32 or 48 rows."""

from __future__ import annotations

from typing import Any

__all__ = ["SMALL"]

SMALL: dict[str, dict[str, Any]] = {
    "lora": {"rank": 2, "alpha": 4},
    "rslora": {"rank": 2, "alpha": 4},
    "dora": {"rank": 2, "alpha": 4},
    "rsdora": {"rank": 2, "alpha": 4},
    "lora-fa": {"rank": 2, "alpha": 4},
    "adalora": {"rank": 2, "alpha": 4, "target_rank": 1},
    "vera": {"rank": 2},
    "pvera": {"rank": 2},
    "loha": {"rank": 2, "alpha": 4},
    "beft": {},
    "bitfit": {},
    "c3a": {"block_size": 8},
    "deft": {"rank": 2},
    "delora": {"rank": 2},
    "fourierft": {"frequencies": 60, "scaling": 2.0},
    "waveft": {"frequencies": 60, "scaling": 2.0},
    "glora": {"rank": 2},
    "gralora": {"rank": 4, "alpha": 8},
    "hira": {"rank": 4},
    "hra": {"rank": 2},
    "ia3": {},
    "ln-tuning": {},
    "lokr": {"rank": 2, "alpha": 4},
    "miss": {"rank": 3},
    "oft": {"block_size": 8},
    "boft": {"block_size": 4},
    "psoft": {"rank": 6, "alpha": 6},
    "osf": {"rank": 4},
    "peanut": {"rank": 2},
    "randlora": {"rank": 10},
    "road": {"variant": 2, "group_size": 16},
    "shira": {"rank": 2},
    "tinylora": {"vector_length": 9, "inner_rank": 3},
    "unilora": {"vector_length": 50},
    "vblora": {"vectors": 12, "vector_length": 16},
}
