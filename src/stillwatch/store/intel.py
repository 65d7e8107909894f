"""What partners said, on disk: who they are, which of their indicators are kept, and what each side has asked.

One JSON file (mode 0600), replaced in one step; several processes may use it. Nothing in it says anything about an
account here.
"""

from __future__ import annotations

import contextlib
import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from stillwatch.schema.errors import InputError, OutputError, UsageError, Where
from stillwatch.schema.intel import Indicator
from stillwatch.store.files import alone, sync_folder, write_whole

VERSION = 1
MOST_BYTES = 256 << 20
MOST_KEPT = 5_000
"""Indicators of one partner."""
LEAST_CONFIDENCE = 50
"""Below it an indicator is shown and not compared: who shares it does not think it more likely than not."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HINT = "restore it from a copy; never edit it"


class Partner(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Somebody whose feeds are taken."""

    name: str
    keys: list[str]
    """`ed25519:` and a public key in base64: who may sign feeds."""
    added: datetime
    serial: int = -1
    """Of the newest plain feed that was taken: what is not newer is a replay."""
    bundles: list[str] = []
    """SHA-256 of the STIX bundles that were taken, hex, the newest last."""
    asked: dict[str, int] = {}
    """Day (UTC) -> postings that were answered in private set intersections."""


class Kept(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One indicator as it was taken, and where it came from."""

    partner: str
    indicator: Indicator
    feed: str
    """SHA-256 of the signed feed, hex."""
    signer: str
    """Key that signed it."""
    taken: datetime
    aside: str | None = None
    """Why the last scan that compared it set it aside (`scan.partner.WHY`)."""


class Holding(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The content of the file."""

    version: int = VERSION
    partners: list[Partner] = []
    kept: list[Kept] = []

    def partner(self, name: str) -> Partner:
        """UsageError if there is none of that name."""
        found = next((p for p in self.partners if p.name == name), None)
        if found is None:
            raise UsageError(
                f"{name!a} is no partner of this store", hint="stillwatch intel partner add NAME --key KEY"
            )
        return found

    def of(self, name: str) -> list[Kept]:
        """What one partner said."""
        return [k for k in self.kept if k.partner == name]


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """A kept indicator with what it weighs beside what other partners say of the same one."""

    kept: Kept
    confidence: int
    """The lowest that any partner gives it."""
    disputed: list[str]
    """Partners that revoked the indicator, or give it less confidence."""
    state: str
    """`valid`, `revoked`, `expired`, `disputed` (another partner revoked it), `unsure`."""
    usable: bool
    """Whether a scan may compare it while it is in force."""


def weighed(holding: Holding, at: datetime) -> list[Weighed]:
    """Every kept indicator at a time. Where partners contradict each other, the lower weight counts for both."""
    said: dict[str, list[Kept]] = {}
    for kept in holding.kept:
        said.setdefault(kept.indicator.id, []).append(kept)
    out = []
    for kept in sorted(holding.kept, key=lambda k: (k.partner, k.indicator.id)):
        mine = kept.indicator
        others = [k for k in said[mine.id] if k.partner != kept.partner]
        confidence = min([mine.confidence, *(k.indicator.confidence for k in others)])
        disputed = [
            k.partner for k in others if k.indicator.revoked or k.indicator.confidence < mine.confidence
        ]
        withdrawn = any(k.indicator.revoked for k in others)
        usable = not mine.revoked and not withdrawn and confidence >= LEAST_CONFIDENCE
        if mine.revoked:
            state = "revoked"
        elif at >= mine.valid_until:
            state = "expired"
        else:
            state = "valid" if usable else "disputed" if withdrawn else "unsure"
        out.append(
            Weighed(kept=kept, confidence=confidence, disputed=sorted(disputed), state=state, usable=usable)
        )
    return out


class IntelStore:
    """The file, read whole at each use."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Holding:
        """What is kept; InputError where there is no such file, or it is damaged."""
        return _read(self.path)

    @contextlib.contextmanager
    def change(self, *, create: bool = False) -> Iterator[Holding]:
        """What is kept, to be changed: written when the block ends without an error, by one process at a time."""
        with alone(self.path, "the store"):
            fresh = create and not self.path.exists()
            holding = Holding() if fresh else _read(self.path)
            before = b"" if fresh else msgspec.json.encode(holding)
            yield holding
            data = msgspec.json.encode(holding)
            if len(data) > MOST_BYTES:
                raise OutputError(
                    "the store would be too large",
                    where=Where(str(self.path)),
                    hint="remove what has expired",
                )
            if data != before:
                write_whole(self.path, [msgspec.json.format(data, indent=1), b"\n"], "the store")
                sync_folder(self.path.parent)

    def add_partner(self, name: str, key: str, at: datetime) -> None:
        """Take a partner's key, and the partner if there is none of that name. UsageError for what is no key."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!a} cannot name a partner", hint="letters, digits and . _ - only, at most 64"
            )
        public_key(key)
        with self.change(create=True) as holding:
            owner = next((p.name for p in holding.partners if key in p.keys), None)
            if owner is not None:
                raise UsageError(f"{owner} has this key already: each partner needs a key of its own")
            found = next((p for p in holding.partners if p.name == name), None)
            if found is None:
                holding.partners.append(Partner(name=name, keys=[key], added=at))
            else:
                found.keys.append(key)

    def drop_partner(self, name: str) -> int:
        """Forget a partner and what it said; how many indicators went."""
        with self.change() as holding:
            holding.partner(name)
            gone = len(holding.of(name))
            holding.partners = [p for p in holding.partners if p.name != name]
            holding.kept = [k for k in holding.kept if k.partner != name]
            return gone

    def remove(self, partner: str, indicator: str) -> None:
        """Forget one indicator; a feed that has it again brings it back. UsageError if it is not there."""
        with self.change() as holding:
            left = [k for k in holding.kept if (k.partner, k.indicator.id) != (partner, indicator)]
            if len(left) == len(holding.kept):
                raise UsageError(
                    f"the store has no such indicator of {partner}", hint="stillwatch intel list"
                )
            holding.kept = left

    def note_aside(self, compared: Sequence[tuple[str, str]], aside: Sequence[tuple[str, str, str]]) -> None:
        """What a scan set aside, as (partner, indicator, why), of those that it `compared`."""
        why = {(partner, indicator): reason for partner, indicator, reason in aside}
        asked = set(compared)
        with self.change() as holding:
            for kept in holding.kept:
                name = kept.partner, kept.indicator.id
                if name in asked:
                    kept.aside = why.get(name)


def public_key(text: str) -> bytes:
    """The 32 bytes of `ed25519:BASE64`. UsageError where it is no such key."""
    kind, _, encoded = text.partition(":")
    try:
        raw = b64decode(encoded, validate=True)
    except ValueError:
        raw = b""
    if kind != "ed25519" or len(raw) != 32:
        raise UsageError("this is no public key", hint="it is written ed25519: and 32 bytes in base64")
    return raw


def utc(when: datetime) -> datetime:
    """A time in UTC; without a zone it is UTC."""
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _read(path: Path) -> Holding:
    try:
        with path.open("rb") as handle:
            data = handle.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(
            "there is no store of partners' indicators",
            where=Where(str(path)),
            hint="stillwatch intel partner add NAME --key KEY --store FILE",
        ) from error
    except OSError as error:
        raise InputError(f"the store cannot be read: {error.strerror}", where=Where(path.name)) from error
    try:
        if len(data) > MOST_BYTES:
            raise ValueError
        found = msgspec.json.decode(data, type=Holding)
        names = [p.name for p in found.partners]
        kept = [(k.partner, k.indicator.id) for k in found.kept]
        if (
            len(set(names)) != len(names)
            or len(set(kept)) != len(kept)
            or not {p for p, _ in kept} <= set(names)
        ):
            raise ValueError
        for partner in found.partners:
            for key in partner.keys:
                public_key(key)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, UsageError, ValueError) as error:
        raise InputError(
            "this is no store of partners' indicators, or it is damaged", where=Where(path.name), hint=_HINT
        ) from error
    if found.version != VERSION:
        raise InputError(
            f"the store has version {found.version}, this program reads {VERSION}", where=Where(path.name)
        )
    return found
