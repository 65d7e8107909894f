"""A MISP event: standard attributes, tags and an event report, so that no instance needs a template of ours."""

from __future__ import annotations

import json
import uuid
from typing import Any

import msgspec

from stillwatch.evidence.sharing.outgoing import Outgoing, Shown
from stillwatch.evidence.sharing.prose import lines, summary
from stillwatch.evidence.sharing.stix import NAMESPACE
from stillwatch.evidence.sharing.terms import stamp
from stillwatch.schema.errors import MissingExtraError

FINGERPRINT_COMMENT = "Stillwatch family fingerprint (keyed hashes, JSON)"
"""Comment by which a reader finds fingerprints among the attributes of type `other`."""
LEVELS = (
    (100, "completely-confident"),
    (75, "usually-confident"),
    (50, "fairly-confident"),
    (25, "rarely-confident"),
    (0, "unconfident"),
)
"""Taxonomy `misp:confidence-level`: the highest level that the confidence reaches."""
GALAXY_NAMES = {
    "AML.T0024.002": "Extract ML Model",
    **{
        id: f"{name} - {id}"
        for id, name in (
            ("T1036", "Masquerading"),
            ("T1078", "Valid Accounts"),
            ("T1090.002", "External Proxy"),
            ("T1119", "Automated Collection"),
            ("T1583", "Acquire Infrastructure"),
            ("T1585", "Establish Accounts"),
            ("T1588.007", "Artificial Intelligence"),
        )
    },
}
"""Values of the galaxies' clusters where they are not the technique's name (pymispgalaxies 1.1.1)."""


def misp(out: Outgoing) -> bytes:
    """The event as JSON, keys sorted. MissingExtraError without the extra `sharing`."""
    try:
        from pymisp import MISPEvent
    except ImportError as error:
        raise MissingExtraError("pymisp", "sharing", needed_for="writing MISP events") from error
    event: Any = MISPEvent()
    event.uuid = _uuid(out, "event")
    event.info = f"Unauthorised coordinated harvesting: {out.campaign}"
    event.set_date(out.first_day.date())
    event.timestamp = out.modified
    event.analysis = 2  # complete
    event.threat_level_id = 4  # undefined: this program does not judge it
    event.distribution = 0  # your organisation only: the tag says who else may see it
    event.published = False
    if out.terms.sharer:
        event.Orgc = {
            "name": out.terms.sharer,
            "uuid": str(uuid.uuid5(NAMESPACE, f"org\n{out.terms.sharer}")),
        }
    for tag in tags(out):
        event.add_tag(tag)
    for what in _attributes(out):
        event.add_attribute(
            **what,
            uuid=_uuid(out, what["type"], what["comment"]),
            timestamp=out.modified,
            distribution=5,  # as the event's
            deleted=out.revoked,
        )
    event.add_event_report(
        name="What was found, and what this cannot say",
        content="\n\n".join(lines(out)),
        uuid=_uuid(out, "report"),
        timestamp=out.modified,
        distribution=5,
    )
    plain = {"Event": json.loads(event.to_json())}
    return (json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def tags(out: Outgoing) -> list[str]:
    """TLP, confidence, expiry, generator and techniques, as machine tags."""
    terms = out.terms
    level = next(name for least, name in LEVELS if terms.confidence >= least)
    found = [
        f"tlp:{terms.tlp}",
        f'misp:confidence-level="{level}"',
        f'stillwatch:confidence="{terms.confidence}"',
        f'stillwatch:expires="{stamp(terms.expires)}"',
        f'stillwatch:version="{out.version}"',
        *(galaxy_tag(shown) for shown in out.techniques),
    ]
    return [*found, 'stillwatch:state="withdrawn"'] if out.revoked else found


def galaxy_tag(shown: Shown) -> str:
    """The tag of a technique's cluster."""
    entry = shown.entry
    galaxy = "mitre-atlas-attack-pattern" if entry.framework == "ATLAS" else "mitre-attack-pattern"
    return f'misp-galaxy:{galaxy}="{GALAXY_NAMES.get(entry.id, entry.name)}"'


def _attributes(out: Outgoing) -> list[dict[str, Any]]:
    """Nothing but fingerprints is for detection, and those only while they stand."""
    plain = {"category": "Other", "to_ids": False}
    span = {"first_seen": out.first_day, "last_seen": out.last_day}
    found: list[dict[str, Any]] = [
        {
            "type": "campaign-name",
            "category": "Attribution",
            "to_ids": False,
            "value": out.campaign,
            "comment": "The campaign's pseudonym for this partner",
            **span,
        },
        {"type": "text", "value": summary(out), "comment": "Summary", **plain},
        {
            "type": "datetime",
            "value": stamp(out.terms.expires),
            "comment": "Valid until",
            **plain,
        },
    ]
    for family in out.fingerprints:
        text = json.dumps(msgspec.to_builtins(family), sort_keys=True, separators=(",", ":"))
        found.append(
            {
                "type": "other",
                "category": "Other",
                "to_ids": not out.revoked,
                "value": text,
                "comment": f"{FINGERPRINT_COMMENT}: {family.part}",
                **span,
            }
        )
    return found


def _uuid(out: Outgoing, *what: str) -> str:
    return str(uuid.uuid5(NAMESPACE, "\n".join((out.campaign, "misp", *what))))
