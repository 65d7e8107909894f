"""Every format in which a campaign leaves. Whoever tests exports goes through `FORMATS`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stillwatch.evidence.sharing.lists import decisions, indicators
from stillwatch.evidence.sharing.misp import misp
from stillwatch.evidence.sharing.navigator import navigator
from stillwatch.evidence.sharing.ocsf import ocsf
from stillwatch.evidence.sharing.outgoing import Outgoing, Request, outgoing
from stillwatch.evidence.sharing.stix import stix
from stillwatch.evidence.sharing.terms import stamp
from stillwatch.schema.errors import UsageError
from stillwatch.schema.journal import Json
from stillwatch.store.pseudonyms import KeyRing


@dataclass(frozen=True, slots=True)
class Format:
    """One format."""

    name: str
    what: str
    """In a few words, with its version."""
    write: Callable[[Outgoing], bytes]
    """The whole file; the same bytes for the same record."""
    wording: bool = False
    """Whether it carries fingerprints."""
    accounts: bool = False
    """Whether it lists accounts, as pseudonyms unless asked for by name."""


FORMATS: Mapping[str, Format] = {
    form.name: form
    for form in (
        Format("stix", "STIX 2.1 bundle", stix, wording=True),
        Format("misp", "MISP event", misp, wording=True),
        Format("ocsf", "OCSF 1.5.0 Detection Finding", ocsf, wording=True),
        Format("navigator", "ATT&CK Navigator layer 4.5", navigator),
        Format("csv", "indicators as CSV", indicators, wording=True),
        Format("decisions", "what is decided about each account, JSON lines", decisions, accounts=True),
    )
}


@dataclass(frozen=True, slots=True)
class Shared:
    """A file that was made."""

    data: bytes
    revoked: bool
    """Whether it takes back what was shared before."""


def share(
    asked: Request, form: str, ring: KeyRing, tell: Callable[[str], None] = lambda text: None
) -> Shared:
    """One campaign in one format. UsageError for an unknown format, and what `outgoing` raises."""
    if form not in FORMATS:
        raise UsageError(f"{form[:40]!a} is no format", hint=f"one of: {', '.join(FORMATS)}")
    if asked.show_accounts and not FORMATS[form].accounts:
        raise UsageError(
            f"the format {form} lists no accounts", hint="--show-accounts is for --format decisions"
        )
    out = outgoing(asked, ring, tell, wording=FORMATS[form].wording)
    return Shared(FORMATS[form].write(out), out.revoked)


def shared_event(
    asked: Request, form: str, data: bytes, pseudonym: str, *, revoked: bool
) -> tuple[str, dict[str, Json]]:
    """What the transparency log is told of a file that was written for a partner: who has what, and what is void.

    `pseudonym`: the partner's (`KeyRing.partner`).
    """
    return "share", {
        "did": "take_back" if revoked else "share",
        "campaign": asked.campaign,
        "format": form,
        "sha256": hashlib.sha256(data).hexdigest(),
        "partner": pseudonym,
        "tlp": asked.terms.tlp,
        "expires": stamp(asked.terms.expires),
        "without": len(asked.without),
        "accounts_named": asked.show_accounts,
    }
