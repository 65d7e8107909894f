"""Coverage-guided fuzzing of partners' feeds (atheris): any bytes end in indicators, refusals or a StillwatchError.

    make fuzz        # or: python -m scripts.fuzz_intel [libFuzzer options]

The first byte picks the reader: a plain feed, a STIX bundle, the envelope around them, or the store.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["stillwatch.evidence.intel", "stillwatch.schema.intel", "stillwatch.store.intel"]
):
    from stillwatch.evidence.intel.envelope import seal, unseal, written_key
    from stillwatch.evidence.intel.feeds import read_feed
    from stillwatch.schema.errors import StillwatchError
    from stillwatch.schema.intel import FEED_TYPE, STIX_TYPE
    from stillwatch.store.intel import IntelStore, weighed
    from tests.evidence.intel.conftest import ACME, AT, Side, plain_feed, plain_stix

FOLDER = Path(tempfile.mkdtemp(prefix="stillwatch-fuzz-"))


def one(data: bytes) -> None:
    """Read one input in one way."""
    if len(data) < 2:
        return
    way, body = data[0] % 4, data[1:]
    try:
        if way < 2:
            reading = read_feed((FEED_TYPE, STIX_TYPE)[way], body, "feed", "amber")
            plain = json.loads(body)
            items = plain["indicators"] if way == 0 else plain["objects"]
            assert len(reading.indicators) + len(reading.refused) + reading.unused == len(items)
        elif way == 2:
            unseal(body, [written_key(ACME.public)], "feed")
        else:
            path = FOLDER / "store"
            path.write_bytes(body)
            weighed(IntelStore(path).read(), AT)
    except StillwatchError:
        return


def seeds() -> list[bytes]:
    """Inputs that every reader takes."""
    side = Side.made(FOLDER / "side")
    feed, stix = plain_feed(side), plain_stix(side)
    side.take(side.feed(side.indicator()))
    store = side.store.path.read_bytes()
    return [b"\0" + feed, b"\1" + stix, b"\2" + seal(feed, FEED_TYPE, ACME), b"\3" + store]


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if all(argument.startswith("-") for argument in arguments):
        corpus = FOLDER / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds()):
            (corpus / f"{number}").write_bytes(seed)
        arguments.append(str(corpus))
    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()
