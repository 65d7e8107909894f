"""DSSE envelopes (github.com/secure-systems-lab/dsse, v1): bytes of a stated type, signed with ed25519 (RFC 8032)."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

from stillwatch.evidence.keys import Key, PublicKey
from stillwatch.schema.errors import FormatError, Where
from stillwatch.store.intel import public_key

MOST_BYTES = 32 << 20
MOST_SIGNATURES = 16


def written_key(public: bytes) -> str:
    """A public key as stores and people write it."""
    return f"ed25519:{b64encode(public).decode()}"


def key_name(public: bytes) -> str:
    """`keyid` of a public key: a hint, which proves nothing."""
    return hashlib.sha256(public).hexdigest()[:16]


def signed_bytes(kind: str, payload: bytes) -> bytes:
    """What is signed (PAE)."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def seal(payload: bytes, kind: str, key: Key) -> bytes:
    """The envelope as JSON."""
    signature = key.sign(signed_bytes(kind, payload))
    envelope = {
        "payloadType": kind,
        "payload": b64encode(payload).decode(),
        "signatures": [{"keyid": key_name(key.public), "sig": b64encode(signature).decode()}],
    }
    return json.dumps(envelope, sort_keys=True).encode() + b"\n"


def unseal(data: bytes, keys: Sequence[str], name: str) -> tuple[str, bytes, str]:
    """(type, payload, key that signed) of an envelope that one of `keys` signed. FormatError otherwise.

    Nothing in the payload is looked at before the signature holds. `name` names the file in errors.
    """
    where = Where(name)
    if len(data) > MOST_BYTES:
        raise FormatError(f"the feed has more than {MOST_BYTES >> 20} MiB", where=where)
    try:
        envelope: Any = json.loads(data)
        kind, encoded = envelope["payloadType"], envelope["payload"]
        signatures = [b64decode(s["sig"], validate=True) for s in envelope["signatures"][:MOST_SIGNATURES]]
        whole = type(kind) is str and len(kind) <= 200 and type(encoded) is str
        payload = b64decode(encoded, validate=True) if whole else b""
        message = signed_bytes(kind, payload) if whole else b""
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(
            "this is no signed feed", where=where, hint="a DSSE envelope in JSON is expected"
        ) from error
    if not whole:
        raise FormatError("this is no signed feed", where=where, hint="a DSSE envelope in JSON is expected")
    for key in keys:
        reader = PublicKey(public_key(key))
        if any(len(s) == 64 and reader.signed(message, s) for s in signatures):
            return kind, payload, key
    raise FormatError(
        "the feed is not signed by this partner, or was changed since",
        where=where,
        hint="`stillwatch intel partner list` shows the keys that are known; ask the partner for its own",
    )
