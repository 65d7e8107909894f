"""STIX 2.1: a bundle of standard objects, which says everything to a consumer who knows no extension.

Campaign, Indicators, Sighting, Grouping, Note, Attack Patterns, Identities and the TLP 2.0 marking are standard. What
STIX has no words for is in two property extensions, each declared by an Extension Definition: the account cluster of
the Campaign, and the prompt family of an Indicator. Neither is an object of its own type: strict readers, the library
`stix2` among them, refuse a whole bundle for one object of a type that they do not know, declared or not.
STIX 2.1: OASIS Standard, 10 June 2021.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

import msgspec

from stillwatch.evidence.sharing.outgoing import VERSIONS, Outgoing, Shown, fingerprint_id
from stillwatch.evidence.sharing.prose import lines, summary
from stillwatch.evidence.sharing.terms import stamp
from stillwatch.evidence.sharing.words import at_least
from stillwatch.schema.errors import MissingExtraError
from stillwatch.schema.intel import LEAST_ACCOUNTS, PROPERTY, FamilyFingerprint

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:stillwatch:sharing:1")
"""For UUIDv5 of our own objects: the same campaign for the same partner has the same ids in every version."""
TLP_EXTENSION = "extension-definition--60a3c5c5-0d10-413e-aab3-9e08dde9e88d"
TLP_MARKINGS = {
    "clear": "marking-definition--94868c89-83c2-464b-929b-a1a8aa3c8487",
    "green": "marking-definition--bab4a63c-aed9-4cf5-a766-dfca5abac2bb",
    "amber": "marking-definition--55d920b0-5e8b-4f79-9ee9-91f868d9b421",
    "amber+strict": "marking-definition--939a9414-2ddd-4d32-a0cd-375ea402b003",
    "red": "marking-definition--e828b379-4e03-4974-9ac4-e53a884c97c1",
}
"""TLP 2.0 as OASIS published it (cti-stix-common-objects); STIX 2.1 itself only has TLP 1.0."""
FAMILY = "x-stillwatch-prompt-family"
"""What patterns call the observable: text whose postings, hashed under the partners' key, are compared."""
FIXED = "2021-06-10T00:00:00.000Z"
"""Creation time of what is the same in every bundle: that of STIX 2.1, older than any campaign, because readers take
the newest time of a bundle for the bundle's own."""


def _fixed(kind: str, name: str) -> str:
    return f"{kind}--{uuid.uuid5(NAMESPACE, name)}"


MAKER = _fixed("identity", "stillwatch")
FAMILY_EXTENSION = _fixed("extension-definition", "prompt-family")
CLUSTER_EXTENSION = _fixed("extension-definition", "account-cluster")
EXTENSIONS = {
    FAMILY_EXTENSION: (
        "Prompt family",
        "In an Indicator: the wording that accounts of a campaign share, as keyed hashes.",
        f"{PROPERTY} (list of object): key_id (string): 8 hex digits of the key that the two partners agreed on; "
        "part (string): prompt or system; hashes (list of string): keyed hashes, 5 hex digits each; least (float): "
        "share of them that wording must hold to match; accounts (integer), entities (integer): holders, rounded "
        "down; capabilities (list of string); level (integer): the hashes are of postings that the sketch keeps at "
        f"this selection level. In the pattern, {FAMILY}:fingerprint is the SHA-256, hex, of key_id, "
        "part and hashes, joined by line feeds.",
    ),
    CLUSTER_EXTENSION: (
        "Account cluster",
        "In a Campaign: the accounts that carry it out.",
        f"accounts (integer): how many, rounded down; absent if fewer than {LEAST_ACCOUNTS}. exchanges (integer): "
        "their requests, rounded down. claims (list of string): coordinated, one_director, harvest_like. "
        "capabilities (list of string). valid_until (timestamp).",
    ),
}
"""Name, description and schema by id."""


def stix(out: Outgoing) -> bytes:
    """The bundle as JSON, keys sorted. MissingExtraError without the extra `sharing`."""
    try:
        import stix2
    except ImportError as error:
        raise MissingExtraError("stix2", "sharing", needed_for="writing STIX") from error
    made = _Bundle(out, stix2.v21)
    bundle = {"type": "bundle", "id": made.name("bundle"), "objects": made.objects()}
    return (json.dumps(bundle, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


class _Bundle:
    def __init__(self, out: Outgoing, v21: Any) -> None:
        self._out, self._v21 = out, v21
        self._marks = [TLP_MARKINGS[out.terms.tlp]]
        self._sharer = _fixed("identity", f"sharer\n{out.terms.sharer}") if out.terms.sharer else None

    def name(self, kind: str, *what: str) -> str:
        """The id of an object of this campaign. UUIDv5 of the campaign's pseudonym, kind and `what`."""
        return _fixed(kind, "\n".join((self._out.campaign, kind, *what)))

    def objects(self) -> list[dict[str, Any]]:
        """All objects; the standard ones are built, and so checked, by the library."""
        out = self._out
        indicators = [self._indicator(family) for family in out.fingerprints]
        patterns = [self._pattern(shown) for shown in out.techniques]
        content = [self._campaign(), *indicators, *patterns]
        content += [*self._links(indicators, patterns), self._sighting()]
        content.append(self._note([o["id"] for o in content]))
        about = [self._plain(self._marking()), *self._identities(), *self._extensions()]
        return [*about, *content, self._grouping([o["id"] for o in content])]

    def _dates(self) -> dict[str, Any]:
        """What every object of this version has in common."""
        common: dict[str, Any] = {
            "created": self._out.created,
            "modified": self._out.modified,
            "object_marking_refs": self._marks,
        }
        if self._out.revoked:
            common["revoked"] = True
        if self._sharer is not None:
            common["created_by_ref"] = self._sharer
        return common

    def _sure(self) -> dict[str, Any]:
        return {"confidence": self._out.terms.confidence, **self._dates()}

    @staticmethod
    def _plain(made: Any) -> dict[str, Any]:
        return dict(json.loads(made.serialize()))

    def _marking(self) -> Any:
        tlp = self._out.terms.tlp
        extension = {"extension_type": "property-extension", "tlp_2_0": tlp}
        return self._v21.MarkingDefinition(
            id=TLP_MARKINGS[tlp],
            created="2022-10-01T00:00:00.000Z",
            name=f"TLP:{tlp.upper()}",
            extensions={TLP_EXTENSION: extension},
        )

    def _identities(self) -> list[dict[str, Any]]:
        maker = self._v21.Identity(
            id=MAKER,
            created=FIXED,
            modified=FIXED,
            name="Stillwatch",
            identity_class="system",
            description="The program that made this bundle, and the extensions that it declares.",
        )
        found = [self._plain(maker)]
        if self._sharer is not None:
            sharer = self._v21.Identity(
                id=self._sharer,
                created=FIXED,
                modified=FIXED,
                name=self._out.terms.sharer,
                identity_class="organization",
            )
            found.append(self._plain(sharer))
        return found

    def _extensions(self) -> list[dict[str, Any]]:
        return [
            self._plain(
                self._v21.ExtensionDefinition(
                    id=id,
                    created=FIXED,
                    modified=FIXED,
                    created_by_ref=MAKER,
                    name=name,
                    description=text,
                    schema=schema,
                    version="1.0.0",
                    extension_types=["property-extension"],
                )
            )
            for id, (name, text, schema) in EXTENSIONS.items()
            if self._out.fingerprints or id == CLUSTER_EXTENSION
        ]

    def _campaign(self) -> dict[str, Any]:
        out = self._out
        reference = {"source_name": "stillwatch", "description": f"Made by {out.generator}."}
        return self._plain(
            self._v21.Campaign(
                id=self.name("campaign"),
                name=out.campaign,
                description=summary(out),
                first_seen=out.first_day,
                last_seen=out.last_day,
                objective="Unauthorised coordinated harvesting of a language model's outputs",
                external_references=[reference],
                extensions={CLUSTER_EXTENSION: self._cluster()},
                **self._sure(),
            )
        )

    def _cluster(self) -> dict[str, Any]:
        out = self._out
        known = {
            "accounts": out.accounts,
            "exchanges": out.exchanges,
            "claims": list(out.claims),
            "capabilities": list(out.capabilities),
        }
        return {
            "extension_type": "property-extension",
            "valid_until": stamp(out.terms.expires),
            **{name: value for name, value in known.items() if value},
        }

    def _indicator(self, family: FamilyFingerprint) -> dict[str, Any]:
        out, digest = self._out, fingerprint_id(family)
        what = "system prompt" if family.part == "system" else "prompt"
        return self._plain(
            self._v21.Indicator(
                # One of each part: a version with other hashes is a version of the same indicator.
                id=self.name("indicator", family.part),
                name=f"{what.capitalize()} wording of {out.campaign}",
                description=f"Wording that {at_least(family.accounts, 'accounts')} share, as keyed hashes. "
                "One kind of evidence, never enough alone.",
                indicator_types=["attribution"],
                pattern=f"[{FAMILY}:fingerprint = '{digest}']",
                pattern_type="stix",
                pattern_version="2.1",
                valid_from=out.valid_from,
                valid_until=out.terms.expires,
                extensions={
                    FAMILY_EXTENSION: {
                        "extension_type": "property-extension",
                        PROPERTY: [msgspec.to_builtins(family)],
                    }
                },
                **self._sure(),
            )
        )

    def _pattern(self, shown: Shown) -> dict[str, Any]:
        entry = shown.entry
        source, chain = ("mitre-atlas",) * 2 if entry.framework == "ATLAS" else ("mitre-attack",) * 2
        return self._plain(
            self._v21.AttackPattern(
                # Of the campaign, not the technique's own object: who revokes one takes back only what it said.
                id=self.name("attack-pattern", entry.id),
                name=entry.name,
                description=f"{shown.because} ({entry.framework} {VERSIONS[entry.framework]})",
                external_references=[{"source_name": source, "external_id": entry.id, "url": entry.url}],
                kill_chain_phases=[
                    {"kill_chain_name": chain, "phase_name": entry.tactic.lower().replace(" ", "-")}
                ],
                **self._sure(),
            )
        )

    def _links(
        self, indicators: list[dict[str, Any]], patterns: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        campaign = self.name("campaign")
        wanted: list[tuple[str, str, str, str | None]] = [
            (indicator["id"], "indicates", campaign, None) for indicator in indicators
        ]
        wanted += [
            (campaign, "uses", pattern["id"], shown.because)
            for pattern, shown in zip(patterns, self._out.techniques, strict=True)
        ]
        return [
            self._plain(
                self._v21.Relationship(
                    id=self.name("relationship", source, kind, target),
                    source_ref=source,
                    relationship_type=kind,
                    target_ref=target,
                    **({} if text is None else {"description": text}),
                    **self._sure(),
                )
            )
            for source, kind, target, text in wanted
        ]

    def _sighting(self) -> dict[str, Any]:
        out = self._out
        refs = {} if self._sharer is None else {"where_sighted_refs": [self._sharer]}
        return self._plain(
            self._v21.Sighting(
                id=self.name("sighting"),
                sighting_of_ref=self.name("campaign"),
                first_seen=out.first_day,
                last_seen=out.last_day,
                **({"count": out.exchanges} if out.exchanges else {}),
                **refs,
                **self._sure(),
            )
        )

    def _note(self, about: list[str]) -> dict[str, Any]:
        out = self._out
        authors = {"authors": [out.terms.sharer]} if out.terms.sharer else {}
        return self._plain(
            self._v21.Note(
                id=self.name("note"),
                abstract="What was found, and what this cannot say",
                content="\n".join(lines(out)),
                object_refs=about,
                **authors,
                **self._sure(),
            )
        )

    def _grouping(self, about: list[str]) -> dict[str, Any]:
        return self._plain(
            self._v21.Grouping(
                id=self.name("grouping"),
                name=f"Campaign {self._out.campaign}",
                context="suspicious-activity",
                object_refs=about,
                **self._sure(),
            )
        )
