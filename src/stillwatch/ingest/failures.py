"""Error bodies and error texts -> canonical columns: status, who refused, and whether it was a refusal.

The types are those of the OpenAI and Anthropic API references. An HTTP status that a log states itself
always wins over one that is inferred here.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from stillwatch.ingest.bodies import Columns

_CASE = re.compile(r"""['"]case['"]\s*:\s*['"](?P<case>[^'"]{1,64})['"]""")
_OUR_GUARD = re.compile(r"""['"]guardrail_name['"]\s*:\s*['"]stillwatch['"]""")
_OTHER_GUARD = re.compile(r"""['"]guardrail_name['"]\s*:\s*['"](?P<name>[\w.-]{1,64})['"]""")

_STATUS = {
    "invalid_api_key": 401,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "request_too_large": 413,
    "insufficient_quota": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "tokens": 429,
    "api_error": 500,
    "server_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
    "content_filter": 400,
    "content_policy_violation": 400,
    "invalid_request_error": 400,
}
_DECLINED = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})


def blocker(text: str) -> str | None:
    """Who refused a request, from the text of the error: `stillwatch:<case>`, another guard's name, or None."""
    case = _CASE.search(text)
    if case is not None and (_OUR_GUARD.search(text) or case.group("case").startswith("SW-")):
        return f"stillwatch:{case.group('case')}"
    other = _OTHER_GUARD.search(text)
    return other.group("name") if other is not None else None


def error_columns(body: Any) -> Columns:
    """Columns of an error body (`{"error": ...}`, decoded JSON); none for any other body."""
    error = body.get("error") if isinstance(body, dict) else None
    if not error:
        return {}
    inner = error if isinstance(error, dict) else {}
    # A code says more than a type: OpenAI's `invalid_request_error` covers 400, 401 and 404.
    names = [inner.get(key) for key in ("code", "type", "status")]
    found = [_status(name) for name in names]
    out: Columns = {
        "status": next((status for status in found if status is not None), None),
        "blocked_by": blocker(msgspec.json.encode(body).decode("utf-8", "replace")),
        "refused": True if any(name in _DECLINED for name in names if isinstance(name, str)) else None,
    }
    return {name: value for name, value in out.items() if value is not None}


def _status(name: Any) -> int | None:
    if isinstance(name, int) and not isinstance(name, bool):
        return name if 100 <= name <= 599 else None
    if not isinstance(name, str):
        return None
    if len(name) == 3 and name.isascii() and name.isdigit():
        return _status(int(name))
    return _STATUS.get(name)
