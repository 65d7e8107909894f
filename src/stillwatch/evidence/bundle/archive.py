"""The archive: the same files give the same bytes, and any program that reads zip can open it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from stillwatch.evidence.bundle.verify import (
    MOST_ALL,
    MOST_FILE,
    MOST_FILES,
    MOST_STATEMENT,
    Broken,
    unpack,
    unpacked,
)
from stillwatch.schema.errors import InputError, OutputError, Where
from stillwatch.store.files import write_whole

DATE = (1980, 1, 1, 0, 0, 0)
"""The first that the format knows. When the bundle was made, the statement says."""

SMALLER = "scan a shorter span of the log, commit that scan, and build its bundle: each span has its own"


def pack(files: Mapping[str, bytes]) -> bytes:
    """A zip of `files`: sorted names, one date, one mode. OutputError where they are larger than verifiers take."""
    fits(files)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, DATE)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])
    data = out.getvalue()
    try:
        # What every verifier does first: nothing is written that it would refuse.
        if unpacked(data) == files:
            return data
        raise Broken("it does not unpack to what was packed")
    except Broken as error:
        raise OutputError(
            f"verifiers would refuse the archive, so it was not written: {error}", hint=SMALLER
        ) from error


def fits(files: Mapping[str, bytes]) -> None:
    """OutputError where files are more, or larger, than verifiers take: which, by how much, and what to do."""
    for name, data in files.items():
        most = MOST_STATEMENT if name == "statement.dsse.json" else MOST_FILE
        if len(data) > most:
            raise _too_large(name, len(data), most)
    whole = sum(map(len, files.values()))
    if whole > MOST_ALL:
        name = max(files, key=lambda name: len(files[name]))
        raise _too_large(f"the files together ({name} is the largest)", whole, MOST_ALL)
    if len(files) > MOST_FILES:
        raise OutputError(f"there are {len(files)} files; a bundle holds at most {MOST_FILES}")


def _too_large(what: str, size: int, most: int) -> OutputError:
    return OutputError(
        f"{what}: {size / (1 << 20):.1f} MiB, and verifiers take {most >> 20} MiB: the campaign is too large for one "
        "bundle",
        hint=SMALLER,
    )


def write(path: Path, files: Mapping[str, bytes]) -> None:
    """Write the archive in one step, mode 0600. OutputError if something is there, or it cannot be written."""
    refuse_existing(path)
    write_whole(path, [pack(files)], "the bundle")


def refuse_existing(path: Path) -> None:
    """OutputError if something is there: evidence is never replaced."""
    if path.exists():
        raise OutputError("there is a file already", where=Where(str(path)), hint="name another file")


def read(path: Path) -> dict[str, bytes]:
    """The files of a bundle. InputError where the archive is none, or a hostile one."""
    try:
        return unpack(path)
    except Broken as error:
        raise InputError(str(error), where=Where(path.name)) from error
    except OSError as error:
        raise InputError(f"the bundle cannot be read: {error.strerror}", where=Where(path.name)) from error
