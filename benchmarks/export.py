"""Export a run to ONNX in each precision, and write sizes, rates and agreement as JSON.

    python benchmarks/export.py runs/mine --data test.csv --out benchmarks/results/export.json

Every figure is measured on the same rows in one process after the other. Rates by processor time
(`rows_per_cpu_second`) are those to compare where other programs run on the machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from pennyweight.cli.output import quiet_libraries
from pennyweight.runs.record import write_text

PRECISIONS = ("int8-dynamic", "int8-static")


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", help="labelled rows; if not given, the run's own test")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=PRECISIONS)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    quiet_libraries()
    from pennyweight.export.onnx_folder import OnnxOptions, export_to_onnx

    for precision in arguments.precision:
        options = OnnxOptions(precision=precision, data=arguments.data, rows=arguments.rows)
        with tempfile.TemporaryDirectory() as folder:
            report = export_to_onnx(arguments.run, out=Path(folder) / "onnx", options=options)
        for line in report.table():
            print("  ".join(line), flush=True)
        # Read again, because another process may measure another precision.
        reports = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
        reports[precision] = asdict(report)
        write_text(arguments.out, json.dumps(reports, indent=1) + "\n")


if __name__ == "__main__":
    main()
