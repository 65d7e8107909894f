"""Checks a Stillwatch evidence bundle, offline.

    python verify.py BUNDLE.zip [--signer KEY] [--vkey KEY] [--noted CHECKPOINT ...]

One file that needs Python 3.9 or later and the package `cryptography`; it imports nothing else, opens no connection
and writes nothing. It ends with 0 if everything that it can check holds, with 1 and the first thing that does not
hold, with 2 if it was called wrongly. A verifier that comes with the evidence proves nothing about itself: compare
its SHA-256, which it prints, with the published one.

--signer  who has to have signed the bundle: ed25519:BASE64, or a file with that or with a PEM public key
--vkey    the transparency log's key, now or before it was changed, NAME+ID+KEY, or a file with it
--noted   a checkpoint of the log that you noted earlier: the log must go on from it
--row     a row that the operator has revealed to you, as a file: it must be the one that was committed to
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import re
import sys
import zipfile
import zlib
from base64 import b64decode
from pathlib import Path
from typing import Any

PREDICATE = "urn:stillwatch:evidence-bundle:v1"
MOST_ARCHIVE = MOST_FILE = 32 << 20
MOST_ALL, MOST_FILES, MOST_STATEMENT = 64 << 20, 24, 1 << 20
MOST_KEYS = 64
"""Of a log, one after the other."""
MOST_RATIO = 200
"""Times that a file of more than 1 MiB may be larger than it is packed: ours are at most 40."""
MOST_STEPS = 300_000_000
"""Of all computations; a few minutes."""
FREE = ("statement.dsse.json", "rows.jsonl")
"""What the statement does not list: itself, and the rows, which a Merkle root stands for so that any can go."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
STAKES, MIXTURES, SMOOTH, TAIL, STOP_AFTER = (0.02, 0.05, 0.1, 0.2, 0.5), (0.25, 0.5, 0.75), 0.1, 100, 10
NEAR_BITS, NEAR = 1e-6, 1e-9
"""How far a number that is computed again may be off: bits, and other numbers in proportion."""
DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, NotImplementedError)
MISSHAPEN = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)
"""What Python raises at a file of another form than ours."""


class Broken(Exception):
    """What does not hold, in words."""


def need(held: Any, what: str) -> None:
    """Broken unless it holds."""
    if not held:
        raise Broken(what)


def close(found: float, said: float, near: float = NEAR) -> bool:
    """Whether two numbers are the same but for rounding; probabilities far below 1 in proportion."""
    return found == said or abs(found - said) <= near * max(abs(found), abs(said), 1e-300)


# -- the archive -------------------------------------------------------------------------------------------------


def unpack(path: Path) -> dict[str, bytes]:
    """The files of an archive, in memory. Whatever does not look as this program writes it is refused."""
    need(path.is_file(), "there is no such file")
    with path.open("rb") as file:
        return unpacked(file.read(MOST_ARCHIVE + 1))


def unpacked(data: bytes) -> dict[str, bytes]:
    """The files of an archive that is in memory."""
    need(len(data) <= MOST_ARCHIVE, f"the archive has more than {MOST_ARCHIVE >> 20} MiB")
    # The end record, before anything reads the directory: how many files, how large a directory, no comment.
    end = data[-22:]
    sound = data[:4] == b"PK\3\4" and len(end) == 22 and end[:10] == b"PK\5\6" + bytes(4) + end[10:12]
    need(
        sound and end[20:] == b"\0\0", "no archive of this kind: cut off, with something around it, or no zip"
    )
    count, length, start = (int.from_bytes(end[a:b], "little") for a, b in ((10, 12), (12, 16), (16, 20)))
    need(count <= MOST_FILES, f"the archive holds more than {MOST_FILES} files")
    need(length <= count * 150 and start + length + 22 == len(data), "the archive's directory is not sound")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _files(archive, data, count, start)
    except DAMAGED as error:
        raise Broken(f"the archive is damaged: {type(error).__name__}") from error


def _files(archive: zipfile.ZipFile, data: bytes, count: int, start: int) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    need(len(archive.infolist()) == count, "the archive's directory is not sound")
    at = whole = 0
    for info in archive.infolist():
        name, size = info.filename, info.file_size
        need(NAME.fullmatch(name) and name == info.orig_filename, "a file in the archive has an odd name")
        need(name not in files, f"{name}: the archive holds it twice")
        need(not info.flag_bits & 1, f"{name} is encrypted")
        plain = info.external_attr >> 16 == 0o100644 and info.compress_type in (0, 8) and not info.flag_bits
        need(plain, f"{name} is no plain file, but a link, a folder or packed in another way")
        bare = not info.extra and not info.comment and info.date_time == (1980, 1, 1, 0, 0, 0)
        # What stands before each file says the same as the directory, so that no two readers see two archives.
        local = data[at : at + 30 + len(name)]
        same = local[14:26] == b"".join(n.to_bytes(4, "little") for n in (info.CRC, info.compress_size, size))
        same = same and local[30:] == name.encode() and local[26:30] == len(name).to_bytes(4, "little")
        same = same and local[8:10] == info.compress_type.to_bytes(2, "little") and info.header_offset == at
        need(
            bare and same, f"{name} is not packed as this program packs it: something may be hidden beside it"
        )
        at += len(local) + info.compress_size
        need(size <= MOST_FILE, f"{name} is larger than {MOST_FILE >> 20} MiB")
        bomb = size > 1 << 20 and size > MOST_RATIO * max(1, info.compress_size)
        need(not bomb, f"{name} unpacks to more than {MOST_RATIO} times its size: a zip bomb")
        whole += size
        need(whole <= MOST_ALL, f"the files have more than {MOST_ALL >> 20} MiB together")
        with archive.open(info) as file:
            files[name] = file.read(size + 1)
        need(len(files[name]) == size, f"{name} has another length than the archive says")
    need(at == start, "something stands between the files of the archive")
    return files


def parse(data: bytes | str, name: str) -> Any:
    """Strict JSON: no name twice, no NaN, no number that Python would change or choke on."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        plain = dict(found)
        need(len(plain) == len(found), f"{name}: an object names something twice")
        return plain

    def number(text: str) -> Any:
        value = float(text) if len(text) <= 40 else math.inf
        need(math.isfinite(value) and abs(value) < 1e300, f"{name}: a number is too large, or none")
        return int(text) if text.lstrip("-").isdigit() else value

    try:
        text = data.decode() if isinstance(data, bytes) else data
        reader = json.JSONDecoder(
            object_pairs_hook=pairs, parse_int=number, parse_float=number, parse_constant=number
        )
        return reader.decode(text)
    except (ValueError, RecursionError) as error:
        raise Broken(f"{name} is no JSON that can be read") from error


def canonical(value: Any) -> bytes:
    """The JSON that digests are made of: sorted names, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256(data: bytes) -> str:
    """Hex."""
    return hashlib.sha256(data).hexdigest()


# -- signatures and trees ----------------------------------------------------------------------------------------


def signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether an ed25519 key signed this."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_key(text: str) -> bytes:
    """The 32 bytes of `ed25519:BASE64`, or of a PEM public key."""
    text = text.strip()
    if text.startswith("-----BEGIN"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            key = load_pem_public_key(text.encode())
        except (ValueError, TypeError) as error:
            raise Broken("this is no PEM public key") from error
        need(isinstance(key, Ed25519PublicKey), "the key is not ed25519")
        return bytes(key.public_bytes_raw())  # type: ignore[union-attr]
    need(re.fullmatch(r"ed25519:[A-Za-z0-9+/]{43}=", text), "this is no key as ed25519:BASE64")
    return b64decode(text[8:])


def log_key(text: str) -> tuple[str, bytes]:
    """Name and public key of a log's `NAME+ID+KEY` (C2SP signed-note)."""
    name, _, rest = text.strip().partition("+")
    number, _, encoded = rest.partition("+")
    need(re.fullmatch(r"[A-Za-z0-9+/]{44}", encoded) and name, "this is no key of a log, NAME+ID+KEY")
    raw = b64decode(encoded)
    need(raw[0] == 1 and number == key_id(name, raw[1:]).hex(), "the log's key has not the id that it names")
    return name, raw[1:]


def key_id(name: str, public: bytes) -> bytes:
    """The first 4 bytes of SHA-256(name, newline, 1, key)."""
    return hashlib.sha256(name.encode() + b"\n\1" + public).digest()[:4]


def checkpoint(text: str, who: tuple[str, list[tuple[int, bytes]]]) -> tuple[int, bytes]:
    """Size and root of a checkpoint that the log signed (C2SP tlog-checkpoint).

    `who`: its name and keys, each after the size of tree from which on it signs; the first signs the smallest.
    """
    found = re.fullmatch(
        r"([^\n]+)\n(0|[1-9][0-9]{0,15})\n([A-Za-z0-9+/]{43}=)\n\n((?:\u2014 [^ \n]+ [^ \n]+\n){1,64})", text
    )
    if found is None:
        raise Broken("a checkpoint of the log cannot be read")
    origin, size, root, lines = found.groups()
    need(origin == who[0], "a checkpoint is of another log")
    body = f"{origin}\n{size}\n{root}\n".encode()
    key = [public for first, public in who[1] if first <= int(size)][-1]
    mine = []
    for line in lines.splitlines():
        name, encoded = line[2:].split(" ")
        try:
            raw = b64decode(encoded, validate=True)
        except ValueError as error:
            raise Broken("a checkpoint of the log cannot be read") from error
        if name == origin and raw[:4] == key_id(origin, key):
            mine.append(raw[4:])
    need(mine and all(signed(key, body, raw) for raw in mine), "a checkpoint is not signed by the log's key")
    return int(size), b64decode(root)


def leaf_hash(data: bytes) -> bytes:
    """RFC 6962, 2.1."""
    return hashlib.sha256(b"\0" + data).digest()


def pair_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962, 2.1."""
    return hashlib.sha256(b"\1" + left + right).digest()


def tree_root(leaves: list[bytes]) -> bytes:
    """Root over leaf hashes (RFC 6962, 2.1)."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    while len(leaves) > 1:
        last = leaves[-1:] if len(leaves) % 2 else []
        leaves = [pair_hash(leaves[i], leaves[i + 1]) for i in range(0, len(leaves) - 1, 2)] + last
    return leaves[0]


def included(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    """RFC 9162, 2.1.3.2."""
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = pair_hash(step, found)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = pair_hash(found, step)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def consistent(first: int, second: int, before: bytes, after: bytes, path: list[bytes]) -> bool:
    """RFC 9162, 2.1.4.2."""
    if not 0 < first <= second:
        return False
    if first == second:
        return not path and before == after
    steps = [before, *path] if first & (first - 1) == 0 else list(path)
    if not steps:
        return False
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old, new = pair_hash(step, old), pair_hash(step, new)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            new = pair_hash(new, step)
        at, last = at >> 1, last >> 1
    return last == 0 and old == before and new == after


def hashes(found: Any) -> list[bytes]:
    """A proof's hashes."""
    need(type(found) is list and len(found) <= 64, "a proof cannot be read")
    try:
        out = [b64decode(step, validate=True) for step in found]
    except (ValueError, TypeError) as error:
        raise Broken("a proof cannot be read") from error
    need(all(len(step) == 32 for step in out), "a proof cannot be read")
    return out


# -- numbers -----------------------------------------------------------------------------------------------------


def log_mean(bits: list[float]) -> float:
    """log2 of the mean of e-values given in bits."""
    most = max(bits)
    return most + math.log2(math.fsum(2.0 ** (value - most) for value in bits) / len(bits))


def betting(rows: list[tuple[float, float]]) -> float:
    """Bits of an account: the betting score over its keys, each (likelihood under the null, under the group)."""
    return log_mean([math.fsum(math.log2(1 - s + s * alt / null) for null, alt in rows) for s in STAKES])


def tail_p(null: list[float], observed: float, above: int) -> float:
    """P(null >= observed) from a generalised Pareto tail over the largest values (Knijnenburg et al. 2009)."""
    floor, ranked = (above + 1) / (len(null) + 1), sorted(null)
    if len(ranked) <= TAIL:
        return floor
    threshold = (ranked[-TAIL] + ranked[-TAIL - 1]) / 2
    excess = [value - threshold for value in ranked[-TAIL:]]
    mean = math.fsum(excess) / TAIL
    variance = math.fsum((value - mean) ** 2 for value in excess) / (TAIL - 1)
    if observed <= threshold or variance <= 0 or mean <= 0:
        return floor
    shape = min(max(0.5 * (1 - mean * mean / variance), 0.0), 0.45)
    far = (observed - threshold) / (mean * (1 - shape))
    tail = math.exp(-far) if shape < 1e-9 else (1 + shape * far) ** (-1 / shape)
    return min(1.0, max(TAIL / len(null) * tail, 1e-15))


def count_tail(k: int, mean: float, trials: int, upper: bool) -> float:
    """P(X >= k) or P(X <= k) of a Poisson count, or of a binomial one with `trials`, by summing its terms."""
    if upper and k <= 0:
        return 1.0
    if trials and k >= trials and not upper:
        return 1.0
    if mean <= 0 or (trials and mean >= trials):
        certain = 0 if mean <= 0 else trials
        return 1.0 if (certain >= k if upper else certain <= k) else 0.0
    # Summed away from the mean, where terms fall.
    if upper and k <= mean:
        return max(0.0, 1.0 - count_tail(k - 1, mean, trials, False))
    if not upper and k >= mean:
        return max(0.0, 1.0 - count_tail(k + 1, mean, trials, True))
    share = mean / trials if trials else 0.0
    if trials:
        need(0 <= k <= trials, "a count is larger than what it counts")
        first = math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        first += k * math.log(share) + (trials - k) * math.log1p(-share)
    else:
        first = k * math.log(mean) - mean - math.lgamma(k + 1)
    term, total, at = 1.0, 1.0, k
    for _ in range(1_000_000):
        at += 1 if upper else -1
        if at < 0 or (trials and at > trials):
            break
        odds = share / (1 - share) if trials else mean
        ratio = (odds * (trials - at + 1) / at if trials else odds / at) if upper else (
            (at + 1) / (odds * (trials - at)) if trials else (at + 1) / odds
        )  # fmt: skip
        term *= ratio
        total += term
        if term < 1e-18 * total:
            break
    else:
        raise Broken("a count is too large to be computed again here")
    return min(1.0, math.exp(first + math.log(total)))


def false_discovery(p: list[float]) -> list[float]:
    """q of each p (Benjamini and Hochberg 1995)."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    q, least = [0.0] * len(p), 1.0
    for rank in range(len(p), 0, -1):
        i = order[rank - 1]
        least = min(least, p[i] * len(p) / rank)
        q[i] = least
    return q


# -- the checks --------------------------------------------------------------------------------------------------


class Check:
    """One bundle. Each of `STEPS` checks a part, and returns what it has shown, in words."""

    def __init__(
        self, files: dict[str, bytes], signer: str | None, vkey: str | None, noted: list[str]
    ) -> None:
        self.files, self.signer, self.vkey, self.noted = files, signer, vkey, noted
        self.left: list[str] = []
        """What could not be checked."""
        self.docs: dict[str, Any] = {}
        self.steps = 0

    def spend(self, steps: int) -> None:
        """Count work before it is done: a hostile bundle must not keep a machine busy for a day."""
        self.steps += steps
        need(self.steps <= MOST_STEPS, "there is too much to be computed again here")

    def doc(self, name: str) -> Any:
        """A JSON file of the bundle."""
        if name not in self.docs:
            need(name in self.files, f"{name} is missing")
            self.docs[name] = parse(self.files[name], name)
            need(type(self.docs[name]) is dict, f"{name} is no object")
        return self.docs[name]

    def signature(self) -> str:
        """The DSSE envelope, its in-toto statement, and who signed."""
        size = len(self.files.get("statement.dsse.json", b""))
        need(size <= MOST_STATEMENT, "statement.dsse.json is too large")
        envelope = self.doc("statement.dsse.json")
        kind, signatures = envelope["payloadType"], envelope["signatures"]
        need(kind == "application/vnd.in-toto+json", "the statement is of another type")
        payload = b64decode(envelope["payload"], validate=True)
        statement = parse(payload, "the statement")
        need(statement["_type"] == "https://in-toto.io/Statement/v1", "the statement is no in-toto statement")
        need(statement["predicateType"] == PREDICATE, "the statement is of another kind or version of bundle")
        self.claim: Any = statement["predicate"]
        self.subjects: Any = statement["subject"]
        said = self.claim["signer"]
        need(type(said) is str and type(signatures) is list and 0 < len(signatures) <= 8, "nobody signed")
        key = public_key(said)
        need(
            self.signer is None or public_key(self.signer) == key, "another key signed than the one you named"
        )
        message = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
        mine = [b64decode(s["sig"], validate=True) for s in signatures if s["keyid"] == said]
        need(mine and all(signed(key, message, raw) for raw in mine), "the signature does not hold")
        if self.signer is None:
            self.left.append("whose key signed: name the one that you know with --signer")
        return f"the statement is signed by {said}{', whom you named' if self.signer else ''}"

    def contents(self) -> str:
        """Every file is the signed one."""
        listed = {subject["name"]: subject["digest"]["sha256"] for subject in self.subjects}
        need(len(listed) == len(self.subjects), "the statement lists a file twice")
        need(set(listed) == set(self.files) - set(FREE), "the archive holds other files than the signed ones")
        for name, digest in sorted(listed.items()):
            need(sha256(self.files[name]) == digest, f"{name} is not the file that was signed")
        return f"{len(listed)} files are the signed ones, to the last byte"

    def log(self) -> str:
        """The transparency log: its checkpoint, and that each entry shown is in it."""
        log = self.doc("log.json")
        for name, said in self.claim["log"].items():
            need(log[name] == said, f"{name} of the log is another than in the statement")
        who = self.chain(log)
        size, root = checkpoint(log["checkpoint"], who)
        need(
            log_key(log["vkey"]) == (who[0], [key for first, key in who[1] if first <= size][-1]),
            "the log's key is not the one that its changes of key lead to",
        )
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        for entry in log["entries"]:
            leaf, index, payload = entry["leaf"], entry["index"], entry["payload"]
            proved = included(leaf_hash(leaf.encode()), index, size, hashes(entry["path"]), root)
            need(type(index) is int and proved, f"entry {index} is not in the signed log")
            plain = parse(leaf, "an entry of the log")
            need(sha256(payload.encode()) == plain["sha256"], f"entry {index} has another payload")
            self.events.append((plain["kind"], plain["time"], parse(payload, "an entry of the log")))
        leaves = {entry["index"]: entry["leaf"] for entry in log["entries"]}
        for change in log.get("keys", []):
            need(leaves.get(change["index"]) == change["leaf"], "a change of the log's key is not in the log")
        listed = sum(kind == "key" for kind, _, _ in self.events)
        need(listed == len(who[1]) - 1, "a change of the log's key is not in the chain of its keys")
        before = {}
        for growth in log["growth"]:
            earlier, was = checkpoint(growth["checkpoint"], who)
            goes_on = consistent(earlier, size, was, root, hashes(growth["path"]))
            need(goes_on, f"the log does not go on from its checkpoint of {earlier} entries")
            before[earlier] = was
        for text in self.noted:
            earlier, was = checkpoint(text, who)
            held = before.get(earlier, root if earlier == size else None)
            need(
                held,
                f"the bundle has no proof that the log goes on from your checkpoint of {earlier} entries",
            )
            need(
                held == was,
                "the log was rewritten: your checkpoint has another root. Both are signed: keep them",
            )
        if not self.noted:
            self.left.append(
                "that the log was not made anew later: --noted, a checkpoint from before the dispute"
            )
        more = f", and goes on from {len(before)} earlier checkpoints" if before else ""
        more += f"; its key was changed {len(who[1]) - 1} times, by the key before" if len(who[1]) > 1 else ""
        return f"{len(self.events)} entries are in the log {who[0]}, signed at {size:,} entries{more}"

    def chain(self, log: dict[str, Any]) -> tuple[str, list[tuple[int, bytes]]]:
        """The log's name and keys from its first entry on: each names the next one, which agrees.

        Whoever knows any of them knows the log.
        """
        name, changes = log_key(log["vkey"])[0], log.get("keys", [])
        need(type(changes) is list and len(changes) < MOST_KEYS, "the log's key was changed too often")
        first = [entry["payload"] for entry in log["entries"] if entry["index"] == 0]
        need(len(first) == 1, "the log's first entry, which names its first key, is not here")
        keys = [(0, bytes.fromhex(parse(first[0], "the log's first entry")["key"]))]
        for change in changes:
            size, root = checkpoint(change["checkpoint"], (name, keys))
            leaf, index, payload, old = change["leaf"], change["index"], change["payload"], keys[-1][1]
            right = type(index) is int and index == size - 1 and index + 2 > keys[-1][0]
            right = right and included(leaf_hash(leaf.encode()), index, size, hashes(change["path"]), root)
            plain = parse(leaf, "a change of the log's key")
            right = right and plain["kind"] == "key" and plain["sha256"] == sha256(payload.encode())
            need(right, "a change of the log's key is not what the key before signed")
            told = parse(payload, "a change of the log's key")
            new = bytes.fromhex(told["key"])
            agreed = f"stillwatch log key 1\n{name}\n{old.hex()}\n{new.hex()}\n".encode()
            need(
                new not in [key for _, key in keys] and signed(new, agreed, bytes.fromhex(told["signed"])),
                "the log's key was changed to one that did not agree",
            )
            keys.append((size + 1, new))
        known = None if self.vkey is None else log_key(self.vkey)
        need(
            known is None or (known[0] == name and known[1] in [key for _, key in keys]),
            "another key signs the log than the one you named",
        )
        if known is None:
            self.left.append("whose log it is: name its key, or one that it had before, with --vkey")
        return name, keys

    def finding(self) -> str:
        """The finding, its scan and its inputs are those that the log committed to."""
        plain, name = self.doc("finding.json"), self.claim["campaign"]
        self.group, self.run = plain["group"], plain["run"]
        right = self.group["id"] == name and self.group["verdict"] == "campaign"
        need(right, "the finding is of another group, or no campaign")
        mine = [(at, e) for kind, at, e in self.events if kind == "finding" and e["group"] == name]
        need(len(mine) == 1, "the log's entry of the finding is not here")
        at, event = mine[0]
        need(sha256(canonical(self.group)) == event["public"], "the finding is not the committed one")
        scans = [e for kind, _, e in self.events if kind == "scan" and e["results"] == event["results"]]
        need(len(scans) == 1, "the log's entry of the scan is not here")
        for ours in ("version", "config_digest", "seed", "accounts", "exchanges", "refused", "previous"):
            theirs = "config" if ours == "config_digest" else ours
            need(self.run[ours] == scans[0][theirs], f"{ours} is not that of the committed scan")
        inputs = "\n".join(sorted(entry["sha256"] for entry in self.run["inputs"]))
        need(sha256(inputs.encode()) == scans[0]["inputs_sha256"], "the inputs are not the committed ones")
        self.left.append("that these inputs give these results (replay)")
        return f"the finding and its scan of {len(self.run['inputs'])} input files were committed at {at}"

    def decisions(self) -> str:
        """Decisions about the campaign are those in the log, signed by whom they name."""
        kinds = ("decision", "approval", "reversal", "expiry")
        logged = {e["row"] for kind, _, e in self.events if kind in kinds}
        rows = [parse(text, "a decision") for text in self.doc("log.json")["decisions"]]
        for row in rows:
            shown = row.pop("hash")
            need(sha256(canonical(row)) == shown, "a decision was changed")
            need(shown in logged, "a decision is not in the log")
            logged.remove(shown)
            if row["key"] is not None:
                message = f"stillwatch decision 1\n{row['did']}\n{row['digest']}".encode()
                right = signed(public_key(row["key"]), message, b64decode(row["signature"]))
                need(right, "a decision is not signed by the key that it names")
            if row["order"] is not None:
                need(
                    sha256(canonical(row["order"])) == row["digest"],
                    "a decision is not the one that was signed",
                )
        need(not logged, "the log has a decision about the campaign that the bundle does not show")
        return f"{len(rows)} decisions about it are the committed ones, signed by the keys that they name"

    def members(self) -> str:
        """Accounts add up to the committed finding."""
        rows, group = self.doc("accounts.json")["members"], self.group
        self.accounts: dict[str, Any] = {row["account"]: row for row in rows}
        right = len(self.accounts) == len(rows) == group["accounts"]
        need(right, "the accounts are not as many as the finding names")
        for name in ("exchanges", "harvest_exchanges"):
            need(sum(row[name] for row in rows) == group[name], f"{name} do not add up to the finding's")
        seen = [row for row in rows if row["first"] is not None]
        need(min(row["first"] for row in seen) == group["first_ts"], "no account has the first exchange")
        need(max(row["last"] for row in seen) == group["last_ts"], "no account has the last exchange")
        return f"{len(rows):,} pseudonymous accounts add up to the finding's {group['exchanges']:,} exchanges"

    def rows(self) -> str:
        """The rows are the leaves of the signed tree; what was taken out is counted."""
        need("rows.jsonl" in self.files, "rows.jsonl is missing")
        *lines, rest = self.files["rows.jsonl"].split(b"\n")
        need(not rest, "the last row is cut off")
        families = {family["family"] for family in self.doc("finding.json")["families"]}
        leaves: list[bytes] = []
        shown = 0
        for number, line in enumerate(lines):
            plain = parse(line, f"row {number}")
            if "leaf" in plain:
                need(set(plain) == {"leaf"} and len(plain["leaf"]) == 64, f"row {number} cannot be read")
                leaves.append(bytes.fromhex(plain["leaf"]))
                continue
            row = plain["row"]
            need(set(plain) == {"row", "salt"} and len(plain["salt"]) == 64, f"row {number} cannot be read")
            need(
                row["account"] in self.accounts,
                f"row {number} is of an account that the finding does not name",
            )
            need(0 <= row["input"] < len(self.run["inputs"]), f"row {number} is of no input of the scan")
            need(
                families.issuperset(row["families"]), f"row {number} has a family that is not the campaign's"
            )
            leaves.append(leaf_hash(line))
            shown += 1
        claim = self.claim["rows"]
        right = len(leaves) == claim["count"] and tree_root(leaves).hex() == claim["root"]
        need(right, "the rows are not the signed ones")
        gone = f"{len(leaves) - shown:,} were taken out, and their hashes hold"
        self.left.append(
            "hashes of raw rows: the operator builds the bundle again, byte for byte, or shows a row"
        )
        return f"{shown:,} rows are leaves of the signed tree; {gone}"

    def bits(self) -> str:
        """Bits of every account in FORM and LINK, from counts; and what they make with those in TIME."""
        counts = self.doc("counts.json")
        if not counts["accounts"]:
            self.left.append("bits of the accounts: this campaign was not measured key by key")
            return "no bits to compute again"
        views = {view: View(view, counts["views"][view]) for view in ("FORM", "LINK")}
        need({row[0] for row in counts["accounts"]} == set(self.accounts), "counts.json is of other accounts")
        need(len(counts["accounts"]) == len(self.accounts), "counts.json lists an account twice")
        for name, fold, time, form, link in counts["accounts"]:
            said = self.accounts[name]
            need(time == said["time"], f"bits in TIME of {name} are not the same everywhere")
            found: list[float] = []
            for (view, table), keys in zip(views.items(), (form, link)):  # noqa: B905 - Python 3.9
                self.spend(table.cost(keys))
                table.hold(keys, fold)
                published = said[view.lower()]
                best = min((abs(bits - published), bits) for bits in table.bits(keys, fold))
                need(best[0] <= NEAR_BITS, f"bits in {view} of {name} do not follow from the counts")
                found.append(best[1])
            each = [*found, time]
            each.remove(max(each))
            need(
                abs(log_mean(each) - said["e_bits"]) <= NEAR_BITS,
                f"the bits of {name} do not follow from its views",
            )
        for view, table in views.items():
            need(table.fits(), f"more accounts hold a key in {view} than its counts say")
        self.left.append("bits in TIME, and who has which key (replay)")
        keys = sum(len(table.keys) for table in views.values())
        return f"bits of {len(self.accounts):,} accounts in FORM, LINK and in all follow from {keys:,} keyed counts"

    def table(self, name: str, most: int) -> list[dict[str, Any]]:
        """Rows of a table of vectors.json, at most `most`."""
        found = self.doc("vectors.json")["tables"][name]
        need(len(found["rows"]) <= most, f"{name} is too long")
        need(all(len(row) == len(found["columns"]) for row in found["rows"]), f"{name} cannot be read")
        return [dict(zip(found["columns"], row)) for row in found["rows"]]  # noqa: B905 - Python 3.9

    def chances(self) -> str:
        """Every p from its null values, reference scores or counts; every q from the list of all p of the run."""
        if self.doc("vectors.json")["tables"] is None:
            self.left.append("p and q: the results were made without the tables that they follow from")
            return "no p and q to compute again"
        tests: dict[str, list[dict[str, Any]]] = {}
        for row in self.table("proof_tests", 1_000_000):
            tests.setdefault(row["test"], []).append(row)
        for name, rows in tests.items():
            need(
                [row["number"] for row in rows] == list(range(len(rows))),
                f"the list of p of {name} is not whole",
            )
            for row, q in zip(rows, false_discovery([row["p"] for row in rows])):  # noqa: B905
                right = 0 <= row["p"] <= 1 and close(q, row["q"])
                need(right, f"q {row['number']} of {name} does not follow from all p")
        rests = {row["claim"]: row for row in self.table("proof_claims", 8)}
        claims = {claim["name"]: claim for claim in self.group["claims"]}
        direct = self.direct(claims["one_director"])
        nulls = self.table("proof_nulls", 100_000)
        found = {
            "coordinated": self.views(nulls, claims["coordinated"]["statistic"]),
            "harvest_like": self.conformal(),
        }
        for name, p in found.items():
            claim, rest = claims[name], rests.get(name)
            if rest is None:
                need(
                    name != "coordinated" and claim["p"] is None, f"the claim {name} rests on no p of the run"
                )
                continue
            row = tests[rest["test"]][rest["number"]]
            need(
                close(row["p"], claim["p"]) and close(row["q"], claim["q"]),
                f"p or q of the claim {name} is another",
            )
            need(close(p, row["p"], 1e-8), f"p of the claim {name} does not follow from its vectors")
            if name == "coordinated":
                need(
                    claim["holds"] == (row["q"] <= rest["level"]),
                    "the claim coordinated does not follow from q",
                )
        self.left.append("null values, reference scores and counts themselves (replay)")
        listed, honest = sum(map(len, tests.values())), self.references
        return (
            f"q follows from all {listed:,} p of the run; p of {direct} direct tests from counts, of the views from "
            f"{len(nulls):,} null values, of the score from {honest:,} references"
        )

    def views(self, nulls: list[dict[str, Any]], told: float) -> float:
        """p of the claim `coordinated`, from the views that were tested."""
        drawn: dict[str, list[tuple[int, float]]] = {}
        for row in nulls:
            drawn.setdefault(row["view"], []).append((row["draw"], row["value"]))
        counted, factor, seen = [1.0], 1, []
        for row in self.table("proof_views", 8):
            view, method, said = row["view"], row["method"], row["statistic"]
            pairs = sorted(drawn.pop(view, []))
            seen.append(said)
            need(
                [draw for draw, _ in pairs] == list(range(row["draws"])), f"null values of {view} are missing"
            )
            values = [value for _, value in pairs]
            above = sum(value >= said for value in values)
            need(above == row["above"], f"null values of {view} are not those that were counted")
            if method == "permutation":
                need(above >= STOP_AFTER, f"too few null values of {view} reach the group's")
                p = above / len(values)
            elif method == "permutation with fitted tail":
                p = tail_p(values, said, above)
            elif method == "none":
                p = 1.0
            else:
                p = count_tail(round(said), row["expected"], 0, True)
            if values:
                mean = math.fsum(values) / len(values)
                need(close(mean, row["expected"], 1e-8), f"the mean null value of {view} is another")
            p = min(1.0, 2 * p) if row["parts"] > 1 else p
            need(close(p, row["p"], 1e-6), f"p of {view} does not follow from its null values")
            if row["counted"] and method != "none":
                counted.append(row["p"])
                factor = row["views_tested"]
        need(not drawn, "there are null values of a view that was not tested")
        need(
            any(close(found, told) for found in seen), "the statistic of the claim coordinated is of no view"
        )
        return min(1.0, factor * min(counted))

    def direct(self, claim: dict[str, Any]) -> int:
        """p of the direct tests, and that of the claim `one_director`, which is the smallest."""
        rows = self.table("proof_direct", 16)
        shown = {part["signal"]: part for part in self.group["evidence"] if part["kind"] == "DIRECT"}
        for row in rows:
            name, p = row["test"], 1.0
            need(follows(row), f"what is expected of the direct test {name} does not follow from its counts")
            if row["observed"] >= row["least"]:
                need(row["law"] in ("poisson", "binomial"), "a direct test follows an unknown law")
                trials = row["trials"] if row["law"] == "binomial" else 0
                p = min(
                    1.0,
                    row["times"] * count_tail(row["observed"], row["mean"], trials, row["tail"] == "upper"),
                )
            need(
                close(p, row["p"], 1e-6) or max(p, row["p"]) < 1e-290,
                f"p of the direct test {name} does not follow",
            )
            if name in shown:
                bits = -math.log2(max(row["p"], 1e-300))
                need(abs(bits - shown[name]["bits"]) <= NEAR_BITS, f"bits of {name} do not follow from its p")
                need(row["p"] <= row["level"], f"the direct test {name} is shown and did not fire")
        if rows:
            least = min(rows, key=lambda row: row["p"])
            need(close(least["p"], claim["p"]), "p of one director is not the smallest of its tests")
            need(
                not claim["holds"] or least["p"] <= least["level"],
                "one director is claimed and no test fired",
            )
        return len(rows)

    def conformal(self) -> float:
        """p of the claim `harvest_like`: the share of honest groups that score as high."""
        rows = self.table("proof_scores", 100_000)
        references = [row for row in rows if row["kind"] == "reference"]
        mine = [row for row in rows if row["kind"] == "campaign"]
        need(len(mine) == 1, "the campaign's score is missing")
        items, same = mine[0]["items"], mine[0]["coincidences"]
        space = math.log10((items * (items - 1) / 2 + 1) / (same + 3))
        need(close(space, mine[0]["space"], 1e-8), "the item space does not follow from the items")
        every = [*references, *mine]
        for row, score in zip(every, scores(references, every)):  # noqa: B905
            need(abs(score - row["score"]) <= 1e-6 * max(1, abs(score)), "a score is not what it is made of")
        self.references = len(references)
        as_high = sum(row["score"] >= mine[0]["score"] for row in references)
        return (1 + as_high) / (len(references) + 1)

    def chapters(self) -> str:
        """Every number and every quoted sentence of a statement stands where the statement says."""
        plain = self.doc("chapters.json")
        statements = [s for part in (*plain["chapters"], plain["alternatives"]) for s in part["statements"]]
        seen = 0
        for statement in statements:
            need(statement["tag"] in ("observed", "inferred", "likely"), "a statement is not tagged")
            for number in statement["numbers"]:
                found = self.lookup(number["from"], number["take"])
                need(found == number["value"], f"a statement and {number['from']} differ")
                seen += 1
            for place in statement["quotes"]:
                need(
                    self.lookup(place, "value") in statement["text"],
                    f"a statement does not say what {place} says",
                )
                seen += 1
        return f"{seen} numbers and sentences in {len(statements)} statements stand where they say"

    def lookup(self, place: str, take: str) -> Any:
        """What a JSON pointer (RFC 6901) into a file leads to, or a sum, count or maximum over it."""
        name, _, pointer = place.partition("#")
        found: Any = self.doc(name)
        for step in pointer.split("/")[1:]:
            found = found[int(step)] if type(found) is list else found[step]
        if take == "value":
            return found
        self.spend(len(found))
        return {"sum": sum, "max": max, "length": len, "days": days}[take](found)  # type: ignore[operator]


def days(values: list[int]) -> int:
    """On how many days there was anything."""
    return sum(value > 0 for value in values)


class View:
    """Counts of one view, as likelihoods: see `stillwatch.detect.members`."""

    def __init__(self, name: str, plain: dict[str, Any]) -> None:
        self.rows, self.less = max(1.0, float(plain["rows"])), name == "FORM"
        self.keys, self.own, self.honest = plain["keys"], plain["own"], plain["honest"]
        self.held = [[0, 0, 0, 0, 0] for _ in self.keys]
        """Accounts of this bundle that hold each key, by fold; the last are in none."""
        self.known: dict[tuple[int, int], tuple[float, float]] = {}
        need(len(self.own) == 4, f"{name} has another number of folds")
        need(len({key[0] for key in self.keys}) == len(self.keys), f"a key in {name} is listed twice")
        for _, _, holders, members, honest in self.keys:
            right = len(members) == 4 and min(members) >= 0
            # Of a key of no two members, and of no honest group, the bits do not ask who else holds it.
            right = right and (
                sum(members) < 2 and not honest if holders is None else holders >= sum(members)
            )
            right = right and all(2 <= count <= self.honest[group] for group, count in honest)
            need(right, f"counts of a key in {name} cannot be")

    def cost(self, keys: list[int]) -> int:
        """What the bits of an account with these keys cost."""
        return sum(50 + 4 * len(self.keys[key][4]) for key in keys)

    def hold(self, keys: list[int], fold: int) -> None:
        """Count an account."""
        need(fold in (-1, 0, 1, 2, 3) and len(set(keys)) == len(keys), "an account's keys cannot be read")
        need(all(0 <= key < len(self.keys) for key in keys), "an account holds a key that is not there")
        for key in keys:
            self.held[key][fold] += 1

    def fits(self) -> bool:
        """Whether no key is held by more accounts of this bundle than the counts say."""
        pairs = zip(self.keys, self.held)  # noqa: B905
        return all(
            (key[2] is None or sum(held) <= key[2]) and all(n <= most for n, most in zip(held, key[3]))  # noqa: B905
            for key, held in pairs
        )

    def likelihood(self, key: int, fold: int) -> tuple[float, float]:
        """(null, alternative) of a key for a member of `fold`, which the profile leaves out; -1: of no fold."""
        if (key, fold) not in self.known:
            _, _, holders, members, _ = self.keys[key]
            share = max(float(holders or 0), 1.0) / self.rows
            held = sum(count for number, count in enumerate(members) if number != fold)
            total = max(1, sum(rows for number, rows in enumerate(self.own) if number != fold))
            null, alternative = share, SMOOTH * share
            if held >= 2:
                alternative += (1 - SMOOTH) * (held / total)
                null = max(share - held / self.rows, 1.0 / self.rows) if self.less else share
            self.known[key, fold] = null, alternative
        return self.known[key, fold]

    def bits(self, keys: list[int], fold: int) -> list[float]:
        """Bits of an account that holds `keys`, against the null that fits it best: the background, or a mixture of
        it with one honest group. Nulls that fit equally well give each a value: rounding decides between them."""
        rows = [self.likelihood(key, fold) for key in keys]
        plain = math.fsum(math.log(null) for null, _ in rows)
        fits: list[tuple[float, int, float]] = [(plain, -1, 0.0)]
        drawn: dict[int, dict[int, float]] = {}
        for row, key in enumerate(keys):
            for group, count in self.keys[key][4]:
                drawn.setdefault(group, {})[row] = count / max(1, self.honest[group])
        for group, shares in drawn.items():
            for weight in MIXTURES:
                gain = [
                    math.log((1 - weight) + weight * share / rows[row][0]) for row, share in shares.items()
                ]
                rest = (len(rows) - len(shares)) * math.log(1 - weight)
                fits.append((plain + rest + math.fsum(gain), group, weight))
        fits.sort(reverse=True)
        best, out = fits[0][0], []
        for total, group, weight in fits[:8]:
            if best - total <= 1e-9 * max(1.0, abs(best)):
                share = drawn.get(group, {})
                mixed = [
                    (1 - weight) * null + weight * share.get(row, 0.0) for row, (null, _) in enumerate(rows)
                ]
                out.append(betting([(null, alt) for null, (_, alt) in zip(mixed, rows)]))  # noqa: B905
        return out


def follows(row: dict[str, Any]) -> bool:
    """Whether what a direct test expects follows from its counts (`stillwatch.schema.proof`)."""
    n, test = row["counts"], row["test"]
    if not n:
        return bool(row["observed"] == 0)
    if test == "work_split":
        expected = n[1] * n[2] / n[0]
    elif test in ("handover", "replay"):
        expected = n[0] * n[1] * (n[1] - 1) / max(1, n[2] * (n[2] - 1))
    elif test == "signup_batch":
        expected = math.fsum(a * (a - 1) / 2 * b for a, b in zip(n[::2], n[1::2]))  # noqa: B905
    elif test == "takeover":
        expected = math.fsum(min(1.0, ends * 120 / 1800) for ends in n)
    else:
        expected = n[0] * n[1]
    right = close(expected, row["expected"], 1e-8) and row["mean"] in (
        row["expected"],
        max(row["expected"], 1e-3),
    )
    return right


def scores(references: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[float]:
    """Evasion and item space, standardised; item space less what the size of the group explains."""
    if len(references) < 9:
        return [row["evasion"] + row["space"] / 10 for row in rows]
    n = len(references)

    def mean(values: list[float]) -> float:
        return math.fsum(values) / n

    def standard(of: dict[int, float]) -> list[float]:
        known = [of[id(row)] for row in references]
        middle = mean(known)
        spread = max(math.sqrt(mean([(value - middle) ** 2 for value in known])), 0.05)
        return [(of[id(row)] - middle) / spread for row in rows]

    size = {id(row): math.log10(max(row["size"], 1)) for row in rows}
    usual, space = mean([size[id(row)] for row in references]), mean([row["space"] for row in references])
    both = mean([(size[id(row)] - usual) * (row["space"] - space) for row in references])
    wide = mean([(size[id(row)] - usual) ** 2 for row in references])
    slope = both / wide if wide > 0 else 0.0
    evasion = standard({id(row): row["evasion"] for row in rows})
    residual = standard({id(row): row["space"] - space - slope * (size[id(row)] - usual) for row in rows})
    return [a + b for a, b in zip(evasion, residual)]  # noqa: B905


STEPS = (
    "signature",
    "contents",
    "log",
    "finding",
    "decisions",
    "members",
    "rows",
    "bits",
    "chances",
    "chapters",
)


def check(
    files: dict[str, bytes], signer: str | None = None, vkey: str | None = None, noted: tuple[str, ...] = ()
) -> tuple[dict[str, str], list[str]]:
    """(what was shown, by step; what could not be checked). Broken at the first thing that does not hold."""
    shown: dict[str, str] = {}
    bundle = Check(files, signer, vkey, list(noted))
    for step in STEPS:
        try:
            shown[step] = getattr(bundle, step)()
        except Broken as error:
            raise Broken(f"{step}: {error}") from error
        except MISSHAPEN as error:
            raise Broken(
                f"{step}: a file has not the form that it must have ({type(error).__name__})"
            ) from error
    return shown, bundle.left


def printable(text: str) -> str:
    """Without what would move a terminal: some of it is the bundle's own words."""
    return "".join(sign if sign.isascii() and sign.isprintable() else "?" for sign in text)


def told(given: str) -> str:
    """An option's text, or that of the file that it names."""
    if not os.path.isfile(given):
        return given
    with open(given, encoding="utf-8", errors="replace") as file:
        return file.read(1 << 16)


def opened(files: dict[str, bytes], text: str) -> str:
    """Whether a row that was revealed is the one that the bundle commits to."""
    try:
        told = parse(text, "the revealed row")
        row = parse(files["rows.jsonl"].split(b"\n")[told["row"]], "a row")["row"]
        raw = json.dumps(told["raw"], sort_keys=True, separators=(",", ":"))
        found = sha256(bytes.fromhex(told["salt"]) + raw.encode())
    except MISSHAPEN as error:
        raise Broken("the revealed row cannot be read, or was taken out of the bundle") from error
    need(found == row["raw"], "the revealed row is not the one that was committed to")
    return f"row {told['row']} was revealed, and is the one that was committed to"


def report(
    path: Path, signer: str | None, vkey: str | None, noted: list[str], rows: list[str] | None = None
) -> list[str]:
    """Lines for a person. Broken at the first thing that does not hold."""
    keys = [None if given is None else told(given) for given in (signer, vkey)]
    files = unpack(path)
    shown, left = check(files, keys[0], keys[1], tuple(told(text) for text in noted))
    for number, row in enumerate(rows or []):
        shown[f"row {number + 1}"] = opened(files, told(row))
    return [
        *(printable(f"  holds  {step:<10} {text}") for step, text in shown.items()),
        "",
        "Not checked here (replay: by `stillwatch evidence replay`, where the log is):",
        *(f"  - {text}" for text in left),
        "  - the judgement: claims, and what speaks against them, are in report.html",
        "",
        "Everything that can be checked here holds.",
    ]


def main(args: list[str]) -> int:
    """0: holds; 1: does not; 2: called wrongly."""
    asked = argparse.ArgumentParser(
        prog="verify.py", description="Checks a Stillwatch evidence bundle, offline."
    )
    asked.add_argument("bundle", type=Path)
    asked.add_argument(
        "--signer", help="who has to have signed: ed25519:BASE64, or a file of it, or a PEM public key"
    )
    asked.add_argument("--vkey", help="the transparency log's key, NAME+ID+KEY, or a file of it")
    asked.add_argument(
        "--noted", action="append", default=[], help="a checkpoint that you noted; may be repeated"
    )
    asked.add_argument("--row", action="append", default=[], help="a row that was revealed; may be repeated")
    given = asked.parse_args(args)
    try:
        import cryptography  # noqa: F401
    except ImportError:
        print("verify.py needs the package cryptography: pip install cryptography", file=sys.stderr)
        return 2
    try:
        own = sha256(Path(__file__).read_bytes())
        print(f"verify.py, SHA-256 {own}: compare it with the published one")
        print("\n".join(report(given.bundle, given.signer, given.vkey, given.noted, given.row)))
    except Broken as error:
        print(f"DOES NOT HOLD: {printable(str(error))}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"DOES NOT HOLD: a file cannot be read: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
