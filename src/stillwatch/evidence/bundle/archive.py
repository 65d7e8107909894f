"""The archive: the same files give the same bytes, and any program that reads zip can open it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from stillwatch.evidence.bundle.verify import MOST_ARCHIVE, MOST_FILE, Broken, unpack
from stillwatch.schema.errors import InputError, OutputError, Where
from stillwatch.store.files import write_whole

DATE = (1980, 1, 1, 0, 0, 0)
"""The first that the format knows. When the bundle was made, the statement says."""


def pack(files: Mapping[str, bytes]) -> bytes:
    """A zip of `files`: sorted names, one date, one mode. OutputError where they are larger than verifiers take."""
    for name, data in files.items():
        if len(data) > MOST_FILE:
            raise OutputError(
                f"{name} has more than {MOST_FILE >> 20} MiB: the campaign is too large for one bundle"
            )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, DATE)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])
    if len(out.getbuffer()) > MOST_ARCHIVE:
        raise OutputError(
            f"the archive has more than {MOST_ARCHIVE >> 20} MiB: the campaign is too large for one bundle"
        )
    return out.getvalue()


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
