"""What was taken out of a folder after it was written: one line each time, so that its first digest stays known.

The transparency log was told of the folder as it was written. After an account was taken out, its files have another
digest; `erasures.jsonl` in it says how one came from the other, and the log is told that, too. It names nobody.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal

import msgspec

from stillwatch.schema.errors import ResultError, Where
from stillwatch.schema.journal import Json

NAME = "erasures.jsonl"
MOST_BYTES = 16 << 20


class Erasure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One account less."""

    kind: Literal["results", "tables"]
    was: str
    """Digest of the folder's files before, hex."""
    now: str
    subject: str | None = None
    """Pseudonym of the account (purpose `erasure`): whoever has the key ring can tell that one was taken out."""

    @property
    def payload(self) -> dict[str, Json]:
        """As the journal has it."""
        return {"what": self.kind, "was": self.was, "now": self.now, "subject": self.subject}


def read_erasures(folder: Path) -> list[Erasure]:
    """Oldest first; none where nothing was taken out. ResultError if the file is damaged."""
    path = folder / NAME
    try:
        with path.open("rb") as handle:
            data = handle.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ResultError("the list of erasures is too long", where=Where(str(path)))
        found = [msgspec.json.decode(line, type=Erasure) for line in data.splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ResultError("the list of erasures is damaged", where=Where(str(path))) from error
    if any(later.was != earlier.now for earlier, later in pairwise(found)):
        raise ResultError("the erasures do not follow from each other", where=Where(str(path)))
    return found


def first_digest(folder: Path, now: str) -> str:
    """The digest that the folder was written with; `now` where nothing was taken out. Raises as `read_erasures`."""
    found = read_erasures(folder)
    return found[0].was if found else now
