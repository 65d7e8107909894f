"""Coverage-guided fuzzing of every importer (atheris): any bytes end in rows, refusals or a StillwatchError.

make fuzz        # or: python scripts/fuzz_importers.py [libFuzzer options]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["stillwatch.ingest", "stillwatch.schema"]):
    from stillwatch.ingest import open_log
    from stillwatch.ingest.registry import load_importers
    from stillwatch.schema.errors import StillwatchError

FORMATS = sorted(set(load_importers()) - {"mapping"})
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz")
FOLDER = tempfile.mkdtemp(prefix="stillwatch-fuzz-")


def one(data: bytes) -> None:
    """The first byte picks the format, the second the suffix."""
    if len(data) < 3:
        return
    path = Path(FOLDER) / f"log{SUFFIXES[data[1] % len(SUFFIXES)]}"
    path.write_bytes(data[2:])
    try:
        with open_log([str(path)], format=FORMATS[data[0] % len(FORMATS)]) as log:
            rows = sum(batch.num_rows for batch in log.batches())
            assert rows >= 0
    except StillwatchError:
        pass


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
