"""Private set intersection of confirmed campaigns' wording with a partner, by files: request, response, result.

Elliptic-curve Diffie-Hellman PSI (OpenMined, openmined-psi): the asking side learns which of its own postings the
other side has as well, the other side learns how many were asked about, both in steps of `STEP`. It holds against
partners that follow the protocol and are curious; whoever asks chooses what to ask about, and so may probe for
wording that it guesses (a membership oracle). Hence only confirmed campaigns' postings are asked about and answered
from, hashed under the agreed key; files are signed; the number of postings answered in a day is limited; and each
step is an event for the transparency log.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from stillwatch.evidence.intel.envelope import seal, unseal
from stillwatch.evidence.intel.fingerprints import confirmed_wording, shareable, template_of
from stillwatch.evidence.intel.importing import read_bytes
from stillwatch.evidence.keys import Key
from stillwatch.schema.errors import (
    FormatError,
    MissingExtraError,
    OutputError,
    UsageError,
    Where,
    unwritable,
)
from stillwatch.schema.intel import LEAST_HITS, LEAST_SHARE
from stillwatch.schema.journal import Json
from stillwatch.sketch.keyed import U64
from stillwatch.store.events import Event
from stillwatch.store.intel import IntelStore
from stillwatch.store.pseudonyms import Pseudonyms

STEP = 256
"""Both sides are filled up with made-up elements to a multiple of it."""
MOST_ASKED = 2_048
"""Elements of one request."""
DAILY = 4_096
"""Elements that are answered for one partner in one day (UTC)."""
MOST_BYTES = 8 << 20
FALSE_MATCH = 1e-9
"""Chance that any made-up element matches."""
REQUEST, RESPONSE, STATE = "stillwatch-psi-request", "stillwatch-psi-response", "stillwatch-psi-state"
TYPE = "application/vnd.stillwatch.psi+json"


class _Message(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A request or a response."""

    format: str
    version: int = 1
    key_id: str
    """Of the `fingerprint` key under which postings were hashed."""
    nonce: str
    """Of the request; its response has the same."""
    elements: int
    body: str
    """Base64 of the library's message."""
    setup: str = ""
    """Base64 of the library's message about the answering side's set; in responses."""


class _State(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the asking side must keep to open the response; secret."""

    format: str
    partner: str
    key_id: str
    nonce: str
    private: str
    campaigns: dict[str, int]
    """Campaign -> its number of elements, which come first and in this order; then made-up ones."""
    elements: list[str]


@dataclass(frozen=True, slots=True)
class Overlap:
    """What is known of one campaign after opening."""

    campaign: str
    asked: int
    common: int

    @property
    def matches(self) -> bool:
        """Whether the partner has this wording in a confirmed campaign, too."""
        return self.common >= max(LEAST_HITS, LEAST_SHARE * self.asked)


def _library() -> Any:
    try:
        import private_set_intersection.python as psi
    except ImportError as error:
        raise MissingExtraError("openmined-psi", "psi", needed_for="private set intersection") from error
    return psi


def elements_of(folder: Path, campaign: str, names: Pseudonyms, public: U64) -> list[str]:
    """Keyed hashes, 128 bits in hex, of a confirmed campaign's wording; sorted. UsageError as `fingerprints_of`."""
    own, entity = confirmed_wording(folder, campaign)
    found: set[str] = set()
    for part in ("prompt", "system"):
        posting, _ = template_of(shareable([w for w in own if w.part == part], entity), public)
        found |= {names.digest("posting", value.tobytes())[:16].hex() for value in posting.astype("<u8")}
    return sorted(found)


def offer(
    wording: dict[str, list[str]],
    partner: str,
    names: Pseudonyms,
    key: Key,
    request: Path,
    state: Path,
    pseudonym: str | None = None,
) -> Event:
    """Write a request about `wording` (campaign -> elements), signed, and what is needed to open the response.

    `pseudonym`: the partner's in the transparency log, which is not told of one without.
    """
    psi = _library()
    elements = [e for name in sorted(wording) for e in wording[name]]
    if not elements or len(elements) > MOST_ASKED:
        raise UsageError(
            f"there are {len(elements):,} postings to ask about; 1 to {MOST_ASKED:,} can be asked about at once",
            hint="name fewer campaigns",
        )
    elements += _made_up(-len(elements) % STEP)
    client = psi.client.CreateWithNewKey(True)
    nonce = secrets.token_hex(16)
    kept = _State(
        format=STATE,
        partner=partner,
        key_id=names.key_id,
        nonce=nonce,
        private=b64encode(client.GetPrivateKeyBytes()).decode(),
        campaigns={name: len(wording[name]) for name in sorted(wording)},
        elements=elements,
    )
    _write_new(state, msgspec.json.encode(kept), "what opens the response")
    body = client.CreateRequest(elements).SerializeToString()
    message = _Message(
        format=REQUEST,
        key_id=names.key_id,
        nonce=nonce,
        elements=len(elements),
        body=b64encode(body).decode(),
    )
    _write_new(request, seal(msgspec.json.encode(message), TYPE, key), "the request")
    return _event("psi_offer", pseudonym, elements=len(elements), campaigns=len(wording))


def answer(
    request: Path,
    wording: Sequence[str],
    partner: str,
    names: Sequence[Pseudonyms],
    key: Key,
    response: Path,
    store: IntelStore,
    at: datetime,
    pseudonym: str | None = None,
) -> Event:
    """Answer a request from the elements `wording` of own confirmed campaigns.

    The elements asked about are taken from the partner's budget of the day first. FormatError for what is no request
    or not the partner's; UsageError where the budget is used up or the key is not `names`' (those agreed on).
    `pseudonym` as for `offer`.
    """
    psi = _library()
    asked = _message(request, REQUEST, store.read().partner(partner).keys)
    if asked.key_id not in {n.key_id for n in names}:
        raise UsageError(
            "the request was made under a key that is not agreed on with this partner",
            hint="stillwatch keys agree",
        )
    if not 0 < asked.elements <= MOST_ASKED + STEP:
        raise FormatError("the request is empty or too large", where=Where(request.name))
    body = psi.Request()
    _parse(body, asked.body, request)
    if len(body.encrypted_elements) != asked.elements or not body.reveal_intersection:
        raise FormatError("the request contradicts itself", where=Where(request.name))
    if response.exists():
        raise OutputError("there is a file already", where=Where(str(response)), hint="name another file")
    day = at.astimezone(UTC).date().isoformat()
    with store.change() as holding:
        of = holding.partner(partner)
        used = of.asked.get(day, 0)
        if used + asked.elements > DAILY:
            raise UsageError(
                f"{partner} has asked about {used:,} postings today; this request has {asked.elements:,}, and "
                f"{DAILY:,} a day are answered",
                hint="answer it tomorrow, or ask the partner for a smaller one",
            )
        of.asked = {day: used + asked.elements}
    server = psi.server.CreateWithNewKey(True)
    mine = [*wording, *_made_up(-len(wording) % STEP or STEP)]
    order = np.argsort([hashlib.sha256(e.encode()).digest() for e in mine], kind="stable")
    try:
        setup = server.CreateSetupMessage(FALSE_MATCH, asked.elements, [mine[i] for i in order.tolist()])
        made = server.ProcessRequest(body)
    except RuntimeError as error:
        raise FormatError("the request is damaged", where=Where(request.name)) from error
    message = _Message(
        format=RESPONSE,
        key_id=asked.key_id,
        nonce=asked.nonce,
        elements=asked.elements,
        body=b64encode(made.SerializeToString()).decode(),
        setup=b64encode(setup.SerializeToString()).decode(),
    )
    _write_new(response, seal(msgspec.json.encode(message), TYPE, key), "the response")
    return _event("psi_answer", pseudonym, elements=asked.elements, answered_from=len(mine))


def opened(response: Path, state: Path, store: IntelStore) -> tuple[list[Overlap], Event]:
    """What a response says of each campaign that was asked about.

    FormatError where it is not the partner's answer to that request.
    """
    psi = _library()
    kept = _state(state)
    found = _message(response, RESPONSE, store.read().partner(kept.partner).keys)
    if found.nonce != kept.nonce or found.elements != len(kept.elements):
        raise FormatError("this response answers another request", where=Where(response.name))
    body, setup = psi.Response(), psi.ServerSetup()
    _parse(body, found.body, response)
    _parse(setup, found.setup, response)
    try:
        client = psi.client.CreateFromKey(b64decode(kept.private), True)
        common = {int(place) for place in client.GetIntersection(setup, body)}
    except RuntimeError as error:
        raise FormatError("the response is damaged", where=Where(response.name)) from error
    out, first = [], 0
    for name, count in kept.campaigns.items():
        out.append(Overlap(name, count, len(common & set(range(first, first + count)))))
        first += count
    hits = sum(o.matches for o in out)
    return out, _event("psi_open", None, campaigns=len(out), matching=hits)


def _made_up(count: int) -> list[str]:
    return [secrets.token_hex(16) for _ in range(count)]


def _event(did: str, partner: str | None, **counts: int) -> Event:
    told: dict[str, Json] = {"did": did}
    if partner is not None:
        told["partner"] = partner
    # Two exchanges with equal counts are two events.
    return "intel", told | {**counts, "number": secrets.token_hex(8)}


def _message(path: Path, wanted: str, keys: Sequence[str]) -> _Message:
    kind, payload, _ = unseal(read_bytes(path, MOST_BYTES), keys, path.name)
    try:
        found = msgspec.json.decode(payload if kind == TYPE else b"", type=_Message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"this is no {wanted}", where=Where(path.name)) from error
    if found.format != wanted or found.version != 1:
        raise FormatError(f"this is no {wanted} of this version", where=Where(path.name))
    return found


def _state(path: Path) -> _State:
    try:
        found = msgspec.json.decode(read_bytes(path, MOST_BYTES), type=_State)
        b64decode(found.private, validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise FormatError("this is not what `psi offer` kept", where=Where(path.name)) from error
    if found.format != STATE or sum(found.campaigns.values()) > len(found.elements):
        raise FormatError("this is not what `psi offer` kept", where=Where(path.name))
    return found


def _parse(message: Any, encoded: str, path: Path) -> None:
    from google.protobuf.message import DecodeError

    try:
        message.ParseFromString(b64decode(encoded, validate=True))
    except (DecodeError, ValueError) as error:
        raise FormatError("the message inside is damaged", where=Where(path.name)) from error


def _write_new(path: Path, data: bytes, what: str) -> None:
    """Never over a file: a lost state makes a response worthless."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise OutputError(
            "there is a file already", where=Where(str(path)), hint="name another file"
        ) from error
    except OSError as error:
        raise unwritable(error, str(path), what) from error
    with os.fdopen(handle, "wb") as file:
        file.write(data)
