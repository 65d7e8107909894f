"""TAXII 2.1 push and pull against a real server, as a person runs them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillwatch.evidence.sharing.stix import stix
from stillwatch.evidence.sharing.taxii import authorization, pull, push, read_bundle, without_definitions
from stillwatch.evidence.sharing.wire import Wire
from stillwatch.schema.errors import InputError, OutputError
from tests.evidence.sharing.kit import record, run
from tests.servers.taxii_server import COLLECTION, SHUT, Taxii, medallion

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taxii]:
    with medallion(tmp_path_factory.mktemp("medallion"), page=3) as found:
        yield found


@pytest.fixture
def wire(server: Taxii) -> Wire:
    return Wire(server.root, auth=authorization(server.auth), sleep=lambda _: None)


def _bundle(path: Path, numbers: range) -> Path:
    objects = [
        {
            "type": "identity", "spec_version": "2.1", "id": f"identity--00000000-0000-4000-8000-{n:012d}",
            "created": "2026-01-01T00:00:00.000Z", "modified": "2026-01-01T00:00:00.000Z", "name": f"Größe {n}",
        }
        for n in numbers
    ]  # fmt: skip
    path.write_text(json.dumps({"type": "bundle", "id": "bundle--1", "objects": objects}))
    return path


def test_what_is_pushed_is_pulled_page_by_page_and_the_next_pull_brings_the_rest(
    server: Taxii, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = ["--server", server.root, "--collection", COLLECTION, "--auth-file", str(server.auth)]
    first = _bundle(tmp_path / "first.json", range(8))
    assert run(capsys, "share", "push", first, *there) == f"8 objects are in the collection {COLLECTION}\n"
    out = tmp_path / "pulled.json"
    said = run(capsys, "share", "pull", *there, "--out", out)
    pulled = json.loads(out.read_bytes())
    assert pulled["objects"] == json.loads(first.read_bytes())["objects"]
    assert said.startswith(f"{out}: 8 objects, as they came\nThe next time: --since 20")
    since = said.split("--since ")[1].strip()
    assert (
        run(capsys, "share", "pull", *there, "--out", out, "--since", since)
        == "Nothing new: no file was written.\n"
    )
    run(capsys, "share", "push", _bundle(tmp_path / "more.json", range(8, 10)), *there)
    run(capsys, "share", "pull", *there, "--out", out, "--since", since)
    assert [o["name"] for o in json.loads(out.read_bytes())["objects"]] == ["Größe 8", "Größe 9"]


def test_the_same_objects_are_the_same_bytes(server: Taxii, wire: Wire) -> None:
    assert pull(wire, server.root, COLLECTION) == pull(wire, server.root, COLLECTION)


def test_a_campaign_comes_back_as_it_was_written(server: Taxii, wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "campaign.json"
    path.write_bytes(stix(record()))
    objects = without_definitions(read_bundle(path))
    push(objects, wire, server.root, COLLECTION)
    back = {o["id"]: o for o in json.loads(pull(wire, server.root, COLLECTION).bundle)["objects"]}
    assert len(objects) > 15
    for sent in objects:
        assert back[sent["id"]] == sent


def test_without_the_right_password_or_place_nothing_happens(
    server: Taxii, wire: Wire, tmp_path: Path
) -> None:
    objects = read_bundle(_bundle(tmp_path / "one.json", range(50, 51)))
    with pytest.raises(InputError, match="refuses us"):
        push(objects, Wire(server.root), server.root, COLLECTION)
    with pytest.raises(InputError, match="no such API root or collection"):
        pull(wire, server.root, "nothing-here")
    with pytest.raises(OutputError, match="not for writing"):
        push(objects, wire, server.root, SHUT)
    with pytest.raises(InputError, match=r"not TAXII|no such"):
        pull(wire, server.root.replace("api1", "elsewhere"), COLLECTION)
