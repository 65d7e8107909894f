"""Bodies by which a client could hide his prompt, or hold up the guard."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Mapping
from typing import Any

import pytest

from stillwatch.guard import Guard, Subject
from stillwatch.guard.doors.check import litellm_subject
from stillwatch.guard.doors.coded import unpack, unpacked
from stillwatch.guard.doors.http import Identity, subject_of
from stillwatch.guard.sight import MOST_BODY, MOST_PARTS, unwieldy
from tests.guard.conftest import Scanned

WHO = Identity()
ASKED = {"model": "m", "messages": [{"role": "user", "content": "name a colour"}]}
PLAIN = json.dumps(ASKED).encode()


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


BOMB = gzip.compress(bytes(200 << 20), 9)
CODED: Mapping[str, tuple[list[bytes], bytes, bool]] = {
    "gzip": ([b"gzip"], gzip.compress(PLAIN), True),
    "in capitals": ([b" GZip "], gzip.compress(PLAIN), True),
    "x-gzip": ([b"x-gzip"], gzip.compress(PLAIN), True),
    "in two members": ([b"gzip"], gzip.compress(PLAIN[:9]) + gzip.compress(PLAIN[9:]), True),
    "zlib": ([b"deflate"], zlib.compress(PLAIN), True),
    "deflate": ([b"deflate"], _deflated(PLAIN), True),
    "twice": ([b"deflate, gzip"], gzip.compress(zlib.compress(PLAIN)), True),
    "twice in two headers": ([b"gzip", b"gzip"], gzip.compress(gzip.compress(PLAIN)), True),
    "said and not done": ([b"gzip"], PLAIN, True),
    "said by a made-up name": ([b"none"], PLAIN, True),
    "identity": ([b"identity"], PLAIN, True),
    "zstd": ([b"zstd"], b"\x28\xb5\x2f\xfd\x00", False),
    "brotli": ([b"br"], b"\x0b\x02\x80", False),
    "cut off": ([b"gzip"], gzip.compress(PLAIN)[:-5], False),
    "damaged": ([b"gzip"], gzip.compress(PLAIN)[:12] + b"\xff\xff", False),
    "five times": ([b"gzip"] * 5, PLAIN[::-1], False),
    "a bomb": ([b"gzip"], BOMB, False),
    "a bomb in a bomb": ([b"gzip, gzip"], gzip.compress(BOMB), False),
    "nothing, 100,000 times": ([b"gzip"], gzip.compress(b"") * 100_000, False),
}


@pytest.mark.parametrize("name", CODED)
def test_a_compressed_prompt_is_seen_or_named_as_not_seen(demo: Scanned, name: str) -> None:
    codings, body, seen = CODED[name]
    headers = [(b"Content-Encoding", coding) for coding in codings] + [(b"authorization", b"Bearer a")]
    begin = time.process_time()
    subject = subject_of(headers, "192.0.2.1", body, WHO)
    assert time.process_time() - begin < 1
    assert isinstance(subject.body, bytes)
    assert len(subject.body) <= MOST_BODY
    assert (subject.body == PLAIN) == seen
    guard = Guard(demo.snapshot)
    assert ("body" in guard.decide(subject).lacked) != seen
    assert guard.faults == 0


def test_no_more_is_unpacked_than_is_read() -> None:
    assert unpack([b"gzip"], gzip.compress(b"a" * 100), 100) == b"a" * 100
    assert unpack([b"GZIP "], gzip.compress(b"a" * 101), 100) is None
    assert unpack([b"gzip"], gzip.compress(b"x" * 6) + gzip.compress(b"y" * 4), 10) == b"xxxxxxyyyy"
    assert unpack([b"gzip"], gzip.compress(b"x" * 6) + gzip.compress(b"y" * 6), 10) is None
    for damaged in (gzip.compress(b"x")[:-4], gzip.compress(b"x") + b"rest"):
        assert unpack([b"gzip"], damaged, 100) is None
        assert unpacked([b"gzip"], damaged) == damaged
    assert unpack([b"br"], b"x", 100) is None


TRICKS: Mapping[str, bytes] = {
    "NaN": b'{"temperature": NaN, ' + PLAIN[1:],
    "Infinity": b'{"temperature": -Infinity, ' + PLAIN[1:],
    "a lone surrogate": b'{"user": "\\ud800", ' + PLAIN[1:],
    "a surrogate in UTF-8": b'{"user": "\xed\xa0\x80", ' + PLAIN[1:],
    "a number of 4,000 digits": b'{"n": ' + b"9" * 4_000 + b", " + PLAIN[1:],
    "a byte order mark": b"\xef\xbb\xbf" + PLAIN,
    "UTF-16": json.dumps(ASKED).encode("utf-16"),
    "UTF-32": json.dumps(ASKED).encode("utf-32-be"),
    "a key twice": b'{"messages": [{"role": "user", "content": "honest"}], ' + PLAIN[1:],
    "escaped keys": PLAIN.replace(b"messages", b"\\u006dessages"),
    "900 deep": b'{"a": ' + b"[" * 900 + b"]" * 900 + b", " + PLAIN[1:],
}


@pytest.mark.parametrize("name", TRICKS)
def test_what_python_s_json_reads_the_guard_reads(demo: Scanned, name: str) -> None:
    assert json.loads(TRICKS[name])["messages"] == ASKED["messages"]
    seen: list[Any] = []
    guard = Guard(demo.snapshot)
    families = guard.sight._prompt.families

    def noted(text: str) -> list[int]:
        seen.append(text)
        return families(text)

    guard.sight._prompt.families = noted  # type: ignore[method-assign]
    decision = guard.decide(Subject(account="a", body=TRICKS[name]))
    assert seen == ["name a colour"]
    assert "body" not in decision.lacked
    assert guard.faults == 0


SLOW: Mapping[str, bytes] = {
    "a million messages": b'{"messages":[' + b"{}," * 1_000_000 + b'{"role":"user","content":"x"}]}',
    "lists in a format": b'{"response_format":[' + b"[]," * 2_000_000 + b"1]}",
    "a million keys": b"{" + b",".join(b'"%d":1' % i for i in range(700_000)) + b"}",
    "texts": b'{"messages":[' + b'"",' * 2_700_000 + b"1]}",
    "an open text": b'{"a":"' + b'\\"' * 4_000_000 + b"{" * 30_000,
    "depth": b'{"a":' + b"[" * 8_000_000,
    "a long number": b'{"a":' + b"9" * 8_000_000 + b"}",
}


@pytest.mark.parametrize("name", SLOW)
def test_no_body_holds_up_the_others(demo: Scanned, name: str) -> None:
    guard = Guard(demo.snapshot)
    begin = time.process_time()
    decision = guard.decide(Subject(account="a", body=SLOW[name]))
    # Far more than it takes, and far less than the 6 to 20 s that such bodies took.
    assert time.process_time() - begin < 2.5
    assert "body" in decision.lacked
    assert guard.faults == 0


def test_code_in_a_prompt_is_no_structure() -> None:
    text = 'f(a, {"b": [1, 2]}) \\ "' * MOST_PARTS
    assert not unwieldy(json.dumps({"messages": [{"role": "user", "content": text}]}).encode())
    assert unwieldy(json.dumps([{}] * MOST_PARTS).encode())


def test_a_guardrail_request_of_many_messages_still_names_its_account() -> None:
    asked = {
        "request_data": {"user_api_key_user_id": "acct-7"}, "texts": ["first", "last"],
        "structured_messages": [{}] * MOST_PARTS,
    }  # fmt: skip
    subject = litellm_subject(json.dumps(asked).encode(), WHO)
    assert (subject.account, subject.prompt, subject.body) == ("acct-7", "last", None)
