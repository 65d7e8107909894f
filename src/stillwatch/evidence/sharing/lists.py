"""Lists for machines: indicators as CSV, and what is decided about accounts as JSON lines."""

from __future__ import annotations

import csv
import io
import json

from stillwatch.evidence.sharing.outgoing import VERSIONS, Outgoing, fingerprint_id
from stillwatch.evidence.sharing.terms import stamp

COLUMNS = (
    "kind", "value", "name", "part", "key_id", "least", "hashes", "accounts", "entities", "because", "campaign",
    "first_day", "last_day", "state", "tlp", "confidence", "expires", "as_of", "generator",
)  # fmt: skip


def indicators(out: Outgoing) -> bytes:
    """CSV (RFC 4180, UTF-8): a row for the campaign, each fingerprint and each technique."""
    terms = out.terms
    common: dict[str, object] = {
        "campaign": out.campaign,
        "first_day": f"{out.first_day:%Y-%m-%d}",
        "last_day": f"{out.last_day:%Y-%m-%d}",
        "state": "withdrawn" if out.revoked else "active",
        "tlp": terms.tlp,
        "confidence": terms.confidence,
        "expires": stamp(terms.expires),
        "as_of": stamp(out.modified),
        "generator": out.generator,
    }
    rows: list[dict[str, object]] = [
        {"kind": "campaign", "value": out.campaign, "accounts": out.accounts or "", **common}
    ]
    rows += [
        {
            "kind": "fingerprint",
            "value": fingerprint_id(family),
            "part": family.part,
            "key_id": family.key_id,
            "least": family.least,
            "hashes": " ".join(family.hashes),
            "accounts": family.accounts,
            "entities": family.entities,
            **common,
        }
        for family in out.fingerprints
    ]
    rows += [
        {
            "kind": f"{shown.entry.framework} {VERSIONS[shown.entry.framework]}",
            "value": shown.entry.id,
            "name": shown.entry.name,
            "because": shown.because,
            **common,
        }
        for shown in out.techniques
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def decisions(out: Outgoing) -> bytes:
    """JSON lines: one for the list, then one for each account, by name. The list is whole: who is not in it is free.

    JSON and not CSV, because ids may be whatever an account chose, and spreadsheets run what begins with `=`.
    """
    terms = out.terms
    state = "withdrawn" if out.revoked else "active"
    common = {
        "campaign": out.campaign,
        "state": state,
        "action": "none" if out.revoked else out.action,
        "expires": stamp(out.action_expires),
        "confidence": terms.confidence,
        "tlp": terms.tlp,
    }
    head = {
        "list": "stillwatch-decisions",
        "version": 1,
        "whole": True,
        "accounts": len(out.listed),
        "as_of": stamp(out.modified),
        "generator": out.generator,
        **({"sharer": terms.sharer} if terms.sharer else {}),
        **common,
    }
    rows = [
        {"account": row.account, "reason": "withdrawn" if out.revoked else row.reason, **common}
        for row in out.listed
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in (head, *rows))
