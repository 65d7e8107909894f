"""A small operator's folders: results, tables, a service with partitions; and what must not be left of an account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.evidence.log import TransparencyLog
from stillwatch.report.html import render
from stillwatch.schema.refusals import Refusal
from stillwatch.schema.scoring import SCORING
from stillwatch.schema.tables import ACCOUNTS, EXCHANGES, SANCTIONS, SEPARATOR, TIMESTAMP
from stillwatch.store.owners import owners_table
from stillwatch.store.partitions import Partitions
from stillwatch.store.results import Results, write_results
from tests.evidence.conftest import KEY, ORIGIN, ticking

GONE, STAYS = "acct-1", "acct-2"
SECRETS = ("acct-1", "203.0.113.77", "gone-domain.example", "key-of-gone", "user-of-gone", "gone-device")
"""Of the account that is forgotten: its id, address, mail domain, API key, end user, device."""
DAY = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Kept:
    """Where everything is."""

    root: Path

    @property
    def log(self) -> Path:
        """The transparency log, outside the folders."""
        return self.root.with_name("audit.log")

    def open(self) -> TransparencyLog:
        """To write."""
        return TransparencyLog(self.log, KEY, ticking())


def exchanges(accounts: list[str], days: int = 3, text: bool = True) -> pa.Table:
    """A few exchanges of each account and day; what is told of GONE is in SECRETS."""
    rows = []
    for day in range(days):
        for number, account in enumerate(accounts):
            mine = account.startswith(GONE)
            rows.append(
                {
                    "exchange_id": f"e-{day}-{number}", "ts": DAY + timedelta(days=day, minutes=number), "model": "m",
                    "account_id": account, "ip": SECRETS[1] if mine else "198.51.100.4",
                    "key_id": SECRETS[3] if mine else "key-2", "end_user_id": SECRETS[4] if mine else "user-2",
                    "prompt": f"a prompt of {number}" if text else None,
                }
            )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=EXCHANGES)


def scoring() -> dict[str, pa.Table]:
    """Tables of a scan in which GONE and a user behind it are accounts 1 and 2 of 4."""
    tables = {name: schema.empty_table() for name, schema in SCORING.items()}
    names = ["acct-0", GONE, GONE + SEPARATOR + SECRETS[4], STAYS]
    tables["scoring_accounts"] = pa.Table.from_pylist(
        [{"account_id": name, "exchanges": 5, "excused": False} for name in names],
        schema=SCORING["scoring_accounts"],
    )
    held = [(0, 7), (1, 7), (1, 8), (2, 8), (3, 8)]
    tables["scoring_held"] = pa.Table.from_pylist(
        [{"account": who, "place": place, "count": 1, "given": False} for who, place in held],
        schema=SCORING["scoring_held"],
    )
    tables["scoring_measured"] = pa.Table.from_pylist(
        [
            {"campaign_id": "g-0123456789ab", "account": who, "fold": 0, "bits_time": who / 4, "named": True}
            for who in (1, 3)
        ],
        schema=SCORING["scoring_measured"],
    )
    return tables


@pytest.fixture
def kept(tmp_path: Path, sample: Callable[..., Results]) -> Kept:
    """Everything that may hold an account, and a log that was told of it."""
    root = tmp_path / "kept"
    root.mkdir()
    refused = Refusal(
        "a.jsonl", 3, 40, "ts", "no time", raw=f'{{"account": "{GONE}", "ip": "{SECRETS[1]}"'.encode()
    )
    results = replace(sample(), refusals=[refused], scoring=scoring(), run_info={"paths": ["a.jsonl"]})
    write_results(root / "results", replace(results, report_html=render(results)))
    tables = root / "tables"
    tables.mkdir()
    pq.write_table(exchanges(["acct-0", GONE, STAYS]), tables / "exchanges.parquet", row_group_size=4)
    accounts = [
        {"account_id": GONE, "email_domain": SECRETS[2], "signup_ip": SECRETS[1], "device_fp": SECRETS[5]},
        {"account_id": STAYS, "email_domain": "stays.example"},
    ]
    pq.write_table(pa.Table.from_pylist(accounts, schema=ACCOUNTS), tables / "accounts.parquet")
    banned = [{"ts": DAY, "account_id": GONE, "kind": "ban"}]
    pq.write_table(pa.Table.from_pylist(banned, schema=SANCTIONS), tables / "sanctions.parquet")
    (tables / "refused.jsonl").write_bytes(msgspec.json.encode(refused) + b"\n")
    service = root / "service"
    service.mkdir()
    owned = {(GONE, "entity", SECRETS[2]): 3, (STAYS, None, "stays.example"): 2}
    with TransparencyLog.create(root.with_name("audit.log"), KEY, ORIGIN, ticking()) as log:
        partitions = Partitions(service / "partitions", log)
        for days in (3, 1):
            batches = exchanges(["acct-0", GONE, STAYS][: days + 1], days, text=False).to_batches()
            partitions.commit(f"edge{days}", batches, days, owners=owned)
            if days == 3:
                partitions.compact()
        partitions.close()
    pq.write_table(owners_table(owned), service / "owners.parquet")  # type: ignore[arg-type]
    assert EXCHANGES.field("ts").type == TIMESTAMP
    return Kept(root)
