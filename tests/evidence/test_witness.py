"""What others say of a checkpoint: cosignatures of witnesses, time stamps of an authority. Offline, and hostile."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillwatch.cli import main
from stillwatch.evidence import timestamp
from stillwatch.evidence.keys import COSIGNED, key_id, vkey
from stillwatch.evidence.note import LAST_TIME, parse
from stillwatch.evidence.read import checkpoint
from stillwatch.schema import InputError, JournalError, StillwatchError, UsageError
from tests.evidence.conftest import KEY, ORIGIN, OTHER

NAME = "witness.example.com/w1"
POLICY, ANOTHER = "1.2.3.4.1", "1.2.3.4.2"
AT = 1_772_323_200


def cosigned(path: Path, at: int = AT, *, signed: int | None = None) -> str:
    """The newest checkpoint with OTHER's cosignature, made as C2SP tlog-cosignature says."""
    note = checkpoint(path)[1]
    body = note.partition("\n\n")[0] + "\n"
    over = f"cosignature/v1\ntime {at if signed is None else signed}\n{body}".encode()
    line = key_id(NAME, OTHER.public, COSIGNED) + at.to_bytes(8) + OTHER.sign(over)
    return note + f"\u2014 {NAME} {b64encode(line).decode()}\n"


def test_a_cosignature_is_read_with_its_time(made: Path) -> None:
    found = parse(cosigned(made).encode())
    assert found is not None
    assert found.cosigned_by(NAME, OTHER.public) == AT
    assert found.signed_by(ORIGIN, KEY.public)
    # The log's own key is no witness, nor is a witness the log.
    assert found.cosigned_by(ORIGIN, KEY.public) is None
    assert not found.signed_by(NAME, OTHER.public)
    assert found.cosigned_by("other.example.com", OTHER.public) is None
    assert found.cosigned_by(NAME, KEY.public) is None
    twice = parse((cosigned(made) + cosigned(made, AT + 5).splitlines()[-1] + "\n").encode())
    assert twice is not None
    assert twice.cosigned_by(NAME, OTHER.public) == AT


@pytest.mark.parametrize("at", [0, LAST_TIME + 1, (1 << 64) - 1])
def test_times_that_are_none_are_refused(made: Path, at: int) -> None:
    found = parse(cosigned(made, at).encode())
    assert found is not None
    assert found.cosigned_by(NAME, OTHER.public) is None


def test_another_time_or_tree_is_not_what_was_cosigned(made: Path) -> None:
    for text in (
        cosigned(made, AT, signed=AT + 1),
        cosigned(made).replace("\n13\n", "\n12\n"),
        cosigned(made)[:-6] + "AAA=\n",
    ):
        found = parse(text.encode())
        assert found is None or found.cosigned_by(NAME, OTHER.public) is None
    # One that does not hold spoils those that do: nobody may put a time of their own beside.
    found = parse((cosigned(made) + cosigned(made, AT - 9, signed=AT).splitlines()[-1] + "\n").encode())
    assert found is not None
    assert found.cosigned_by(NAME, OTHER.public) is None


def run(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    out = capsys.readouterr()
    return int(stop.value.code or 0), out.out, out.err


def test_verify_asks_for_the_witness_that_was_named(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note, key = tmp_path / "noted.txt", tmp_path / "w1.vkey"
    note.write_text(cosigned(made))
    key.write_text(vkey(NAME, OTHER.public, COSIGNED) + "\n")
    call = ("log", "verify", made, "--checkpoint", note, "--witness-vkey")
    code, said, _ = run(capsys, *call, key)
    assert code == 0
    assert f"{note}: cosigned by {NAME}, 2026-03-01T00:00:00+00:00" in said
    code, _, said = run(capsys, *call, vkey(NAME, KEY.public, COSIGNED))
    assert code == 5
    assert "no cosignature of witness.example.com/w1 on the checkpoint holds" in said
    # The key of a log is none of a witness, and without a checkpoint there is nothing to have cosigned.
    assert run(capsys, *call, vkey(NAME, OTHER.public))[0] == 3
    assert run(capsys, "log", "verify", made, "--witness-vkey", key)[0] == 2


# Time stamps


def _certificate(
    folder: Path,
    name: str,
    issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None,
    days: tuple[int, int],
    purpose: x509.ObjectIdentifier | None,
) -> tuple[x509.Name, ec.EllipticCurvePrivateKey]:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by, signer = issuer or (subject, key)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if purpose is not None:
        built = built.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
    pem = built.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)
    (folder / f"{name}.pem").write_bytes(pem)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / f"{name}.key").write_bytes(secret)
    return subject, key


class Authority(HTTPServer):
    """A time-stamping authority on loopback (`openssl ts`) that can be told to misbehave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        root = _certificate(folder, "root", None, (-900, 900), None)
        _certificate(folder, "stranger", None, (-900, 900), None)
        stamping = ExtendedKeyUsageOID.TIME_STAMPING
        _certificate(folder, "tsa", root, (-1, 30), stamping)
        _certificate(folder, "expired", root, (-800, -400), stamping)
        _certificate(folder, "website", root, (-1, 30), ExtendedKeyUsageOID.SERVER_AUTH)
        self.how: Callable[[bytes], tuple[int, str, bytes]] = self.reply
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}/tsr"

    def reply(self, query: bytes, *, signer: str = "tsa", policy: str = POLICY) -> tuple[int, str, bytes]:
        """What an honest one answers."""
        (self.folder / "query").write_bytes(query)
        (self.folder / "serial").write_text("01\n")
        (self.folder / "ts.cnf").write_text(
            f"[tsa]\nserial = serial\ncrypto_device = builtin\nsigner_digest = sha256\ndefault_policy = {policy}\n"
            "digests = sha256, sha512\nordering = yes\ntsa_name = no\ness_cert_id_chain = no\n"
        )
        command = ["openssl", "ts", "-reply", "-config", "ts.cnf", "-section", "tsa", "-queryfile", "query"]
        command += ["-signer", f"{signer}.pem", "-inkey", f"{signer}.key", "-out", "answer"]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)
        return 200, timestamp.KIND, (self.folder / "answer").read_bytes()


class _Handler(BaseHTTPRequestHandler):
    server: Authority

    def do_POST(self) -> None:
        """Answer as the test wants."""
        query = self.rfile.read(int(self.headers["Content-Length"]))
        code, kind, body = self.server.how(query)
        self.send_response(code)
        self.send_header("Content-Type", kind)
        if code in (301, 307):
            self.send_header("Location", self.server.url + "/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    server = Authority(tmp_path_factory.mktemp("tsa"))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def tsa(running: Authority) -> Authority:
    """An honest one, until the test says otherwise."""
    running.how = running.reply
    return running


def test_a_checkpoint_is_stamped_and_checked_without_a_network(
    made: Path, tmp_path: Path, tsa: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    out, root = tmp_path / "noted.txt", tsa.folder / "root.pem"
    code, said, _ = run(capsys, "log", "witness", made, "--rfc3161", tsa.url, "--out", out)
    assert (code, said.startswith(f"{out}: checkpoint of 13 entries, stamped 20")) == (0, True)
    # Nothing but the digest was sent.
    assert ORIGIN.encode() not in (tsa.folder / "query").read_bytes()
    call = ("log", "verify", made, "--witness", out, "--tsa-root")
    code, said, _ = run(capsys, *call, root, "--tsa-policy", POLICY)
    assert code == 0
    assert f"{out}: the log goes on from its 13 entries" in said
    assert f"{out}: time stamp of {datetime.now(UTC).date()}" in said
    # OpenSSL says so, too.
    checked = ["openssl", "ts", "-verify", "-data", out, "-in", f"{out}.tsr", "-CAfile", root]
    assert b"Verification: OK" in subprocess.run(checked, check=True, capture_output=True).stdout
    code, _, said = run(capsys, *call, tsa.folder / "stranger.pem")
    assert (code, "the time stamp does not hold" in said) == (5, True)
    assert run(capsys, *call, root, "--tsa-policy", ANOTHER)[0] == 5
    assert run(capsys, *call, root, "--tsa-policy", "mine")[0] == 2
    assert run(capsys, *call, made)[0] == 3
    assert run(capsys, "log", "verify", made, "--witness", out)[0] == 2
    assert run(capsys, "log", "verify", made, "--tsa-root", root)[0] == 2
    # The stamp of one checkpoint is none of another.
    stamp, again = out.with_name("noted.txt.tsr"), tmp_path / "again.txt"
    again.write_text(checkpoint(made)[1].rstrip("\n") + "\n" + cosigned(made).splitlines()[-1] + "\n")
    again.with_name("again.txt.tsr").write_bytes(stamp.read_bytes())
    code, _, said = run(capsys, "log", "verify", made, "--witness", again, "--tsa-root", root)
    assert (code, "something else than this checkpoint" in said) == (3, True)


NOTE = b"a\n1\nAAAA\n"


def _swapped(query: bytes, old: bytes, new: bytes) -> bytes:
    assert query.count(old) == 1
    return query.replace(old, new)


def test_an_answer_to_something_else_is_refused(tsa: Authority) -> None:
    digest = hashlib.sha256(NOTE).digest()
    tsa.how = lambda query: tsa.reply(_swapped(query, digest, bytes(32)))
    with pytest.raises(InputError, match="something else"):
        timestamp.ask(tsa.url, NOTE)

    def old_answer(query: bytes) -> tuple[int, str, bytes]:
        # The nonce is the last long integer before the request for a certificate.
        at = query.rindex(digest) + 32
        return tsa.reply(query[: at + 3] + bytes([query[at + 3] ^ 1]) + query[at + 4 :])

    tsa.how = old_answer
    with pytest.raises(InputError, match="another request"):
        timestamp.ask(tsa.url, NOTE)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((200, timestamp.KIND, b""), "no time stamp"),
        ((200, timestamp.KIND, b"\x30\x80" * 3000), "no time stamp"),
        ((200, timestamp.KIND, b"x" * (timestamp.MOST_BYTES + 1)), "more than 64 KiB"),
        ((200, timestamp.KIND, b"x" * (8 << 20)), "more than 64 KiB"),
        ((200, "text/html", b"<html>"), "which is no time stamp"),
        ((200, "text/\x1b[2J", b"<html>"), "which is no time stamp"),
        ((500, timestamp.KIND, b""), "status 500"),
        ((307, timestamp.KIND, b""), "status 307"),
        # PKIStatus 2: rejection.
        ((200, timestamp.KIND, bytes.fromhex("30053003020102")), "did not grant"),
    ],
)
def test_hostile_answers_are_refused(tsa: Authority, answer: tuple[int, str, bytes], told: str) -> None:
    tsa.how = lambda _: answer
    with pytest.raises(InputError, match=told) as caught:
        timestamp.ask(tsa.url, NOTE)
    assert "\x1b" not in str(caught.value)


def test_who_cannot_be_reached_or_is_no_authority_is_told(tsa: Authority) -> None:
    with pytest.raises(InputError, match="cannot be reached"):
        timestamp.ask("http://127.0.0.1:9/", NOTE)
    for url in ("file:///etc/passwd", "ftp://127.0.0.1/", "127.0.0.1", ""):
        with pytest.raises(UsageError, match="begins with"):
            timestamp.ask(url, NOTE)


@pytest.mark.parametrize("signer", ["expired", "website", "stranger"])
def test_certificates_that_could_not_stamp_then_are_found(
    tsa: Authority, tmp_path: Path, signer: str
) -> None:
    query = tmp_path / "query"
    ask = ["openssl", "ts", "-query", "-data", "/dev/stdin", "-sha256", "-cert", "-out", query]
    subprocess.run(ask, input=NOTE, check=True, capture_output=True)
    try:
        answer = tsa.reply(query.read_bytes(), signer=signer)[2]
    except subprocess.CalledProcessError:
        # OpenSSL itself stamps with no certificate of another purpose: put the signer's in the answer's place.
        answer = tsa.reply(query.read_bytes())[2]
        ours, theirs = (
            x509.load_pem_x509_certificate((tsa.folder / f"{name}.pem").read_bytes()).public_bytes(
                Encoding.DER
            )
            for name in ("tsa", signer)
        )
        assert ours in answer
        if len(ours) != len(theirs):
            theirs = ours[:-8] + bytes(8)
        answer = answer.replace(ours, theirs)
    (tmp_path / "stamp").write_bytes(answer)
    with pytest.raises((JournalError, InputError)):
        timestamp.stamped(tmp_path / "stamp", NOTE, tsa.folder / "root.pem")


@pytest.fixture(scope="module")
def stamp(running: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An answer that holds."""
    running.how = running.reply
    path = tmp_path_factory.mktemp("stamp") / "stamp"
    path.write_bytes(timestamp.ask(running.url, NOTE)[0])
    assert timestamp.stamped(path, NOTE, running.folder / "root.pem")
    return path


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 5000), value=st.integers(1, 255), cut=st.booleans())
def test_no_byte_of_a_stamp_is_changed_unseen(
    stamp: Path, running: Authority, tmp_path: Path, at: int, value: int, cut: bool
) -> None:
    data, other = stamp.read_bytes(), tmp_path / "other"
    at %= len(data)
    changed = data[:at] if cut else data[:at] + bytes([data[at] ^ value]) + data[at + 1 :]
    other.write_bytes(changed)
    root = running.folder / "root.pem"
    try:
        when = timestamp.stamped(other, NOTE, root)
    except StillwatchError:
        return
    # Parts that say nothing (a text beside the status) may differ; the time may not.
    assert when == timestamp.stamped(stamp, NOTE, root)


def test_files_that_are_none_are_refused(stamp: Path, tsa: Authority, tmp_path: Path) -> None:
    root, odd = tsa.folder / "root.pem", tmp_path / "odd"
    for data in (b"", b"-----BEGIN CERTIFICATE-----\nxx\n", b"\xff" * (timestamp.MOST_BYTES + 1)):
        odd.write_bytes(data)
        with pytest.raises(InputError):
            timestamp.stamped(stamp, NOTE, odd)
        with pytest.raises(InputError):
            timestamp.stamped(odd, NOTE, root)
    with pytest.raises(InputError, match="cannot be read"):
        timestamp.stamped(tmp_path / "none", NOTE, root)
