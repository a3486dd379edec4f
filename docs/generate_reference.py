"""Generate docs/reference/ from the recipe schema, the command line and the tables of methods.

    python docs/generate_reference.py

A test regenerates the pages and compares them with the committed ones.
"""

from __future__ import annotations

from pathlib import Path

from pennyweight.cli.output import quiet_libraries

REFERENCE = Path(__file__).parent / "reference"


def main() -> None:
    """Write the pages."""
    quiet_libraries()
    from reference_pages import pages

    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
