"""Decisions to act on a campaign: proposed, approved, revoked, expired. Rows are only added, and chained by hash.

A file of JSON lines. Each row holds the SHA-256 of the row before it, so that a row cannot be changed, dropped or put
in without every later one changing too. Cutting off the end cannot be seen in the file alone: whoever keeps the last
`head` (a snapshot does) asks `read_decisions` to find it again.

Proposals and approvals are ed25519 signatures (RFC 8032) over the decision's digest and what is done with it.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from stillwatch.schema.errors import DecisionError, InputError, MissingExtraError, Where
from stillwatch.store.chain import has, head_of, read_chain
from stillwatch.store.files import alone, write_whole

_canonical = msgspec.json.Encoder(order="sorted").encode
Did = Literal["propose", "approve", "revoke", "expire"]


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is decided."""

    campaign: str
    action: str
    """The strongest action that may be taken."""
    policy: str
    """SHA-256 of the policy file under which it is taken: another policy needs another decision."""
    expires: datetime
    mapped: bool = False
    """Whether the pool is known well enough to act on all of it at once."""
    reason: str = ""
    """Why, in words, without names."""
    at: datetime
    """When it was proposed."""

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex: what is signed."""
        return hashlib.sha256(_canonical(self)).hexdigest()


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the file."""

    number: int
    before: str
    """Hash of the row before; zeros for the first."""
    did: Did
    at: datetime
    digest: str
    """Of the order."""
    order: Order | None = None
    """In the row that proposes it."""
    key: str | None = None
    """`ed25519:` and the public key, base64; None for `expire`."""
    signature: str | None = None
    hash: str = ""

    @property
    def own_hash(self) -> str:
        """SHA-256 of the canonical JSON of everything but the hash itself, hex."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        del plain["hash"]
        return hashlib.sha256(_canonical(plain)).hexdigest()


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that stands: neither revoked nor expired. Whether it is rightly signed, `signed` tells."""

    order: Order
    proposer: str
    proposed: str
    """Signature, base64."""
    approvals: tuple[tuple[str, str], ...] = ()
    """(key, signature) of each approval."""


class Signer:
    """A private ed25519 key. Needs the extra `guard`."""

    def __init__(self, private: Any) -> None:
        self._private = private

    @property
    def key(self) -> str:
        """The public key as policies list it."""
        return "ed25519:" + b64encode(self._private.public_key().public_bytes_raw()).decode()

    def sign(self, did: str, digest: str) -> str:
        """Signature over what is done with a decision (`Did`; `store.appeals` has words of its own), base64."""
        return b64encode(self._private.sign(_message(did, digest))).decode()


def _message(did: str, digest: str) -> bytes:
    return f"stillwatch decision 1\n{did}\n{digest}".encode()


def ed25519_module(extra: str = "guard", needed_for: str = "signing and checking decisions") -> Any:
    """The library's module for ed25519. MissingExtraError where it is not installed."""
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtraError("cryptography", extra, needed_for=needed_for) from error
    return ed25519


def read_signer(path: Path) -> Signer:
    """A private key from a PEM file (PKCS #8, without a passphrase). InputError where it is none."""
    return Signer(
        read_private(
            path, ed25519_module(), missing="`openssl genpkey -algorithm ed25519 -out FILE` makes one"
        )
    )


def read_private(path: Path, ed25519: Any, *, missing: str | None = None) -> Any:
    """The private ed25519 key itself, for `ed25519_module`. InputError as `read_signer`.

    `missing` is what to do where there is no file; a log's key cannot be replaced by a new one.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise InputError(
            f"the key cannot be read: {error.strerror}",
            where=Where(path.name),
            hint=missing,
        ) from error
    except (ValueError, TypeError) as error:
        raise InputError("this is no PEM private key without a passphrase", where=Where(path.name)) from error
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise InputError(
            "the key is not ed25519",
            where=Where(path.name),
            hint="openssl genpkey -algorithm ed25519 -out key.pem",
        )
    return private


def signed(did: str, digest: str, key: str, signature: str) -> bool:
    """Whether `signature` is `key`'s over `did` and `digest`. MissingExtraError without the extra `guard`."""
    ed25519 = ed25519_module()
    from cryptography.exceptions import InvalidSignature

    kind, _, text = key.partition(":")
    try:
        public = ed25519.Ed25519PublicKey.from_public_bytes(b64decode(text, validate=True))
        public.verify(b64decode(signature, validate=True), _message(did, digest))
    except (InvalidSignature, ValueError):
        return False
    return kind == "ed25519"


def read_decisions(path: Path, head: str | None = None) -> list[Row]:
    """All rows, the chain checked. DecisionError names the line at which the file was altered.

    `head`: hash of a row that must be there, as somebody noted it; a file that was cut off lacks it.
    """
    rows = read_chain(path, Row, "decisions", lambda row: row.hash == row.own_hash)
    for row in rows:
        if (row.order is not None) != (row.did == "propose") or (
            row.order and row.order.digest != row.digest
        ):
            raise DecisionError(
                "the row does not hold the decision that it names",
                where=Where(path.name, line=row.number + 1),
            )
    if not has(rows, head):
        raise DecisionError(
            "decisions that were there are missing: the file was cut off or is another one",
            where=Where(path.name),
            hint="restore the file from a copy",
        )
    return rows


def standing(rows: Sequence[Row], at: datetime) -> list[Standing]:
    """The decisions that stand at `at`, in the order in which they were proposed."""
    found: dict[str, Standing] = {}
    for row in rows:
        if row.did == "propose" and row.order is not None and row.digest not in found:
            found[row.digest] = Standing(
                order=row.order, proposer=row.key or "", proposed=row.signature or ""
            )
        elif row.did == "approve" and row.digest in found:
            now = found[row.digest]
            pair = (row.key or "", row.signature or "")
            found[row.digest] = msgspec.structs.replace(now, approvals=(*now.approvals, pair))
        elif row.did in ("revoke", "expire"):
            found.pop(row.digest, None)
    return [decision for decision in found.values() if decision.order.expires > at]


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """From when to when a decision was in force."""

    campaign: str
    action: str
    begin: datetime
    end: datetime


def spans(rows: Sequence[Row], alone: Collection[str]) -> list[Span]:
    """When each decision was in force: from its proposal where one person may order the action (`alone`), else from
    its first approval, until it ran out or was revoked. Decisions that nobody approved in time were never in force.
    """
    orders = {row.digest: row.order for row in rows if row.order is not None}
    begin: dict[str, datetime] = {}
    end = {digest: order.expires for digest, order in orders.items()}
    for row in rows:
        order = orders.get(row.digest)
        if order is None or row.at > end[row.digest]:
            continue
        if row.did == "approve" or (row.did == "propose" and order.action in alone):
            begin.setdefault(row.digest, row.at)
        elif row.did == "revoke":
            end[row.digest] = row.at
    return [
        Span(campaign=order.campaign, action=order.action, begin=begin[digest], end=end[digest])
        for digest, order in orders.items()
        if digest in begin and begin[digest] < end[digest]
    ]


def propose(path: Path, order: Order, signer: Signer) -> Row:
    """Add a proposal."""
    if order.expires.tzinfo is None or order.at.tzinfo is None:
        raise DecisionError("the times of a decision need a time zone")
    if order.expires <= order.at:
        raise DecisionError("the decision would end before it begins", hint="give it a later expiry")
    return _append(path, "propose", order.at, order.digest, signer, order)


def approve(path: Path, digest: str, signer: Signer, at: datetime) -> Row:
    """Add an approval of a decision that stands, by another key than the proposer's."""
    return _append(path, "approve", at, digest, signer)


def revoke(path: Path, digest: str, signer: Signer, at: datetime) -> Row:
    """Take a standing decision back. One person is enough for that."""
    return _append(path, "revoke", at, digest, signer)


def expire(path: Path, at: datetime) -> list[Row]:
    """Note the end of every decision that ran out by `at`."""
    rows = read_decisions(path)
    ended = [
        d.order.digest for d in standing(rows, datetime.min.replace(tzinfo=UTC)) if d.order.expires <= at
    ]
    return [_append(path, "expire", at, digest, None) for digest in ended]


def _append(
    path: Path, did: Did, at: datetime, digest: str, signer: Signer | None, order: Order | None = None
) -> Row:
    with alone(path, "the decisions"):
        rows = read_decisions(path)
        # What ran out may still be noted as expired; nothing else happens to it.
        now = datetime.min.replace(tzinfo=UTC) if did == "expire" else at
        there = {decision.order.digest: decision for decision in standing(rows, now)}
        if did == "propose" and digest in {row.digest for row in rows}:
            raise DecisionError("the same decision was proposed before", where=Where(path.name))
        if did != "propose" and digest not in there:
            raise DecisionError(
                "no such decision stands: it was never proposed, or is revoked or expired",
                where=Where(path.name),
            )
        if did == "approve" and signer is not None:
            already = {there[digest].proposer, *(key for key, _ in there[digest].approvals)}
            if signer.key in already:
                raise DecisionError(
                    "this key has proposed or approved the decision already",
                    where=Where(path.name),
                    hint="somebody else has to approve it, with a key of their own",
                )
        row = Row(
            number=len(rows),
            before=head_of(rows),
            did=did,
            at=at,
            digest=digest,
            order=order,
            key=None if signer is None else signer.key,
            signature=None if signer is None else signer.sign(did, digest),
        )
        row = msgspec.structs.replace(row, hash=row.own_hash)
        lines = [msgspec.json.encode(r) + b"\n" for r in (*rows, row)]
        write_whole(path, lines, "the decisions")
        return row
