"""FORM: what requests look like. Prompt and system families come from the postings (`engine.families`);
tool schemas and output formats are plain keys.
"""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa

from stillwatch.views.base import U64, column, hash_numbers


class ToolSchema:
    """The set of tools that a request offers, by name."""

    name: ClassVar[str] = "tool_schema"
    needs: ClassVar[tuple[str, ...]] = ("tools_hash",)

    def keys(self, batch: pa.RecordBatch) -> U64:
        return hash_numbers(column(batch, "tools_hash"), self.name)


class OutputFormat:
    """The response schema asked for."""

    name: ClassVar[str] = "output_format"
    needs: ClassVar[tuple[str, ...]] = ("format_hash",)

    def keys(self, batch: pa.RecordBatch) -> U64:
        return hash_numbers(column(batch, "format_hash"), self.name)


class SystemPrompt:
    """The exact system prompt where the log gives only its hash."""

    name: ClassVar[str] = "system_prompt"
    needs: ClassVar[tuple[str, ...]] = ("system_hash",)

    def keys(self, batch: pa.RecordBatch) -> U64:
        return hash_numbers(column(batch, "system_hash"), self.name)


BATCH_SIGNALS = (ToolSchema(), OutputFormat(), SystemPrompt())
KINDS = ("prompt_family", "system_family", "tool_schema", "output_format", "system_prompt")
