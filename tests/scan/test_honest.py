"""Honest crowds that look like one operation for a while, and accounts that the operator has vouched for."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from stillwatch import arena
from stillwatch.scan import Scanned, scan

BEGAN_US = int(dt.datetime(2026, 6, 24, 17, tzinfo=dt.UTC).timestamp() * 1e6)
HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
PARTICIPANTS = 45


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest") / "log"
    arena.make("demo", folder, seed=3, accounts=1500, exchanges=45_000)
    return folder


def _scan(folder: Path, log: Path, exchanges: pa.Table, accounts: pa.Table) -> Scanned:
    pq.write_table(exchanges, folder / "exchanges.parquet")
    pq.write_table(accounts, folder / "accounts.parquet")
    for name in ("sanctions", "releases"):
        (folder / f"{name}.parquet").write_bytes((log / f"{name}.parquet").read_bytes())
    return scan([str(folder)])


def _with(table: pa.Table, name: str, values: list[object]) -> pa.Table:
    kind = table.schema.field(name).type
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values).cast(kind))


def _hackathon(
    log: Path, *, referral: bool = False, networks: int = 0, domain: str | None = None
) -> tuple[pa.Table, pa.Table, set[str]]:
    """People of the log who keep their payer, mail and address, but signed up in one quarter of an hour and worked
    the same three hours of three days with the organiser's starter prompt, each on a project of their own.

    With `networks` they sit behind so many address blocks of one campus, with `domain` their mail is of one firm.
    """
    exchanges, accounts = pq.read_table(log / "exchanges.parquet"), pq.read_table(log / "accounts.parquet")
    truth = pq.read_table(log / "truth" / "accounts.parquet")
    wrong = truth.filter(pc.is_in(truth["kind"], pa.array(["attack", "classroom", "gateway"])))["account_id"]
    free = accounts.filter(
        pc.and_(pc.is_null(accounts["entity_id"]), pc.invert(pc.is_in(accounts["account_id"], wrong)))
    )
    used = dict(zip(exchanges["account_id"].to_pylist(), exchanges["ip"].to_pylist(), strict=True))
    able = [name for name in free["account_id"].to_pylist() if name in used]
    rng = np.random.default_rng(0)
    people = [able[i] for i in rng.choice(len(able), PARTICIPANTS, replace=False)]
    if networks:
        used |= {name: f"203.0.{113 + i % networks}.{i + 1}" for i, name in enumerate(people)}
    words = [f"w{i}" for i in range(4000)]
    rows = []
    for name in people:
        for number in range(25):
            day = int(rng.choice(3, p=[0.6, 0.2, 0.2]))
            rows.append(
                {
                    "exchange_id": f"{name}-{number}",
                    "ts": BEGAN_US + HOUR_US // 3 + day * DAY_US + int(rng.random() * 3 * HOUR_US),
                    "account_id": name,
                    "model": exchanges["model"][0].as_py(),
                    "ip": used[name],
                    "prompt": "You are my hackathon project assistant for the spring open data challenge; read the "
                    "following project note and propose concrete next steps with short code where useful: "
                    f"{' '.join(rng.choice(words, 30))} Keep to the judging criteria published on the challenge "
                    "page and finish with a checklist.",
                }
            )
    made = pa.table(
        [
            pa.array([row[f.name] for row in rows]).cast(f.type)
            if f.name in rows[0]
            else pa.nulls(len(rows), f.type)
            for f in exchanges.schema
        ],
        schema=exchanges.schema,
    )
    before = exchanges.filter(pc.invert(pc.is_in(exchanges["account_id"], pa.array(people))))
    created = dict(
        zip(
            accounts["account_id"].to_pylist(),
            accounts["created_at"].cast(pa.int64()).to_pylist(),
            strict=True,
        )
    )
    created |= {name: BEGAN_US + int(abs(rng.normal(0, 8 * 60e6))) for name in people}
    accounts = _with(accounts, "created_at", list(created.values()))
    if referral:
        code = ["spring-challenge" if n in set(people) else None for n in accounts["account_id"].to_pylist()]
        accounts = _with(accounts, "referral", code)
    if domain:
        names, mail = accounts["account_id"].to_pylist(), accounts["email_domain"].to_pylist()
        firm = [domain if n in set(people) else m for n, m in zip(names, mail, strict=True)]
        accounts = _with(accounts, "email_domain", firm)
    return pa.concat_tables([before, made]), accounts, set(people)


@pytest.mark.parametrize(
    "crowd",
    [{}, {"referral": True}, {"networks": 6}, {"networks": 6, "domain": "firm.example"}],
    ids=["hackathon", "with a referral code", "class on a campus", "staff of a firm"],
)
def test_people_who_come_together_are_no_campaign(log: Path, tmp_path: Path, crowd: dict[str, Any]) -> None:
    exchanges, accounts, people = _hackathon(log, **crowd)
    found = _scan(tmp_path, log, exchanges, accounts)
    named = found.accounts.filter(pc.equal(found.accounts["verdict"], "campaign"))["account_id"].to_pylist()
    assert not people & set(named)
    assert named, "the operation in the same log is still named"


def test_accounts_under_contract_are_cleared_as_what_they_are(log: Path, tmp_path: Path) -> None:
    exchanges, accounts = pq.read_table(log / "exchanges.parquet"), pq.read_table(log / "accounts.parquet")
    truth = pq.read_table(log / "truth" / "accounts.parquet")
    largest = max(truth["operation"].drop_null().value_counts().to_pylist(), key=lambda row: row["counts"])
    members = set(truth.filter(pc.equal(truth["operation"], largest["values"]))["account_id"].to_pylist())
    contract = ["evaluation" if n in members else None for n in accounts["account_id"].to_pylist()]
    found = _scan(tmp_path, log, exchanges, _with(accounts, "contract", contract))
    rows = [row for row in found.accounts.to_pylist() if row["account_id"] in members]
    assert rows
    assert {row["verdict"] for row in rows} == {"cleared"}
    why = {group.id: group.why for group in found.findings.groups}
    assert {why[row["campaign_id"]] for row in rows} == {"contract"}
