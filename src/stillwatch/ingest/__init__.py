"""Logs of any recognised format -> checked canonical batches."""

from stillwatch.ingest.coverage import Coverage, coverage
from stillwatch.ingest.owners import Owners
from stillwatch.ingest.read import Log, open_log
from stillwatch.ingest.registry import Broken, Importer, Owner, Probe, RawBatch, ReadOptions, load_importers
from stillwatch.ingest.side import read_side
from stillwatch.ingest.source import InputInfo, Source
from stillwatch.ingest.write import write_canonical

__all__ = [
    "Broken",
    "Coverage",
    "Importer",
    "InputInfo",
    "Log",
    "Owner",
    "Owners",
    "Probe",
    "RawBatch",
    "ReadOptions",
    "Source",
    "coverage",
    "load_importers",
    "open_log",
    "read_side",
    "write_canonical",
]
