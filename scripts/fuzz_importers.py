"""Coverage-guided fuzzing of every importer (atheris): any bytes end in rows, refusals or a StillwatchError.

    make fuzz        # or: python -m scripts.fuzz_importers [libFuzzer options]

The first byte of an input picks the format, the second the suffix, the rest is the file. Well-formed logs of every
format are the seeds, written to a temporary folder unless libFuzzer is given a corpus.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

COMPILED = [
    "stillwatch.ingest.blocks",
    "stillwatch.ingest.ids",
    "stillwatch.schema.checks",
    "stillwatch.sketch",
]
"""Modules with compiled kernels, into which nothing can be written."""

with atheris.instrument_imports(include=["stillwatch.ingest", "stillwatch.schema"], exclude=COMPILED):
    from stillwatch.ingest import open_log
    from stillwatch.ingest.registry import load_importers
    from stillwatch.schema.errors import StillwatchError
    from tests.ingest.conftest import envelope, event, exchange, record
    from tests.ingest.spans import current, legacy, openinference, request, traceloop
    from tests.ingest.test_bedrock import CASES
    from tests.ingest.test_envelope import APIS, STREAMS
    from tests.ingest.test_mapping import MAPPING, ROW

    # Importers are modules of their own, found by entry point: they are loaded here to be instrumented too.
    FORMATS = sorted(load_importers())

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz")
FIXTURES = Path(__file__).parent.parent / "tests" / "ingest" / "fixtures"
FOLDER = Path(tempfile.mkdtemp(prefix="stillwatch-fuzz-"))


def one(data: bytes) -> None:
    """Read one input as a log; every row is delivered, passed over or refused."""
    if len(data) < 3:
        return
    path = FOLDER / f"log{SUFFIXES[data[1] % len(SUFFIXES)]}"
    path.write_bytes(data[2:])
    format = FORMATS[data[0] % len(FORMATS)]
    mapping = FOLDER / "mapping.toml" if format == "mapping" else None
    try:
        with open_log([str(path)], format=format, mapping=mapping) as log:
            rows = sum(batch.num_rows for batch in log.batches())
    except StillwatchError:
        return
    assert rows + len(log.refusals) <= log.rows_read, (rows, len(log.refusals), log.rows_read)


def seeds() -> list[bytes]:
    """Inputs that every importer reads whole."""
    pairs = [*APIS.values(), *((sent, chunks) for sent, _, chunks in STREAMS.values())]
    rows: dict[str, list[Any]] = {
        "canonical": [exchange(n) for n in range(3)],
        "litellm": [event(n) for n in range(2)],
        "bodies": [envelope(n, *pair) for n, pair in enumerate(pairs)],
        "bedrock": [record(n, *pair) for n, pair in enumerate(CASES.values())],
        "mapping": [ROW],
        "envoy": [json.loads((FIXTURES / "envoy-access.jsonl").read_text().splitlines()[0])],
        "otlp": [request(make(n)) for n, make in enumerate((current, legacy, traceloop, openinference))],
    }
    found = []
    for format, items in rows.items():
        head = bytes([FORMATS.index(format)])
        lines = "".join(json.dumps(item) + "\n" for item in items).encode()
        found += [head + b"\0" + lines, head + b"\1" + json.dumps(items).encode()]
    return found


if __name__ == "__main__":
    (FOLDER / "mapping.toml").write_bytes(MAPPING)
    arguments = sys.argv[1:]
    if all(argument.startswith("-") for argument in arguments):
        corpus = FOLDER / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds()):
            (corpus / f"{number}").write_bytes(seed)
        arguments.append(str(corpus))
    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()
