"""Text -> fingerprints: pure functions over Arrow columns."""

from stillwatch.sketch.hashing import chain_hash, content_hash
from stillwatch.sketch.part import (
    SKETCH_VERSION,
    PartSketch,
    faults,
    from_binary,
    sketch_of,
    sketch_text,
    stored_or_text,
    to_binary,
)
from stillwatch.sketch.rules import RulePack, default_rules, load_rules

__all__ = [
    "SKETCH_VERSION",
    "PartSketch",
    "RulePack",
    "chain_hash",
    "content_hash",
    "default_rules",
    "faults",
    "from_binary",
    "load_rules",
    "sketch_of",
    "sketch_text",
    "stored_or_text",
    "to_binary",
]
