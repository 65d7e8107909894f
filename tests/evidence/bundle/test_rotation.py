"""After `log rotate` a bundle carries the chain of the log's keys: who knows any of them needs no other."""

from __future__ import annotations

import hashlib
import json
import shutil
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stillwatch.evidence.bundle.committed import Committed, committed, log_file
from stillwatch.evidence.bundle.verify import Broken, check
from stillwatch.evidence.database import change_text
from stillwatch.evidence.keys import Key, vkey
from stillwatch.evidence.log import TransparencyLog
from stillwatch.evidence.merkle import leaf_hash
from stillwatch.evidence.note import note_of, text_of
from stillwatch.evidence.read import checkpoint
from tests.evidence.bundle.conftest import STRANGER, VKEY, Files, Made, changed, signed_again
from tests.evidence.conftest import KEY, ORIGIN, ticking

SECOND, THIRD = (Key(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (21, 22))


def with_log(files: Files, plain: dict[str, Any]) -> Files:
    """The bundle with another `log.json`, as `build` would sign it."""
    text = json.dumps(plain).encode()
    said = {name: plain[name] for name in ("vkey", "checkpoint")}
    return signed_again(files | {"log.json": text}, change=lambda predicate: predicate.update(log=said))


@pytest.fixture(scope="module")
def turned(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, Path, Committed]:
    """The small bundle after two changes of the log's key, its log, and what it shows of it."""
    audit = tmp_path_factory.mktemp("turned") / "log"
    shutil.copy(made.source.audit, audit)
    between = audit.with_name("between")
    with TransparencyLog(audit, KEY, ticking()) as log:
        log.rotate(SECOND)
        log.append("note", {"n": 1})
        between.write_text(checkpoint(audit)[1])
        log.rotate(THIRD)
        log.append("note", {"n": 2})
    known = committed(audit, made.results, made.campaigns[-1], "a.pem", None)
    return with_log(made.small, log_file(audit, known, [*made.source.noted, between])), audit, known


def test_who_knows_any_key_of_the_log_accepts(made: Made, turned: tuple[Files, Path, Committed]) -> None:
    files, audit, _ = turned
    for key in (KEY, SECOND, THIRD):
        shown, left = check(files, vkey=vkey(ORIGIN, key.public), noted=(made.noted,))
        assert "its key was changed 2 times" in shown["log"]
        assert "goes on from 2 earlier checkpoints" in shown["log"]
        assert not any("whose log" in text for text in left)
    # Each checkpoint is of the key that signed then.
    check(files, vkey=VKEY, noted=(audit.with_name("between").read_text(),))
    with pytest.raises(Broken, match="another key signs the log"):
        check(files, vkey=vkey(ORIGIN, STRANGER.public))
    with pytest.raises(Broken, match="another key signs the log"):
        check(files, vkey=vkey("example.com/other", KEY.public))


def test_a_change_that_is_the_newest_entry_is_signed_by_the_key_before(made: Made, tmp_path: Path) -> None:
    shutil.copy(made.source.audit, tmp_path / "log")
    with TransparencyLog(tmp_path / "log", KEY, ticking()) as log:
        log.rotate(SECOND)
    known = committed(tmp_path / "log", made.results, made.campaigns[-1], "a.pem", None)
    check(with_log(made.small, log_file(tmp_path / "log", known, made.source.noted)), vkey=VKEY)


def payload_of(new: Key, agreed: Key, old: Key) -> str:
    plain = {
        "key": new.public.hex(),
        "signed": agreed.sign(change_text(ORIGIN, old.public, new.public)).hex(),
    }
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def other_payload(plain: Any) -> None:
    plain["keys"][0]["payload"] = payload_of(STRANGER, STRANGER, KEY)


def other_entry(plain: Any) -> None:
    """A change of one's own, in a tree of one's own, that the key before did not sign."""
    payload = payload_of(STRANGER, STRANGER, KEY)
    leaf = json.loads(plain["keys"][0]["leaf"]) | {
        "number": 0,
        "sha256": hashlib.sha256(payload.encode()).hexdigest(),
    }
    text = json.dumps(leaf, sort_keys=True, separators=(",", ":"))
    root = leaf_hash(text.encode())
    note = note_of(ORIGIN, 1, root, KEY.public, STRANGER.sign(text_of(ORIGIN, 1, root)))
    plain["keys"] = [{"index": 0, "leaf": text, "payload": payload, "path": [], "checkpoint": note}]


def unagreed(plain: Any) -> None:
    """The owner of the first key names somebody else's, who did not agree, in a tree that it signs."""
    payload = payload_of(STRANGER, KEY, KEY)
    leaf = json.loads(plain["keys"][0]["leaf"]) | {"sha256": hashlib.sha256(payload.encode()).hexdigest()}
    text = json.dumps(leaf, sort_keys=True, separators=(",", ":"))
    root = leaf_hash(text.encode())
    note = note_of(ORIGIN, 1, root, KEY.public, KEY.sign(text_of(ORIGIN, 1, root)))
    plain["keys"] = [{"index": 0, "leaf": text, "payload": payload, "path": [], "checkpoint": note}]


def elsewhere(plain: Any) -> None:
    """A change that the first key signed and the new one agreed to, in another tree than the log's."""
    payload = payload_of(STRANGER, STRANGER, KEY)
    leaf = json.loads(plain["keys"][0]["leaf"]) | {"sha256": hashlib.sha256(payload.encode()).hexdigest()}
    text = json.dumps(leaf, sort_keys=True, separators=(",", ":"))
    root = leaf_hash(text.encode())
    note = note_of(ORIGIN, 1, root, KEY.public, KEY.sign(text_of(ORIGIN, 1, root)))
    plain["keys"] = [{"index": 0, "leaf": text, "payload": payload, "path": [], "checkpoint": note}]
    plain["vkey"] = vkey(ORIGIN, STRANGER.public)
    size, root64 = plain["checkpoint"].split("\n")[1:3]
    whole = b64decode(root64)
    signature = STRANGER.sign(text_of(ORIGIN, int(size), whole))
    plain["checkpoint"] = note_of(ORIGIN, int(size), whole, STRANGER.public, signature)


FORGED: list[tuple[Callable[[Any], Any], str]] = [
    (lambda plain: plain.pop("keys"), "not signed by the log's key"),
    (lambda plain: plain["keys"].pop(), "not signed by the log's key"),
    (lambda plain: plain["keys"].pop(0), "not signed by the log's key"),
    (lambda plain: plain["keys"].reverse(), "not signed by the log's key"),
    (lambda plain: plain["keys"].append(plain["keys"][0]), "what the key before signed"),
    (lambda plain: plain["keys"][0].update(index=1), "what the key before signed"),
    (lambda plain: plain["keys"][0]["path"].pop(), "what the key before signed"),
    (lambda plain: plain.update(keys=plain["keys"] * 40), "too often"),
    (lambda plain: plain["entries"].pop(0), "first entry"),
    (
        lambda plain: plain["entries"].remove(next(e for e in plain["entries"] if '"key"' in e["leaf"])),
        "not in the log",
    ),
    (lambda plain: plain.update(vkey=VKEY), "not the one that its changes"),
    (other_payload, "what the key before signed"),
    (other_entry, "not signed by the log's key"),
    (unagreed, "did not agree"),
    (elsewhere, "not in the log"),
]


@pytest.mark.parametrize(("forge", "said"), FORGED)
def test_a_chain_that_was_forged_is_found(
    turned: tuple[Files, Path, Committed], forge: Callable[[Any], Any], said: str
) -> None:
    plain = json.loads(turned[0]["log.json"])
    forge(plain)
    with pytest.raises(Broken, match=said) as error:
        check(with_log(turned[0], plain))
    assert str(error.value).startswith("log:")


def test_other_types_in_the_chain_end_in_one_error(turned: tuple[Files, Path, Committed]) -> None:
    for junk in ({}, [1], [{}], "x", [None], [{"checkpoint": 1}]):
        with pytest.raises(Broken):
            check(changed(turned[0], "log.json", lambda plain, junk=junk: plain.update(keys=junk)))  # type: ignore[misc]
