"""An ATT&CK Navigator layer: the ATT&CK techniques on the matrix, those of ATLAS beside it."""

from __future__ import annotations

import json
from typing import Any

from stillwatch.campaign.techniques import ATLAS_VERSION, ATTACK_VERSION
from stillwatch.evidence.sharing.outgoing import Outgoing
from stillwatch.evidence.sharing.prose import summary
from stillwatch.evidence.sharing.terms import stamp

LAYER_VERSION = "4.5"
"""Of the layer file format (mitre-attack/attack-navigator, layers/spec/v4.5)."""
NAVIGATOR_VERSION = "5.1.0"
COLOUR = "#e6550d"


def navigator(out: Outgoing) -> bytes:
    """The layer as JSON, keys sorted. A campaign that was taken back has no technique enabled."""
    terms = out.terms
    facts = [
        ("TLP", f"TLP:{terms.tlp.upper()}"),
        ("confidence", f"{terms.confidence} of 100"),
        ("valid until", stamp(terms.expires)),
        ("made by", out.generator),
        ("as of", stamp(out.modified)),
        *([("shared by", terms.sharer)] if terms.sharer else []),
        *([("state", "withdrawn")] if out.revoked else []),
        *(
            (f"ATLAS {ATLAS_VERSION} {shown.entry.id}", f"{shown.entry.name}: {shown.because}")
            for shown in out.techniques
            if shown.entry.framework == "ATLAS"
        ),
    ]
    layer: dict[str, Any] = {
        "name": out.campaign,
        "versions": {
            "attack": ATTACK_VERSION.partition(".")[0],
            "navigator": NAVIGATOR_VERSION,
            "layer": LAYER_VERSION,
        },
        "domain": "enterprise-attack",
        "description": summary(out),
        "techniques": [
            {
                "techniqueID": shown.entry.id,
                "tactic": shown.entry.tactic.lower().replace(" ", "-"),
                "score": 0 if out.revoked else terms.confidence,
                "color": COLOUR,
                "comment": shown.because,
                "enabled": not out.revoked,
                "showSubtechniques": "." in shown.entry.id,
            }
            for shown in out.techniques
            if shown.entry.framework == "ATT&CK"
        ],
        "gradient": {"colors": ["#ffffff", COLOUR], "minValue": 0, "maxValue": 100},
        "legendItems": [{"label": "observed", "color": COLOUR}],
        "metadata": [{"name": name, "value": value} for name, value in facts],
    }
    return (json.dumps(layer, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
