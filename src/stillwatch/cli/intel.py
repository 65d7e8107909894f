"""`stillwatch intel`: what partners say, and what they are told: keyed fingerprints of confirmed campaigns."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, cast, get_args

import msgspec
import typer

from stillwatch.cli.log import LogFile, LogKey, commit, ready
from stillwatch.cli.options import AsJson, time_of
from stillwatch.evidence.intel import psi
from stillwatch.evidence.intel.envelope import seal, written_key
from stillwatch.evidence.intel.feeds import Refused
from stillwatch.evidence.intel.fingerprints import fingerprints_of
from stillwatch.evidence.intel.importing import Taken, read_bytes, take_feed
from stillwatch.evidence.keys import read_key
from stillwatch.ingest.lookup import read_lookups
from stillwatch.scan import Scanned
from stillwatch.scan.partner import WHY, Intel, Told
from stillwatch.schema.errors import UsageError
from stillwatch.schema.intel import FEED_TYPE, STIX_TYPE, FamilyFingerprint, Feed, Indicator, Tlp
from stillwatch.schema.journal import Json
from stillwatch.store.files import write_whole
from stillwatch.store.intel import IntelStore, weighed
from stillwatch.store.pseudonyms import KeyRing
from stillwatch.store.results import read_findings
from stillwatch.store.told import note_aside, told_in

intel_app = typer.Typer(
    no_args_is_help=True, help="Partners' fingerprints of campaigns: taken in, compared, and made for them."
)
partner_app = typer.Typer(
    no_args_is_help=True, help="Whose feeds are taken, and by which keys they are signed."
)
psi_app = typer.Typer(
    no_args_is_help=True, help="Which confirmed campaigns a partner has as well, and nothing else; by files."
)
intel_app.add_typer(partner_app, name="partner")
intel_app.add_typer(psi_app, name="psi")

Store = Annotated[Path, typer.Option("--store", help="The store of partners' indicators (JSON).")]
Name = Annotated[str, typer.Option("--partner", help="The partner, as the store and the key ring name it.")]
Ring = Annotated[
    Path, typer.Option("--keys", help="Key ring, with the fingerprint key agreed on with the partner.")
]
Signer = Annotated[Path, typer.Option("--key", help="Our private ed25519 key (PEM): it signs what we send.")]
At = Annotated[
    str | None, typer.Option("--at", help="Time that counts as now, ISO 8601; the clock if not given.")
]
Results = Annotated[Path, typer.Argument(help="Results folder of a scan.")]
Campaigns = Annotated[
    list[str] | None, typer.Option("--campaign", help="Only this one; may be repeated. All if not given.")
]
MOST_SHOWN = 50


def intel_for(store: Path | None, keys: Path | None, at: str | None) -> Intel | None:
    """What a command with --intel compares; None without. UsageError where one goes without the other."""
    if store is None:
        if at is not None:
            raise UsageError("--at goes with --intel")
        return None
    if keys is None:
        raise UsageError("--intel needs --keys: the ring with the keys agreed on with partners")
    return told_in(store, keys, time_of(at))[0]


def heeded(store: Path | None, ring: Path | None) -> Sequence[Told]:
    """What a guard compares: without what the last scan set aside. UsageError where one goes without the other."""
    if (store is None) != (ring is None):
        raise UsageError("--intel and --key-ring go together")
    return () if store is None or ring is None else told_in(store, ring)[1].told


def keep_aside(store: Path | None, scanned: Scanned) -> None:
    """Keep in the store what a scan set aside; say so where nothing was compared."""
    if store is None:
        return
    if scanned.heard is None or not scanned.heard.live:
        print(
            "No indicator of a partner was in force at the end of the log: none was compared.",
            file=sys.stderr,
        )
    note_aside(store, scanned.heard)


def _now(at: str | None) -> datetime:
    return time_of(at) or datetime.now(UTC)


def _tlp(text: str) -> Tlp:
    found = text.strip().lower().removeprefix("tlp:")
    if found not in get_args(Tlp):
        raise UsageError(f"{text!a} is no TLP label", hint=f"one of {', '.join(get_args(Tlp))}")
    return cast(Tlp, found)


@partner_app.command("add")
def partner_add(
    name: Annotated[str, typer.Argument(help="A short name for the partner.")],
    key: Annotated[str, typer.Option("--key", help="Its public key: ed25519:BASE64.")],
    store: Store,
    at: At = None,
) -> None:
    """Take feeds that a key signs. A second key of the same partner is added; the store is made if there is none."""
    IntelStore(store).add_partner(name, key, _now(at))
    print(f"{store}: feeds of {name} are taken if {key} signs them")


@partner_app.command("list")
def partner_list(store: Store) -> None:
    """Partners with their keys, and what became of what they said."""
    holding = IntelStore(store).read()
    for partner in holding.partners:
        mine = holding.of(partner.name)
        aside = sum(k.aside is not None for k in mine)
        told = f"{len(mine):,} indicators"
        if aside:
            told += f", {aside:,} of them set aside by the last scan that compared them"
        print(f"{partner.name}: {told}; since {partner.added:%Y-%m-%d}")
        for key in partner.keys:
            print(f"  {key}")
    if not holding.partners:
        print("no partner yet: stillwatch intel partner add NAME --key ed25519:...")


@partner_app.command("remove")
def partner_remove(name: Annotated[str, typer.Argument(help="The partner.")], store: Store) -> None:
    """Forget a partner, its keys and all that it said."""
    gone = IntelStore(store).drop_partner(name)
    print(f"{store}: {name} is forgotten, with {gone:,} indicators")


@intel_app.command("import")
def import_command(
    feed: Annotated[
        Path, typer.Argument(help="A signed feed: STIX 2.1, or our own format, in a DSSE envelope.")
    ],
    partner: Name,
    keys: Ring,
    store: Store,
    tlp: Annotated[
        str | None,
        typer.Option("--tlp", help="Label of indicators that carry none; without it they are refused."),
    ] = None,
    at: At = None,
    log: LogFile = None,
    log_key: LogKey = None,
    as_json: AsJson = False,
) -> None:
    """Take a partner's feed into the store. What is not taken is listed with its reason."""
    ready(log, log_key)
    taken = take_feed(
        IntelStore(store),
        partner,
        read_bytes(feed),
        KeyRing.read(keys),
        at=_now(at),
        tlp=None if tlp is None else _tlp(tlp),
        name=feed.name,
    )
    commit(log, log_key, lambda: [taken.event], f"the feed is in {store}")
    if as_json:
        print(json.dumps(_plain(taken)))
        return
    print(
        f"{store}: {taken.new:,} new, {taken.changed:,} changed, {taken.same:,} as they were; "
        f"{taken.revoked:,} of them take an indicator back"
    )
    if taken.unused:
        print(f"{taken.unused:,} objects of other types are for people and other programs")
    if taken.refused:
        print(f"{len(taken.refused):,} refused:")
        for refused in taken.refused[:MOST_SHOWN]:
            print(f"  {refused.what}: {refused.why}")
        if len(taken.refused) > MOST_SHOWN:
            print(f"  and {len(taken.refused) - MOST_SHOWN:,} more; --json lists all")


def _plain(taken: Taken) -> dict[str, object]:
    def one(refused: Refused) -> dict[str, str]:
        return {"what": refused.what, "why": refused.why}

    counts = {name: getattr(taken, name) for name in ("new", "changed", "revoked", "same", "unused")}
    return {"feed": taken.feed, "serial": taken.serial, **counts, "refused": [one(r) for r in taken.refused]}


@intel_app.command("list")
def list_command(store: Store, at: At = None, as_json: AsJson = False) -> None:
    """Every indicator: who says it, with what confidence, until when, and whether it counts."""
    rows = [
        {
            "partner": w.kept.partner,
            "indicator": w.kept.indicator.id,
            "state": w.state,
            "tlp": w.kept.indicator.tlp,
            "confidence": w.confidence,
            "until": f"{w.kept.indicator.valid_until:%Y-%m-%d}",
            "hashes": sum(len(f.hashes) for f in w.kept.indicator.fingerprints),
            "disputed_by": w.disputed,
            "set_aside": None if w.kept.aside is None else WHY.get(w.kept.aside, w.kept.aside),
        }
        for w in weighed(IntelStore(store).read(), _now(at))
    ]
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        by = ", ".join(cast(list[str], row["disputed_by"]))
        line = f"{row['partner']}  {row['indicator']}  {row['state']}, TLP:{str(row['tlp']).upper()}, confidence "
        line += f"{row['confidence']}, until {row['until']}, {row['hashes']} hashes"
        print(line + (f"; contradicted by {by}" if by else ""))
        if row["set_aside"]:
            print(f"  set aside by the last scan: it {row['set_aside']}")
    if not rows:
        print("nothing was imported yet")


@intel_app.command("remove")
def remove_command(
    indicator: Annotated[str, typer.Argument(help="Its id, as `intel list` shows it.")],
    partner: Name,
    store: Store,
) -> None:
    """Forget one indicator. A feed that has it again brings it back."""
    IntelStore(store).remove(partner, indicator)
    print(f"{store}: {indicator} of {partner} is forgotten")


@intel_app.command("key")
def key_command(key: Signer) -> None:
    """Print our public key, as partners add it."""
    print(written_key(read_key(key).public))


@intel_app.command("export")
def export_command(
    results: Results,
    partner: Name,
    keys: Ring,
    key: Signer,
    out: Annotated[Path, typer.Option("--out", help="The signed feed.")],
    tlp: Annotated[str, typer.Option("--tlp", help="Who may see it: clear, green, amber, amber+strict.")],
    confidence: Annotated[int, typer.Option("--confidence", min=0, max=100, help="How sure we are.")],
    days: Annotated[int, typer.Option("--days", min=1, max=365, help="How long it is in force.")] = 90,
    campaign: Campaigns = None,
    revoke: Annotated[
        list[str] | None,
        typer.Option("--revoke", help="Take back a campaign that was shared; may be repeated."),
    ] = None,
    at: At = None,
    log: LogFile = None,
    log_key: LogKey = None,
) -> None:
    """Write fingerprints of confirmed campaigns for one partner, signed. No prompt, no account, no address."""
    ready(log, log_key)
    label = _tlp(tlp)
    if label == "red":
        raise UsageError(
            "TLP:RED is for persons, not for feeds", hint="amber+strict is the narrowest that is read"
        )
    ring, now = KeyRing.read(keys), _now(at).replace(microsecond=0)
    names, ids = ring.names("fingerprint", partner), ring.names("share", partner)
    public = read_lookups().public_postings
    found, without = [], []

    def add(name: str, prints: list[FamilyFingerprint], revoked: bool) -> None:
        found.append(
            Indicator(
                id=ids.of("campaign", name),
                modified=now,
                valid_from=now,
                valid_until=now + timedelta(days=days),
                tlp=label,
                confidence=confidence,
                revoked=revoked,
                fingerprints=prints,
            )
        )

    for name in _campaigns(results, campaign) if campaign or not revoke else []:
        prints = fingerprints_of(results, name, names, public)
        if prints:
            add(name, prints, False)
        else:
            without.append(name)
    for name in revoke or []:
        add(name, [], True)
    feed = Feed(serial=int(now.timestamp() * 1e6), created=now, indicators=found)
    data = seal(_encoded(feed), FEED_TYPE, read_key(key))
    write_whole(out, [data], "the feed")
    print(
        f"{out}: {len(found) - len(revoke or []):,} campaigns, {len(revoke or []):,} taken back, for {partner}"
    )
    for name in without:
        print(f"{name} has too little wording of its own that 5 accounts of 2 entities hold: it is left out")
    commit(
        log, log_key, lambda: [_exported(data, ring.partner(partner), len(found))], f"the feed is in {out}"
    )


def _encoded(feed: Feed) -> bytes:
    return msgspec.json.encode(feed, order="sorted")


def _exported(data: bytes, pseudonym: str, count: int) -> tuple[str, dict[str, Json]]:
    return "intel", {
        "did": "export",
        "partner": pseudonym,
        "feed_sha256": hashlib.sha256(data).hexdigest(),
        "indicators": count,
    }


def _campaigns(results: Path, wanted: list[str] | None) -> list[str]:
    if wanted:
        return list(dict.fromkeys(wanted))
    found = [g.id for g in read_findings(results).groups if g.verdict == "campaign"]
    if not found:
        raise UsageError("the results name no campaign: only what is confirmed is shared")
    return found


@intel_app.command("sign")
def sign_command(
    bundle: Annotated[Path, typer.Argument(help="A STIX 2.1 bundle, or a plain feed of ours.")],
    key: Signer,
    out: Annotated[Path, typer.Option("--out", help="The signed feed.")],
) -> None:
    """Put a STIX bundle into a signed envelope, as partners import it."""
    data = read_bytes(bundle)
    try:
        plain = json.loads(data)
        kind = STIX_TYPE if plain.get("type") == "bundle" else FEED_TYPE if "indicators" in plain else None
    except (ValueError, AttributeError, RecursionError):
        kind = None
    if kind is None:
        raise UsageError(f"{bundle} is no STIX bundle and no feed")
    write_whole(out, [seal(data, kind, read_key(key))], "the feed")
    print(f"{out}: signed by {written_key(read_key(key).public)}")


State = Annotated[Path, typer.Option("--state", help="What opens the response; keep it to yourself.")]


def _wording(results: Path, campaign: list[str] | None, ring: KeyRing, partner: str) -> dict[str, list[str]]:
    names, public = ring.names("fingerprint", partner), read_lookups().public_postings
    found = {c: psi.elements_of(results, c, names, public) for c in _campaigns(results, campaign)}
    return {name: elements for name, elements in found.items() if elements}


@psi_app.command("offer")
def psi_offer(
    results: Results,
    partner: Name,
    keys: Ring,
    key: Signer,
    out: Annotated[Path, typer.Option("--out", help="The request, for the partner.")],
    state: State,
    campaign: Campaigns = None,
    log: LogFile = None,
    log_key: LogKey = None,
) -> None:
    """Ask which of our confirmed campaigns a partner has as well."""
    ready(log, log_key)
    ring = KeyRing.read(keys)
    wording = _wording(results, campaign, ring, partner)
    event = psi.offer(
        wording, partner, ring.names("fingerprint", partner), read_key(key), out, state, ring.partner(partner)
    )
    print(f"{out}: {sum(map(len, wording.values())):,} postings of {len(wording):,} campaigns, for {partner}")
    print(f"{state}: opens the response; it is secret")
    commit(log, log_key, lambda: [event], f"the request is in {out}")


@psi_app.command("answer")
def psi_answer(
    request: Annotated[Path, typer.Argument(help="The partner's request.")],
    results: Results,
    partner: Name,
    keys: Ring,
    key: Signer,
    store: Store,
    out: Annotated[Path, typer.Option("--out", help="The response, for the partner.")],
    campaign: Campaigns = None,
    at: At = None,
    log: LogFile = None,
    log_key: LogKey = None,
) -> None:
    """Answer from our confirmed campaigns; the partner learns which of its own postings are in them."""
    ready(log, log_key)
    ring = KeyRing.read(keys)
    mine = sorted({e for elements in _wording(results, campaign, ring, partner).values() for e in elements})
    names = ring.names("fingerprint", partner)
    event = psi.answer(
        request,
        mine,
        partner,
        [names],
        read_key(key),
        out,
        IntelStore(store),
        _now(at),
        ring.partner(partner),
    )
    print(f"{out}: answered from {len(mine):,} postings, for {partner}")
    commit(log, log_key, lambda: [event], f"the response is in {out}")


@psi_app.command("open")
def psi_open(
    response: Annotated[Path, typer.Argument(help="The partner's response.")],
    state: State,
    store: Store,
    log: LogFile = None,
    log_key: LogKey = None,
    as_json: AsJson = False,
) -> None:
    """What the partner has as well, campaign by campaign."""
    ready(log, log_key)
    found, event = psi.opened(response, state, IntelStore(store))
    commit(log, log_key, lambda: [event], "the response was opened")
    if as_json:
        print(
            json.dumps(
                [
                    {"campaign": o.campaign, "asked": o.asked, "common": o.common, "matches": o.matches}
                    for o in found
                ]
            )
        )
        return
    for overlap in found:
        told = "the partner has this wording in a campaign, too" if overlap.matches else "not the partner's"
        print(f"{overlap.campaign}: {overlap.common:,} of {overlap.asked:,} postings: {told}")
