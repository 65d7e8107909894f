"""The canonical tables: what every importer writes and every later stage reads.

Times are UTC `timestamp[us]`. A missing column or a null means "this log does not say". Hashes are
XXH3-64 of NFC text with role tags (`stillwatch.sketch.content_hash`); as text they are 16 hex digits.
"""

from __future__ import annotations

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")
OWN_REFUSAL = "stillwatch:"
"""How `blocked_by` begins where Stillwatch itself refused a request."""
SEPARATOR = "\x1f"
"""Between account and verified end user in the id of a principal; no id contains this control character."""

EXCHANGES = pa.schema(
    [
        pa.field("exchange_id", pa.string(), nullable=False),
        pa.field("ts", TIMESTAMP, nullable=False),
        pa.field("account_id", pa.string(), nullable=False),
        pa.field("entity_id", pa.string()),
        pa.field("key_id", pa.string()),
        pa.field("end_user_id", pa.string()),
        pa.field("end_user_trust", pa.string()),
        pa.field("gateway_id", pa.string()),
        pa.field("conversation_id", pa.string()),
        pa.field("provider", pa.string()),
        pa.field("model", pa.string(), nullable=False),
        pa.field("endpoint", pa.string()),
        pa.field("batch", pa.bool_()),
        pa.field("system", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("response", pa.string()),
        pa.field("n_messages", pa.int32()),
        pa.field("newest_role", pa.string()),
        pa.field("turn_hashes", pa.list_(pa.uint64())),
        pa.field("prefix_hash", pa.uint64()),
        pa.field("prefix_bytes", pa.int32()),
        pa.field("system_hash", pa.uint64()),
        pa.field("tools_hash", pa.uint64()),
        pa.field("format_hash", pa.uint64()),
        pa.field("reasoning_in", pa.list_(pa.uint64())),
        pa.field("reasoning_out", pa.list_(pa.uint64())),
        pa.field("max_tokens", pa.int32()),
        pa.field("temperature", pa.float32()),
        pa.field("n", pa.int16()),
        pa.field("logprobs", pa.bool_()),
        pa.field("reasoning_effort", pa.string()),
        pa.field("stream", pa.bool_()),
        pa.field("input_tokens", pa.int32()),
        pa.field("output_tokens", pa.int32()),
        pa.field("reasoning_tokens", pa.int32()),
        pa.field("latency_ms", pa.float32()),
        pa.field("status", pa.int16()),
        pa.field("refused", pa.bool_()),
        pa.field("blocked_by", pa.string()),
        pa.field("stop_reason", pa.string()),
        pa.field("ip", pa.string()),
        pa.field("asn", pa.int32()),
        pa.field("ja4", pa.string()),
        pa.field("header_hash", pa.uint64()),
        pa.field("user_agent", pa.string()),
        pa.field("content_state", pa.string()),
        pa.field("sample_rate", pa.float32()),
        pa.field("raw_ref", pa.struct([("input", pa.int32()), ("row", pa.int64())])),
        pa.field("scores", pa.map_(pa.string(), pa.float32())),
        pa.field("system_sketch", pa.binary()),
        pa.field("prompt_sketch", pa.binary()),
        pa.field("response_sketch", pa.binary()),
    ]
)

ACCOUNTS = pa.schema(
    [
        pa.field("account_id", pa.string(), nullable=False),
        pa.field("entity_id", pa.string()),
        pa.field("verified", pa.bool_()),
        pa.field("created_at", TIMESTAMP),
        pa.field("tier", pa.string()),
        pa.field("program", pa.string()),
        pa.field("payment_fp", pa.string()),
        pa.field("payment_kind", pa.string()),
        pa.field("email_domain", pa.string()),
        pa.field("signup_ip", pa.string()),
        pa.field("device_fp", pa.string()),
        pa.field("referral", pa.string()),
        pa.field("contract", pa.string()),
    ]
)

SANCTIONS = pa.schema(
    [
        pa.field("ts", TIMESTAMP, nullable=False),
        pa.field("account_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
    ]
)

RELEASES = pa.schema(
    [
        pa.field("ts", TIMESTAMP, nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("origin", pa.string()),
    ]
)

REFERENCES = pa.schema(
    [
        pa.field("account_id", pa.string(), nullable=False),
        pa.field("group_id", pa.string(), nullable=False),
    ]
)

SIDE_TABLES = {"accounts": ACCOUNTS, "sanctions": SANCTIONS, "releases": RELEASES, "references": REFERENCES}
"""Side tables by name; a scanned directory supplies them as `<name>.parquet`, `.jsonl` or `.csv`."""

SANCTION_KINDS = ("ban", "rate_limit", "challenge", "restore")
CONTRACTS = ("gateway", "distillation-permitted", "evaluation")
CONTENT_STATES = ("full", "truncated", "redacted", "sketch", "absent")
REDACTION_MARKERS = ("redacted-by-litellm", "[REDACTED]", "__REDACTED__")
"""Placeholders that stand for removed text. They are null text, never a prompt that accounts share."""


def required(schema: pa.Schema) -> list[str]:
    """Names of the columns that a table must have."""
    return [field.name for field in schema if not field.nullable]
