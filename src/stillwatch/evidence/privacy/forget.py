"""One account is taken out of everything that was kept: results, tables, a service's partitions and owners.

Each folder is replaced in one step: a process that is killed leaves it as it was, or without the account. Run again,
it goes on. The transparency log holds digests and pseudonyms only: it stays as it is, verifies as before, and is told
which folder has another digest now, and under which pseudonym.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.evidence.privacy.places import Place, places_in, plain
from stillwatch.evidence.privacy.rewrite import results_without, tables_without
from stillwatch.evidence.privacy.search import mentions
from stillwatch.schema.errors import ResultError, UsageError, Where
from stillwatch.schema.journal import Journal, tell_all
from stillwatch.store import appeals
from stillwatch.store.chain import head_of
from stillwatch.store.events import of_erasures
from stillwatch.store.files import write_whole
from stillwatch.store.partitions import Partitions
from stillwatch.store.swap import restore
from stillwatch.store.without import is_of, rows_of

OWNERS = "owners.parquet"
"""What `watch` gives a scan of the logs' own words about owners; beside its partitions."""
_LEFT = ("-replaced", "-replacing")


@dataclass(frozen=True, slots=True)
class Held:
    """Where an account is."""

    place: Place
    rows: int
    """Rows of tables that are the account's."""
    elsewhere: tuple[Path, ...]
    """Files that mention it besides, which `forget` does not rewrite."""


def look(roots: Sequence[Path], account: str) -> list[Held]:
    """Every place that holds the account. Changes nothing. ResultError where something cannot be read."""
    _checked(account)
    found = []
    for place in _all(roots):
        rows = sum(_rows(path, account) for path in _tables(place))
        others = tuple(
            path for path in _files(place) if not _rewritten(path, place) and mentions(path, account)
        )
        if rows or others:
            found.append(Held(place, rows, others))
    return found


def forget(
    roots: Sequence[Path], account: str, subject: str | None = None, journal: Journal | None = None
) -> list[Place]:
    """Take the account out; returns the places that were rewritten. Durable on return.

    `subject`: its pseudonym for the journal. UsageError where a service uses the partitions; ResultError where
    something cannot be read, or, after all else is done, names the files that still mention the account.
    """
    _checked(account)
    for root in plain(roots):
        tidy(root)
    changed = []
    for place in _all(roots):
        if _forgotten(place, account, subject, journal):
            changed.append(place)
        if journal is not None and place.kind in ("results", "tables"):
            # Also what an earlier run did and could not tell.
            tell_all(journal, of_erasures(place.path))
    left = [path for place in _all(roots) for path in _files(place) if mentions(path, account)]
    if left:
        names = ", ".join(str(path) for path in left[:5]) + (
            f" and {len(left) - 5} more" if len(left) > 5 else ""
        )
        raise ResultError(
            f"the account is still mentioned in {names}",
            hint="these are not rows of its own (texts of others, logs, notes): look at them by hand",
        )
    return changed


def tidy(root: Path) -> None:
    """Remove what an earlier run left beside or in the folder when it was killed."""
    restore(root)
    if not root.is_dir() or root.is_symlink():
        return
    for path in sorted(root.iterdir()):
        if not path.is_dir() or path.is_symlink():
            continue
        end = next((end for end in _LEFT if path.name.startswith(".") and path.name.endswith(end)), None)
        if end is not None:
            restore(root / path.name.removesuffix(end)[1:])
        else:
            tidy(path)


def _checked(account: str) -> None:
    if not account or len(account) > 1024:
        raise UsageError("this is no account id")


def _all(roots: Sequence[Path]) -> Iterator[Place]:
    for root in plain(roots):
        yield from places_in(root)


def _forgotten(place: Place, account: str, subject: str | None, journal: Journal | None) -> bool:
    if place.kind == "results":
        return results_without(place.path, account, subject)
    if place.kind == "tables":
        return tables_without(place.path, account, subject)
    if place.kind == "partitions":
        partitions = Partitions(place.path, journal)
        try:
            held = partitions.holding(account)
            if held and journal is not None:
                digest = hashlib.sha256("\n".join(sorted(part.digest for part in held)).encode()).hexdigest()
                journal.append("forgotten", {"what": "partitions", "was": digest, "subject": subject})
            return partitions.forget(account)
        finally:
            partitions.close()
    if appeals.is_appeals(place.path):
        rows = appeals.read_appeals(place.path)
        if journal is not None and any(is_of(row.account, account) for row in rows):
            head = head_of(rows)
            journal.append("forgotten", {"what": "appeals", "was": head, "subject": subject})
        return appeals.forget(place.path, account) > 0
    if _is_owners(place.path) and _rows(place.path, account):
        table = pq.ParquetFile(place.path).read()
        sink = io.BytesIO()
        pq.write_table(table.filter(pa.array(~rows_of(table, account))), sink, compression="zstd")
        write_whole(place.path, [sink.getbuffer()], "the owners")
        return True
    return False


def _is_owners(path: Path) -> bool:
    return path.name == OWNERS and (path.parent / "partitions").is_dir()


def _files(place: Place) -> list[Path]:
    return (
        [place.path] if place.kind == "other" else [p for p in sorted(place.path.rglob("*")) if p.is_file()]
    )


def _tables(place: Place) -> list[Path]:
    if place.kind == "other":
        return [place.path] if _is_owners(place.path) else []
    return [path for path in _files(place) if path.suffix == ".parquet"]


def _rewritten(path: Path, place: Place) -> bool:
    """Whether `forget` writes this file anew, so that it needs no search before."""
    return path in _tables(place) or (path.name in ("report.html", "refused.jsonl") and place.kind != "other")


def _rows(path: Path, account: str) -> int:
    try:
        with pq.ParquetFile(path) as file:
            if "account_id" not in file.schema_arrow.names:
                return 0
            return sum(
                int(rows_of(b, account).sum()) for b in file.iter_batches(65_536, columns=["account_id"])
            )
    except (OSError, pa.ArrowException) as error:
        raise ResultError("a table is damaged", where=Where(str(path))) from error
