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

__all__ = [
    "SKETCH_VERSION",
    "PartSketch",
    "chain_hash",
    "content_hash",
    "faults",
    "from_binary",
    "sketch_of",
    "sketch_text",
    "stored_or_text",
    "to_binary",
]
