"""The verifier: what it finds in bundles that were tampered with or forged, and that it needs nothing of ours."""

from __future__ import annotations

import base64
import json
import random
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from stillwatch.evidence.bundle import archive
from stillwatch.evidence.bundle.build import verifier
from stillwatch.evidence.bundle.redact import redacted
from stillwatch.evidence.bundle.statement import signer_name
from stillwatch.evidence.bundle.verify import STEPS, Broken, check, unpack
from stillwatch.evidence.keys import vkey
from stillwatch.evidence.merkle import leaf_hash
from stillwatch.schema.errors import UsageError
from tests.evidence.bundle.conftest import SIGNER, STRANGER, VKEY, Files, Made, changed, packed, signed_again
from tests.evidence.conftest import KEY, ORIGIN

Change = Callable[[Any], None]


def broken(files: Files, **how: Any) -> str:
    with pytest.raises(Broken) as error:
        check(files, **how)
    return str(error.value)


def test_what_was_built_holds(made: Made) -> None:
    for files in made.files.values():
        shown, left = check(files, signer_name(SIGNER), VKEY, (made.noted,))
        assert tuple(shown) == STEPS
        assert not any("--" in text for text in left)
    shown, left = check(made.first)
    assert "2 decisions" in shown["decisions"]
    assert "goes on from 1 earlier checkpoints" in shown["log"]
    assert sum("--" in text for text in left) == 3


def test_keys_and_checkpoints_that_the_reader_knows(made: Made) -> None:
    files = made.small
    assert "another key signed" in broken(files, signer=signer_name(STRANGER))
    assert "another key signs the log" in broken(files, vkey=vkey(ORIGIN, STRANGER.public))
    assert "no key" in broken(files, signer="nonsense")
    assert "no key" in broken(files, vkey="nonsense")
    forged = signed_again(files, STRANGER, lambda said: said.update(signer=signer_name(STRANGER)))
    check(forged)
    assert "another key signed" in broken(forged, signer=signer_name(SIGNER))
    assert "signature does not hold" in broken(
        signed_again(files, STRANGER) | {"statement.dsse.json": _renamed(signed_again(files, STRANGER))}
    )
    size, root = 2, base64.b64encode(b"\1" * 32).decode()
    body = f"{ORIGIN}\n{size}\n{root}\n"
    raw = bytes.fromhex(VKEY.split("+")[1]) + KEY.sign(body.encode())
    other = f"{body}\n\u2014 {ORIGIN} {base64.b64encode(raw).decode()}\n"
    assert "the log was rewritten" in broken(files, noted=(other,))
    assert "not signed by the log's key" in broken(
        files, noted=(other.replace(root, root.replace("A", "B")),)
    )
    later = other.replace("\n2\n", "\n3\n")
    assert "checkpoint" in broken(files, noted=(later,))


def _renamed(files: Files) -> bytes:
    envelope = json.loads(files["statement.dsse.json"])
    envelope["signatures"][0]["keyid"] = signer_name(SIGNER)
    return json.dumps(envelope).encode()


def test_a_byte_of_any_file_that_is_changed_is_found(made: Made) -> None:
    rng = random.Random(1)
    for name, data in made.small.items():
        for at in {0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(4))}:
            flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            with pytest.raises(Broken):
                check(made.small | {name: flipped})
        with pytest.raises(Broken):
            check({other: part for other, part in made.small.items() if other != name})
    with pytest.raises(Broken, match="other files than the signed ones"):
        check(made.small | {"more.txt": b"x"})


@pytest.mark.parametrize("step", [97, pytest.param(9, marks=pytest.mark.slow)])
def test_a_byte_of_the_archive_that_is_changed_is_found_or_changes_nothing(
    made: Made, tmp_path: Path, step: int
) -> None:
    data = archive.pack(made.small)
    path, rng = tmp_path / "b.zip", random.Random(2)
    central = data.index(b"PK\1\2")
    harmless = 0
    for at in [
        *range(0, 40, step // 9),
        *range(central, len(data), step),
        *(rng.randrange(len(data)) for _ in range(360 // step)),
    ]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x11]) + data[at + 1 :])
        try:
            files = unpack(path)
        except Broken:
            continue
        # Numbers of versions, which no reader obeys.
        assert files == made.small
        harmless += 1
    assert harmless < 60


def test_rows_that_are_swapped_left_out_or_doubled_are_found(made: Made) -> None:
    lines = made.small["rows.jsonl"].splitlines(keepends=True)
    for wrong in (
        [lines[1], lines[0], *lines[2:]],
        lines[1:],
        [*lines, lines[0]],
        [*lines[:-1], lines[-1][:-1]],
    ):
        assert broken(made.small | {"rows.jsonl": b"".join(wrong)}).startswith("rows:")


def at(*steps: Any) -> Callable[[Any], Any]:
    def inner(plain: Any) -> Any:
        for step in steps:
            plain = plain[step]
        return plain

    return inner


def more(where: Callable[[Any], Any], name: Any, by: float = 1) -> Change:
    """A number that is a little larger."""

    def change(plain: Any) -> None:
        where(plain)[name] += by

    return change


def cell(table: str, column: str, by: float, row: int = 0) -> Change:
    def change(plain: Any) -> None:
        found = plain["tables"][table]
        found["rows"][row][found["columns"].index(column)] += by

    return change


def shared_key(plain: Any) -> Any:
    """A key that tells members from others."""
    return next(key for key in plain["views"]["FORM"]["keys"] if sum(key[3]) > 10)


LIES: list[tuple[str, Change, str]] = [
    ("counts.json", more(at("views", "FORM"), "rows", 9), "bits"),
    ("counts.json", more(at("views", "LINK", "own"), 1, 3), "bits"),
    ("counts.json", more(shared_key, 2, 40), "bits"),
    ("counts.json", more(at("accounts", 0), 2, 0.5), "bits"),
    ("counts.json", lambda plain: plain["accounts"][0][3].pop(), "bits"),
    ("counts.json", lambda plain: plain["accounts"].pop(), "bits"),
    ("accounts.json", more(at("members", 0), "form", 0.01), "bits"),
    ("accounts.json", more(at("members", 0), "e_bits", 0.01), "bits"),
    ("accounts.json", more(at("members", 0), "exchanges"), "members"),
    ("accounts.json", lambda plain: plain["members"].pop(), "members"),
    ("finding.json", more(at("group"), "accounts"), "finding"),
    ("finding.json", more(at("group", "claims", 0), "p", 1e-9), "finding"),
    ("finding.json", more(at("run"), "seed"), "finding"),
    ("finding.json", lambda plain: plain["run"]["inputs"][0].update(sha256="0" * 64), "finding"),
    ("finding.json", lambda plain: plain["families"].clear(), "rows"),
    ("log.json", more(at("entries", 1), "index"), "log"),
    ("log.json", lambda plain: plain["entries"].pop(), "finding"),
    ("log.json", lambda plain: plain["growth"][0]["path"].reverse(), "log"),
    ("vectors.json", cell("proof_tests", "p", 1e-6), "chances"),
    ("vectors.json", cell("proof_tests", "q", 1e-6), "chances"),
    ("vectors.json", lambda plain: plain["tables"]["proof_tests"]["rows"].pop(), "chances"),
    ("vectors.json", lambda plain: plain["tables"]["proof_nulls"]["rows"].pop(), "chances"),
    ("vectors.json", cell("proof_nulls", "value", 1e5), "chances"),
    ("vectors.json", cell("proof_views", "statistic", -50), "chances"),
    ("vectors.json", cell("proof_views", "p", 0.01), "chances"),
    ("vectors.json", cell("proof_direct", "observed", 1), "chances"),
    ("vectors.json", cell("proof_scores", "evasion", 0.1), "chances"),
    ("vectors.json", cell("proof_scores", "score", 30), "chances"),
    ("chapters.json", more(at("chapters", 0, "statements", 0, "numbers", 0), "value"), "chapters"),
    ("chapters.json", lambda plain: plain["chapters"][3]["statements"][-1].update(text="No."), "chapters"),
]


@pytest.mark.parametrize(("name", "lie", "step"), LIES)
def test_a_number_that_was_changed_and_signed_again_is_found(
    made: Made, name: str, lie: Change, step: str
) -> None:
    """The signer itself cannot say another number than the one that follows."""
    assert broken(changed(made.small, name, lie)).startswith(f"{step}:")


def test_decisions_are_the_committed_ones(made: Made) -> None:
    def other(plain: Any) -> None:
        plain["decisions"][0] = plain["decisions"][0].replace('"block"', '"throttle"')

    assert broken(changed(made.first, "log.json", other)).startswith("decisions:")
    assert "does not show" in broken(changed(made.first, "log.json", lambda plain: plain["decisions"].pop()))


def test_rows_can_be_taken_out(made: Made) -> None:
    count = made.small["rows.jsonl"].count(b"\n")
    less = redacted(made.small, [0, 3, 3, count - 1])
    assert "3 were taken out" in check(less)[0]["rows"]
    assert redacted(less, [3]) == less
    everything = redacted(less, range(count))
    assert f"0 rows are leaves of the signed tree; {count} were taken out" in check(everything)[0]["rows"]
    gone = made.small["rows.jsonl"].splitlines()[0]
    assert leaf_hash(gone).hex().encode() in less["rows.jsonl"]
    assert json.loads(gone)["salt"].encode() not in less["rows.jsonl"]
    for row in (-1, count):
        with pytest.raises(UsageError, match="there is no row"):
            redacted(made.small, [row])


def test_other_programs_read_the_statement(made: Made) -> None:
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
    from in_toto_attestation.v1.statement import Statement
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    envelope = Envelope.from_dict(json.loads(made.small["statement.dsse.json"]))
    keyid = signer_name(SIGNER)
    key = SSlibKey(keyid, "ed25519", "ed25519", {"public": SIGNER.public.hex()})
    assert list(envelope.verify([key], 1)) == [keyid]
    plain = json.loads(envelope.payload)
    subjects = [ResourceDescriptor(name=s["name"], digest=s["digest"]).pb for s in plain["subject"]]
    told = Statement(subjects, plain["predicateType"], plain["predicate"])
    told.validate()
    assert {subject["name"] for subject in plain["subject"]} == set(made.small) - {
        "rows.jsonl",
        "statement.dsse.json",
    }


def _alone(folder: Path, *args: str | Path) -> subprocess.CompletedProcess[str]:
    """verify.py in a Python that has `cryptography`, and no other package: above all not ours."""
    packages = folder / "packages"
    if not packages.exists():
        packages.mkdir()
        for name in ("cryptography", "cffi", "_cffi_backend"):
            spec = find_spec(name)
            if spec is None or spec.origin is None:
                continue
            place = Path(spec.origin)
            place = place.parent if place.name == "__init__.py" else place
            (packages / place.name).symlink_to(place)
        (folder / "verify.py").write_bytes(verifier())
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(packages)!r}); sys.argv = sys.argv[1:]\n"
        "try:\n    import stillwatch\nexcept ImportError:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "else:\n    sys.exit(9)"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(folder / "verify.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60)


def test_it_runs_where_nothing_of_ours_is(made: Made, tmp_path: Path) -> None:
    bundle = packed(made.first, tmp_path)
    (tmp_path / "noted").write_text(made.noted)
    before = sorted(tmp_path.iterdir())
    done = _alone(tmp_path, bundle, "--signer", signer_name(SIGNER), "--vkey", VKEY, "--noted", "noted")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"  holds  {step}" in done.stdout for step in STEPS)
    assert "whom you named" in done.stdout
    made_there = {path.name for path in tmp_path.iterdir()} - {path.name for path in before}
    assert made_there == {"packages", "verify.py"}
    bundle.write_bytes(archive.pack(changed(made.small, "counts.json", LIES[0][1])))
    done = _alone(tmp_path, bundle)
    assert done.returncode == 1
    assert done.stderr.startswith("DOES NOT HOLD: bits: ")
    assert done.stderr.count("\n") == 1
    assert _alone(tmp_path, tmp_path / "none").returncode == 1
    assert _alone(tmp_path).returncode == 2
    shutil.rmtree(tmp_path / "packages")
    (tmp_path / "packages").mkdir()
    done = _alone(tmp_path, bundle)
    assert (done.returncode, done.stderr) == (
        2,
        "verify.py needs the package cryptography: pip install cryptography\n",
    )


@pytest.mark.slow
def test_it_runs_in_a_fresh_environment(made: Made, tmp_path: Path) -> None:
    bundle = packed(made.first, tmp_path)
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "cryptography"], check=True, timeout=300)
    with zipped(bundle) as names:
        assert "verify.py" in names
    subprocess.run([python, "-m", "zipfile", "-e", bundle, tmp_path / "out"], check=True)
    done = subprocess.run([python, tmp_path / "out" / "verify.py", bundle], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def zipped(path: Path) -> Any:
    import contextlib
    import zipfile

    @contextlib.contextmanager
    def inner() -> Any:
        with zipfile.ZipFile(path) as found:
            yield found.namelist()

    return inner()
