"""Time stamps by an authority (RFC 3161) on checkpoints: when a tree was there, said by somebody else's clock.

Only the SHA-256 of the checkpoint is sent. The answer is kept beside it as it came, so that other tools check it:
`openssl ts -verify -data FILE -in FILE.tsr -CAfile ROOT`.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import IO, Any

from stillwatch.schema.errors import InputError, JournalError, MissingExtraError, UsageError, Where

MOST_BYTES = 64 << 10
"""Of an answer; with certificates it has about 6 KiB."""
WAIT_S = 30.0
KIND = "application/timestamp-reply"
SHA256 = "2.16.840.1.101.3.4.2.1"
"""The algorithm's OID."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """The authority that was named answers, or none does."""


def _library() -> Any:
    try:
        import rfc3161_client
    except ImportError as error:
        raise MissingExtraError(
            "rfc3161-client", "timestamp", needed_for="a time stamp by an authority"
        ) from error
    return rfc3161_client


def ask(url: str, note: bytes) -> tuple[bytes, datetime]:
    """The authority's answer for a checkpoint, and the time that it says; who signed it, `stamped` checks.

    UsageError for a URL that is none, InputError where the answer is no time stamp of this checkpoint and request.
    """
    library = _library()
    if not url.startswith(("http://", "https://")):
        raise UsageError("the URL of a time-stamping authority begins with https:// or http://")
    request = library.TimestampRequestBuilder().data(note).nonce(nonce=True).cert_request(cert_request=True)
    wanted = request.hash_algorithm(library.HashAlgorithm.SHA256).build()
    answer = _send(url, wanted.as_bytes())
    found = _read(answer, Where(url))
    _compare(found, note, Where(url))
    if found.nonce != wanted.nonce:
        raise InputError("the time stamp answers another request than this one", where=Where(url))
    return answer, found.at


def _send(url: str, data: bytes) -> bytes:
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler())
    asked = urllib.request.Request(url, data, {"Content-Type": "application/timestamp-query"})
    where = Where(url)
    try:
        with opener.open(asked, timeout=WAIT_S) as answer:
            kind = answer.headers.get_content_type()
            body: bytes = answer.read(MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise InputError(f"the authority answered with HTTP status {error.code}", where=where) from error
    except (OSError, ValueError) as error:
        # URLError is one; http.client's own errors are ValueErrors or OSErrors, too, but for those below.
        raise InputError("the authority cannot be reached", where=where, hint="try again later") from error
    except Exception as error:
        raise InputError("the authority's answer is no HTTP", where=where) from error
    if len(body) > MOST_BYTES:
        raise InputError(f"the authority's answer has more than {MOST_BYTES >> 10} KiB", where=where)
    if kind != KIND:
        raise InputError(f"the authority answered with {kind!a}, which is no time stamp", where=where)
    return body


@dataclass(frozen=True, slots=True)
class _Answer:
    """What an answer says; not yet verified."""

    whole: Any
    """As the library has it, which reads its parts when they are asked for."""
    digest: bytes | None
    """SHA-256 of what was stamped; None if another algorithm was used."""
    nonce: int | None
    at: datetime


def _read(answer: bytes, where: Where) -> _Answer:
    library = _library()
    try:
        found = library.decode_timestamp_response(answer)
        if library.PKIStatus(found.status) != library.PKIStatus.GRANTED:
            raise InputError(
                "the authority did not grant a time stamp", where=where, hint="ask again, or another one"
            )
        said = found.tst_info
        imprint = said.message_imprint
        digest = imprint.message if imprint.hash_algorithm.dotted_string == SHA256 else None
        return _Answer(found, digest, said.nonce, said.gen_time.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise InputError("this is no time stamp (RFC 3161)", where=where) from error


def _compare(found: _Answer, note: bytes, where: Where) -> None:
    if found.digest != hashlib.sha256(note).digest():
        raise InputError("the time stamp is one of something else than this checkpoint", where=where)


def stamped(path: Path, note: bytes, root: Path, policy: str | None = None) -> datetime:
    """When the authority behind the certificate(s) in `root` (PEM) stamped the checkpoint: UTC.

    Checked without a network: signature, certificates up to `root` at that time, purpose, digest, and `policy` (an
    OID) if given. JournalError where one does not hold; InputError where a file cannot be read.
    """
    library = _library()
    from cryptography import x509
    from rfc3161_client.errors import VerificationError

    where = Where(path.name)
    found = _read(_bytes(path, "the time stamp"), where)
    _compare(found, note, where)
    try:
        roots = x509.load_pem_x509_certificates(_bytes(root, "the authority's certificate"))
    except ValueError as error:
        raise InputError("this is no certificate (PEM)", where=Where(root.name)) from error
    builder = library.VerifierBuilder()
    for certificate in dict.fromkeys(roots):
        builder = builder.add_root_certificate(certificate)
    if policy is not None:
        try:
            builder = builder.policy_id(x509.ObjectIdentifier(policy))
        except ValueError as error:
            raise UsageError(f"{policy!a} is no OID of a policy", hint="for example 1.2.3.4.1") from error
    try:
        builder.build().verify_message(found.whole, note)
    except (VerificationError, ValueError, AssertionError) as error:
        raise JournalError(
            f"the time stamp does not hold: {error}",
            where=where,
            hint="it was changed, or another authority than the one that was named made it",
        ) from error
    return found.at


def _bytes(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{what} cannot be read: {error.strerror}", where=Where(path.name)) from error
    if len(data) > MOST_BYTES:
        raise InputError(f"{what} has more than {MOST_BYTES >> 10} KiB", where=Where(path.name))
    return data
