"""What is signed: an in-toto statement in a DSSE envelope (both in version 1), with ed25519.

The envelope is a dozen lines; the tests read it with `securesystemslib` and `in-toto-attestation`.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from stillwatch.evidence.bundle.verify import FREE, PREDICATE
from stillwatch.evidence.keys import Key

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


def signer_name(key: Key) -> str:
    """How a key is written: as policies and decisions write it."""
    return "ed25519:" + b64encode(key.public).decode()


def statement(files: Mapping[str, bytes], predicate: Mapping[str, Any]) -> bytes:
    """Every file but those that the statement does not list, by SHA-256; and what is said of them."""
    plain = {
        "_type": STATEMENT_TYPE,
        "predicateType": PREDICATE,
        "subject": [
            {"name": name, "digest": {"sha256": hashlib.sha256(files[name]).hexdigest()}}
            for name in sorted(files)
            if name not in FREE
        ],
        "predicate": predicate,
    }
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def envelope(payload: bytes, key: Key) -> bytes:
    """The signed envelope, as JSON."""
    message = b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
    plain = {
        "payload": b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": signer_name(key), "sig": b64encode(key.sign(message)).decode()}],
    }
    return (json.dumps(plain, indent=1, sort_keys=True) + "\n").encode()
