"""Partitions: nothing that was kept is lost or doubled, wherever the process ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.schema.errors import InputError, OutputError, UsageError
from stillwatch.schema.refusals import Refusal
from stillwatch.schema.times import DAY_US
from stillwatch.store import partitions
from stillwatch.store.partitions import Partitions

NOON = 1_790_000_000_000_000 // DAY_US * DAY_US + DAY_US // 2


def rows(*ids: str, us: int = NOON) -> pa.RecordBatch:
    """Exchanges of one moment."""
    n = len(ids)
    return pa.RecordBatch.from_pydict(
        {
            "exchange_id": list(ids),
            "ts": pa.array([us] * n, pa.timestamp("us", tz="UTC")),
            "account_id": ["a"] * n,
            "model": ["m"] * n,
            "prompt": ["never kept"] * n,
        }
    )


class Told:
    """A journal that is a list."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Mapping[str, Any]]] = []

    def append(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Keep one event."""
        self.events.append((kind, payload))

    def files(self) -> set[str]:
        """Files that it was told of."""
        return {payload["file"] for _, payload in self.events}


def kept(store: Partitions) -> Counter[str]:
    """Ids in day files and segments."""
    files = [store.folder / part.file for part in store.manifest.parts]
    files += sorted(store.folder.glob("segments/*.parquet"))
    return Counter(
        name for path in files for name in pq.ParquetFile(path).read(["exchange_id"]).column(0).to_pylist()
    )


def test_rows_go_to_the_day_of_their_time_and_a_day_that_is_over_has_one_file(tmp_path: Path) -> None:
    store = Partitions(tmp_path / "p")
    for number in range(3):
        store.commit("edge", [rows(f"old{number}", us=NOON - DAY_US), rows(f"new{number}")], {"at": number})
        store.compact()
    days = Counter(part.day for part in store.manifest.parts)
    assert sorted(days.values()) == [1, 3]
    assert min(days) in {day for day, count in days.items() if count == 1}
    # The next day comes: the one before gets its one file, in the order of time.
    store.commit("edge", [rows("later", us=NOON + DAY_US)], {"at": 9})
    store.compact()
    assert [part.rows for part in store.manifest.parts] == [3, 3, 1]
    assert set(kept(store).values()) == {1}
    assert all("prompt" not in pq.read_schema(store.folder / p.file).names for p in store.manifest.parts)
    assert store.position("edge") == {"at": 9}
    store.close()
    again = Partitions(tmp_path / "p")
    assert again.position("edge") == {"at": 9}
    assert again.position("other") is None
    again.close()


def test_the_same_rows_in_other_pieces_give_the_same_files(tmp_path: Path) -> None:
    digests = []
    for name, pieces in (("one", [["a", "b", "c"]]), ("three", [["c"], ["a"], ["b", "a"]])):
        store = Partitions(tmp_path / name)
        for piece in pieces:
            store.commit("edge", [rows(*piece)], None)
            store.compact()
        store.commit("edge", [rows("z", us=NOON + DAY_US)], None)
        store.compact()
        digests.append([part.digest for part in store.manifest.parts])
        assert store.manifest.inputs["edge"].doubled == (name == "three")
        store.close()
    assert digests[0] == digests[1]


def test_wherever_it_ends_nothing_is_lost_or_doubled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    left = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **how: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return real(*args, **how)

        return call

    points = 0
    for steps in range(200):
        folder = tmp_path / str(steps)
        told = Told()
        store = Partitions(folder, told)
        acknowledged: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(partitions, "write_whole", counted(partitions.write_whole))
            patch.setattr(partitions, "sync_folder", counted(partitions.sync_folder))
            patch.setattr(Told, "append", counted(Told.append))
            patch.setattr(Path, "unlink", counted(Path.unlink))
            left = steps
            try:
                for round_ in range(3):
                    ids = [f"{round_}-{i}" for i in range(3)]
                    day = NOON - (round_ % 2) * DAY_US
                    refused = [Refusal("edge", 4, None, "ts", "no time")]
                    owners = {("a", "firm", None): 1}
                    store.commit("edge", [rows(*ids, us=day)], round_, refusals=refused, owners=owners)
                    acknowledged += ids
                    store.compact()
                whole = True
            except Killed:
                whole = False
        store.close()
        again = Partitions(folder, told)
        assert {part.file for part in again.manifest.parts} <= told.files()
        position = again.position("edge")
        # What the reader was not told of is read again, from the position that stands.
        for round_ in range(0 if position is None else position + 1, 3):
            again.commit(
                "edge",
                [rows(*(f"{round_}-{i}" for i in range(3)), us=NOON - (round_ % 2) * DAY_US)],
                round_,
                refusals=[Refusal("edge", 4, None, "ts", "no time")],
                owners={("a", "firm", None): 1},
            )
        again.compact()
        assert {part.file for part in again.manifest.parts} <= told.files()
        assert kept(again) == Counter([f"{r}-{i}" for r in range(3) for i in range(3)])
        assert set(acknowledged) <= set(kept(again))
        listed = [line for path in folder.glob("refused/*.jsonl") for line in path.read_text().splitlines()]
        assert len(listed) == again.manifest.inputs["edge"].refused == 3
        owners_table = again.accounts()
        assert owners_table is not None
        assert owners_table.column("entity_id").to_pylist() == ["firm"]
        assert pq.ParquetFile(folder / str(again.manifest.owners)).read().column("count").to_pylist() == [3]
        again.close()
        points += 1
        if whole:
            break
    assert points > 20


def test_what_is_older_than_is_kept_goes_and_is_told(tmp_path: Path) -> None:
    told = Told()
    store = Partitions(tmp_path / "p", told)
    for age in (0, 3, 40):
        store.commit("edge", [rows(f"{age}", us=NOON - age * DAY_US)], None)
    store.compact()
    assert [part.rows for part in store.window(4)] == [1, 1]
    assert [part.rows for part in store.drop(30)] == [1]
    assert len(list(store.folder.glob("days/*/*"))) == 2
    assert [kind for kind, _ in told.events] == ["partition"] * 3 + ["partition_deleted"]
    assert told.events[-1][1]["sha256"] in {payload["sha256"] for _, payload in told.events[:3]}
    store.close()
    # What was told is not told again.
    Partitions(tmp_path / "p", told).close()
    assert len(told.events) == 4
    assert b"unannounced" not in (tmp_path / "p" / "manifest.json").read_bytes()


@pytest.mark.parametrize("kind", ["partition", "partition_deleted"])
@pytest.mark.parametrize("heard", [0, 1])
def test_what_the_manifest_did_is_told_although_the_process_ended_before(
    tmp_path: Path, kind: str, heard: int
) -> None:
    class Killed(BaseException):
        pass

    class Ends(Told):
        """Hears so many events of one kind, then the process ends."""

        left = heard

        def append(self, kind_: str, payload: Mapping[str, Any]) -> None:
            if kind_ == kind and self.left == 0:
                raise Killed
            self.left -= kind_ == kind
            super().append(kind_, payload)

    ends, after = Ends(), Told()
    store = Partitions(tmp_path / "p", ends)
    for age in (0, 40, 41):
        store.commit("edge", [rows(f"{age}", us=NOON - age * DAY_US)], None)
    if kind == "partition_deleted":
        store.compact()
    with pytest.raises(Killed):
        store.compact() if kind == "partition" else store.drop(30)
    store.close()
    assert len(list(tmp_path.glob("p/segments/*.parquet"))) == (3 if kind == "partition" else 0)
    # Without a journal nobody is told, and what waits goes on waiting.
    store = Partitions(tmp_path / "p")
    store.commit("edge", [rows("more")], None)
    store.compact()
    store.close()
    store = Partitions(tmp_path / "p", after)
    wanted = {"partition": 3, "partition_deleted": 2}[kind]
    assert [name for name, _ in after.events] == [kind] * wanted
    assert len(ends.files() | after.files()) == 3
    # One that came before it ended comes again, word for word: its file tells.
    assert [event for event in ends.events if event[0] == kind] == after.events[:heard]
    store.close()
    Partitions(tmp_path / "p", after).close()
    assert len(after.events) == wanted


def test_a_journal_that_cannot_be_written_is_told_later(tmp_path: Path) -> None:
    class Full(Told):
        def append(self, kind: str, payload: Mapping[str, Any]) -> None:
            if not self.events:
                self.events.append(("full", {}))
                raise OutputError("the journal cannot be written")
            super().append(kind, payload)

    full = Full()
    store = Partitions(tmp_path / "p", full)
    store.commit("edge", [rows("1")], None)
    with pytest.raises(OutputError):
        store.compact()
    store.commit("edge", [rows("2")], None)
    store.compact()
    assert [kind for kind, _ in full.events] == ["full", "partition", "partition"]
    assert len({payload["file"] for _, payload in full.events[1:]}) == 2
    store.close()


def test_a_few_rows_with_a_wrong_date_neither_empty_the_window_nor_delete_the_others(tmp_path: Path) -> None:
    store = Partitions(tmp_path / "p")
    store.commit("edge", [rows(*(str(i) for i in range(300)))], None)
    store.commit("edge", [rows("astray", us=NOON + 90 * DAY_US)], None)
    store.compact()
    assert [part.rows for part in store.window(14)] == [300]
    assert store.drop(30) == []
    # When more come from then, that is where the log has gone on.
    store.commit("edge", [rows(*(f"n{i}" for i in range(10)), us=NOON + 90 * DAY_US)], None)
    store.compact()
    assert sum(part.rows for part in store.window(14)) == 11
    assert [part.rows for part in store.drop(30)] == [300]
    store.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    store = Partitions(tmp_path / "p")
    with pytest.raises(UsageError, match="another process"):
        Partitions(tmp_path / "p")
    store.close()


def test_owners_that_contradict_each_other_are_settled_as_in_a_scan(tmp_path: Path) -> None:
    store = Partitions(tmp_path / "p")
    said = {("a", "x", None): 2, ("a", "y", None): 2, ("a", None, "mail.example"): 1, ("b", None, None): 1}
    store.commit("edge", [rows("1")], None, owners=said)
    store.compact()
    found = store.accounts()
    assert found is not None
    assert found.select(["account_id", "entity_id", "email_domain"]).to_pylist() == [
        {"account_id": "a", "entity_id": "x", "email_domain": "mail.example"},
        {"account_id": "b", "entity_id": None, "email_domain": None},
    ]
    store.close()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("manifest.json", b"{", "manifest of the partitions is damaged"),
        ("manifest.json", b'{"version": 9}', "have version 9"),
        ("segments/edge-000000000007.parquet", b"PAR1", "rows that were kept cannot be read"),
    ],
)
def test_damage_is_told_and_nothing_is_deleted(tmp_path: Path, file: str, content: bytes, words: str) -> None:
    Partitions(tmp_path / "p").close()
    (tmp_path / "p" / file).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        Partitions(tmp_path / "p")
    assert caught.value.hint
    assert (tmp_path / "p" / file).read_bytes() == content
    # The folder is free again.
    (tmp_path / "p" / file).unlink()
    Partitions(tmp_path / "p").close()


def test_without_its_manifest_a_folder_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    store = Partitions(tmp_path / "p")
    store.commit("edge", [rows("1")], None)
    store.compact()
    store.close()
    (tmp_path / "p" / "manifest.json").unlink()
    with pytest.raises(InputError, match="manifest of the partitions is missing"):
        Partitions(tmp_path / "p")
    assert len(list((tmp_path / "p").glob("days/*/*.parquet"))) == 1


def test_a_full_disk_keeps_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Partitions(tmp_path / "p")
    monkeypatch.setattr(
        "os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OutputError, match=r"full|space"):
        store.commit("edge", [rows("1")], {"at": 1})
    monkeypatch.undo()
    assert store.position("edge") is None
    assert kept(store) == Counter()
    store.commit("edge", [rows("1")], {"at": 1})
    assert kept(store) == Counter(["1"])
    store.close()


def test_names_of_inputs_are_names_of_files(tmp_path: Path) -> None:
    store = Partitions(tmp_path / "p")
    for name in ("", "../up", "A", "a" * 65, "a/b", "a.b"):
        with pytest.raises(UsageError, match="is no name"):
            store.commit(name, [], None)
    store.close()
