"""The text-free form of canonical rows: sketches where the text was. What `stillwatch sketch` writes.

Sketches are made with public constants, so this form is pseudonymous, not secret: whoever holds it can tell whether a
text that they know occurs in the log.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.schema.tables import EXCHANGES
from stillwatch.sketch import RulePack, sketch_text, to_binary

PARTS = ("system", "prompt", "response")
_SLICE_BYTES = 128 << 20
"""Text that is sketched at once: the sketches of a slice must stay below the 2 GiB of one binary column."""


def text_free(batch: pa.RecordBatch, rules: RulePack | None = None) -> Iterator[pa.RecordBatch]:
    """The canonical columns of `batch` without text; a large batch comes back in several pieces.

    A row that came with a sketch keeps it. `content_state` says `sketch` for rows that had text or sketches, and
    what it said before for all others. Unknown columns are left out: nobody can tell what they hold. `rules`: the
    pack that the texts are tagged with, that of this version by default.
    """
    if batch.num_rows > 1 and _text_bytes(batch) > _SLICE_BYTES:
        half = batch.num_rows // 2
        yield from text_free(batch.slice(0, half), rules)
        yield from text_free(batch.slice(half), rules)
        return
    columns = {name: batch.column(name) for name in batch.schema.names if name in EXCHANGES.names}
    held = pa.array([False] * batch.num_rows, pa.bool_())
    for part in PARTS:
        if part not in columns:
            continue
        made = _sketches(columns[part], columns.get(f"{part}_sketch"), rules)
        held = pc.or_(held, made.is_valid())
        columns[part] = pa.nulls(batch.num_rows, pa.string())
        columns[f"{part}_sketch"] = made
    state = columns.get("content_state", pa.nulls(batch.num_rows, pa.string()))
    columns["content_state"] = pc.if_else(held, "sketch", state)
    fields = [field for field in EXCHANGES if field.name in columns]
    yield pa.RecordBatch.from_arrays([columns[field.name] for field in fields], schema=pa.schema(fields))


def _text_bytes(batch: pa.RecordBatch) -> int:
    return sum(batch.column(part).nbytes for part in PARTS if part in batch.schema.names)


def _sketches(texts: pa.Array, given: pa.Array | None, rules: RulePack | None) -> pa.Array:
    """One binary a row: null where there was no text, empty where a text has no letter or digit."""
    if texts.null_count == len(texts):
        return given if given is not None else pa.nulls(len(texts), pa.binary())
    encoded = texts.dictionary_encode()
    if len(encoded.dictionary) * 2 < len(texts):
        made = to_binary(sketch_text(encoded.dictionary, rules)).cast(pa.binary()).fill_null(b"")
        made = made.take(encoded.indices)
    else:
        made = to_binary(sketch_text(texts, rules)).cast(pa.binary())
        made = pc.if_else(pc.and_(texts.is_valid(), made.is_null()), pa.scalar(b"", pa.binary()), made)
    return made if given is None else pc.coalesce(given, made)


__all__ = ["PARTS", "text_free"]
