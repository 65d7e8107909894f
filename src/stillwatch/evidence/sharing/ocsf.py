"""OCSF 1.5.0: one Detection Finding (class 2004); its profile `osint` carries TLP, confidence and expiry."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from importlib import resources
from typing import Any

from stillwatch.evidence.sharing.outgoing import GENERATOR, VERSIONS, Outgoing, Shown, fingerprint_id
from stillwatch.evidence.sharing.prose import lines, summary
from stillwatch.evidence.sharing.stix import NAMESPACE
from stillwatch.evidence.sharing.terms import stamp
from stillwatch.evidence.sharing.words import at_least

OCSF_VERSION = "1.5.0"
SCHEMA = "detection_finding.schema.json"
CLASS = 2004
CREATE, CLOSE = 1, 3
CONFIDENCE = ((67, 3, "High"), (34, 2, "Medium"), (0, 1, "Low"))
"""(from, confidence_id, confidence)."""
PARENTS = {
    "AML.T0005.001": "Create Proxy AI Model",
    "AML.T0008.005": "Acquire Infrastructure",
    "AML.T0024.002": "Exfiltration via AI Inference API",
    "T1090.002": "Proxy",
    "T1588.007": "Obtain Capabilities",
}
"""Names of the techniques above the subtechniques."""


def schema() -> Mapping[str, Any]:
    """The JSON schema of what is written: required attributes and enumerations as OCSF 1.5.0 documents them."""
    text = resources.files("stillwatch.evidence.sharing").joinpath(SCHEMA).read_text(encoding="utf-8")
    return dict(json.loads(text))


def ocsf(out: Outgoing) -> bytes:
    """The finding as JSON, keys sorted. Taken back: the activity `Close` and the status `Suppressed`."""
    terms = out.terms
    _, confidence_id, confidence = next(level for level in CONFIDENCE if terms.confidence >= level[0])
    activity, name = (CLOSE, "Close") if out.revoked else (CREATE, "Create")
    status_id, status = (3, "Suppressed") if out.revoked else (1, "New")
    product = {"name": GENERATOR, "vendor_name": GENERATOR, "version": out.version}
    finding: dict[str, Any] = {
        "activity_id": activity,
        "activity_name": name,
        "category_name": "Findings",
        "category_uid": 2,
        "class_name": "Detection Finding",
        "class_uid": CLASS,
        "type_uid": CLASS * 100 + activity,
        "type_name": f"Detection Finding: {name}",
        "time": _ms(out.modified),
        "start_time": _ms(out.first_day),
        "end_time": _ms(out.last_day),
        # This program measures how sure it is, not how bad it is.
        "severity_id": 0,
        "severity": "Unknown",
        "status_id": status_id,
        "status": status,
        "confidence": confidence,
        "confidence_id": confidence_id,
        "confidence_score": terms.confidence,
        "is_alert": not out.revoked,
        "message": summary(out),
        "metadata": {
            "version": OCSF_VERSION,
            "product": product,
            "profiles": ["osint"],
            "uid": _uuid(out, "event", str(_ms(out.modified)), name),
            "labels": [f"tlp:{terms.tlp}", f"expires:{stamp(terms.expires)}"],
        },
        "finding_info": {
            "uid": _uuid(out, "finding"),
            "title": "Unauthorised coordinated harvesting",
            "desc": "\n".join(lines(out)),
            "types": ["Unauthorised coordinated harvesting"],
            "analytic": {
                "uid": "stillwatch-scan",
                "name": GENERATOR,
                "type": "Statistical",
                "type_id": 3,
                "version": out.version,
            },
            "attacks": [_attack(shown) for shown in out.techniques],
            "created_time": _ms(out.created),
            "modified_time": _ms(out.modified),
            "first_seen_time": _ms(out.first_day),
            "last_seen_time": _ms(out.last_day),
            "data_sources": ["request log"],
        },
        "osint": [_osint(out, confidence, confidence_id)],
    }
    if not out.techniques:
        del finding["finding_info"]["attacks"]
    return (json.dumps(finding, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _attack(shown: Shown) -> dict[str, Any]:
    entry = shown.entry
    site = "atlas" if entry.framework == "ATLAS" else "attack"
    head, _, tail = entry.id.rpartition(".")
    below = bool(head) and head != "AML"
    technique = {"uid": head, "name": PARENTS[entry.id]} if below else {"uid": entry.id, "name": entry.name}
    found: dict[str, Any] = {
        "tactic": {"name": entry.tactic, "src_url": f"https://{site}.mitre.org"},
        "technique": technique,
        "version": VERSIONS[entry.framework],
    }
    if below:
        found["sub_technique"] = {"uid": f"{head}.{tail}", "name": entry.name, "src_url": entry.url}
    return found


def _osint(out: Outgoing, confidence: str, confidence_id: int) -> dict[str, Any]:
    """The campaign as one piece of intelligence; its value is the pseudonym."""
    terms = out.terms
    prints = [f"{f.part} wording {fingerprint_id(f)} under key {f.key_id}" for f in out.fingerprints]
    return {
        "uid": _uuid(out, "osint"),
        "type_id": 99,
        "type": "Campaign of accounts",
        "value": out.campaign,
        "tlp": terms.tlp.upper().replace("+", " "),
        "confidence": confidence,
        "confidence_id": confidence_id,
        "expiration_time": _ms(terms.expires),
        "created_time": _ms(out.created),
        "modified_time": _ms(out.modified),
        "campaign": {"name": out.campaign},
        "comment": "; ".join([at_least(out.accounts, "accounts", 5), *prints]),
        "labels": ["withdrawn"] if out.revoked else ["active"],
        "vendor_name": terms.sharer or GENERATOR,
    }


def _ms(when: datetime) -> int:
    return int(when.timestamp() * 1000)


def _uuid(out: Outgoing, *what: str) -> str:
    return str(uuid.uuid5(NAMESPACE, "\n".join((out.campaign, "ocsf", *what))))
