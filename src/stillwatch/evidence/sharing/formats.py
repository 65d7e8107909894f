"""Every format in which a campaign leaves. Whoever tests exports goes through `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stillwatch.evidence.sharing.lists import decisions, indicators
from stillwatch.evidence.sharing.misp import misp
from stillwatch.evidence.sharing.navigator import navigator
from stillwatch.evidence.sharing.ocsf import ocsf
from stillwatch.evidence.sharing.outgoing import Outgoing, Request, outgoing
from stillwatch.evidence.sharing.stix import stix
from stillwatch.schema.errors import UsageError
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


def share(asked: Request, form: str, ring: KeyRing, tell: Callable[[str], None] = lambda text: None) -> bytes:
    """One campaign in one format. UsageError for an unknown format, and what `outgoing` raises."""
    if form not in FORMATS:
        raise UsageError(f"{form[:40]!a} is no format", hint=f"one of: {', '.join(FORMATS)}")
    if asked.show_accounts and not FORMATS[form].accounts:
        raise UsageError(
            f"the format {form} lists no accounts", hint="--show-accounts is for --format decisions"
        )
    return FORMATS[form].write(outgoing(asked, ring, tell, wording=FORMATS[form].wording))
