"""A second, small composer of logs, with other assumptions than the arena's: what one generator takes for granted is
not what a detector may live on. Text is of made-up words; people, offices and operations are written by hand.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HOUR, DAY = 3_600_000_000, 86_400_000_000
START = int(dt.datetime(2026, 6, 1, tzinfo=dt.UTC).timestamp() * 1e6)
DAYS = 14
WEBMAIL = ("gmail.com", "outlook.com", "qq.com", "yahoo.com", "proton.me", "mail.ru")
TIMES = pa.timestamp("us", tz="UTC")


class World:
    """Accounts and exchanges of one log; `kind_of` has the truth."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.accounts: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.kind_of: dict[str, str] = {}
        letters = np.array(list("bcdfghklmnprstv")), np.array(list("aeiou"))
        self.words = [
            "".join(self.rng.choice(letters[i % 2]) for i in range(2 * self.rng.integers(2, 5)))
            for _ in range(6000)
        ]
        self.homes = [self.block() for _ in range(700)]
        popular = 1 / np.arange(1, 701) ** 0.6
        self.home_share = popular / popular.sum()
        self.stacks = [(f"t13d{i:04d}", int(self.rng.integers(1, 2**62))) for i in range(40)]
        common = 1 / np.arange(1, 41)
        self.stack_share = common / common.sum()
        self.small_mail = [f"{word}mail.net" for word in self.words[:120]]

    def block(self) -> str:
        """The first three numbers of an address block."""
        return ".".join(str(n) for n in (self.rng.integers(11, 200), *self.rng.integers(0, 255, 2)))

    def at(self, block: str) -> str:
        """An address in a block."""
        return f"{block}.{self.rng.integers(1, 255)}"

    def home(self) -> str:
        return self.at(str(self.rng.choice(self.homes, p=self.home_share)))

    def say(self, count: int) -> str:
        """Made-up words, common ones more often."""
        return " ".join(self.words[int(i)] for i in 6000 * self.rng.random(count) ** 2)

    def ask(self) -> str:
        """What somebody asks for: 10 to 80 words that nobody else says."""
        return self.say(int(self.rng.integers(10, 80)))

    def account(self, kind: str, **changes: Any) -> dict[str, Any]:
        """An account; `ips`, `stack` and `zone` say where and when it works."""
        rng, number = self.rng, len(self.accounts)
        account: dict[str, Any] = {
            "account_id": f"u{number:06d}",
            "entity_id": None,
            "verified": None,
            "created_at": int(START - rng.integers(1, 400) * DAY + rng.integers(0, DAY)),
            "tier": str(rng.choice(["free", "plus", "team"])),
            "payment_fp": f"card{number}",
            "email_domain": str(rng.choice(WEBMAIL if rng.random() < 0.8 else self.small_mail)),
            "device_fp": f"device{number}",
            "referral": None,
            "ips": [self.home() for _ in range(1 + (rng.random() < 0.4))],
            "stack": self.stacks[rng.choice(40, p=self.stack_share)],
            "zone": int(rng.choice([-8, -5, 0, 1, 2, 5, 8, 9])),
        }
        self.accounts.append(account | changes)
        self.kind_of[account["account_id"]] = kind
        return self.accounts[-1]

    def moment(self, account: dict[str, Any], first_day: int = 0) -> int:
        """A time of day that suits the account's time zone."""
        hour = (self.rng.normal(14, 3.2) - account["zone"]) % 24
        return int(START + self.rng.integers(first_day, DAYS) * DAY + hour * HOUR)

    def exchange(
        self,
        account: dict[str, Any],
        prompt: str,
        ts: int | None = None,
        *,
        system: str | None = None,
        turns: list[int] | None = None,
        status: int = 200,
    ) -> None:
        self.rows.append(
            {
                "exchange_id": f"e{len(self.rows)}",
                "ts": self.moment(account) if ts is None else ts,
                "account_id": account["account_id"],
                "model": "m-1",
                "system": system,
                "prompt": prompt,
                "ip": str(self.rng.choice(account["ips"])),
                "ja4": account["stack"][0],
                "header_hash": account["stack"][1],
                "status": status,
                "turn_hashes": turns,
            }
        )

    def some(self, mean: float, spread: float = 0.6) -> int:
        """How often somebody asks in two weeks."""
        return max(1, int(self.rng.lognormal(np.log(mean), spread)))

    def people(self, count: int) -> None:
        for _ in range(count):
            account = self.account("individual")
            for _ in range(self.some(7, 1.0)):
                self.exchange(account, self.ask())

    def organisations(self, count: int) -> None:
        """Verified ones, each with an office, a payer, a mail domain and templates of its own."""
        for number in range(count):
            offices = [self.block() for _ in range(self.rng.integers(1, 3))]
            templates = [self.say(int(self.rng.integers(6, 14))) for _ in range(3)]
            system, zone = self.say(25), int(self.rng.choice([-8, -5, 0, 1, 8]))
            for _ in range(self.rng.integers(8, 15)):
                account = self.account(
                    "verified",
                    entity_id=f"org{number}",
                    verified=True,
                    payment_fp=f"invoice{number}",
                    email_domain=f"{self.words[200 + number]}.com",
                    ips=[self.at(block) for block in offices],
                    zone=zone,
                )
                for _ in range(self.some(16)):
                    template = f"{self.rng.choice(templates)} " if self.rng.random() < 0.7 else ""
                    self.exchange(account, template + self.ask(), system=system)

    def write(self, folder: Path) -> Path:
        """The log as canonical tables."""
        folder.mkdir(parents=True)
        rows = sorted(self.rows, key=lambda row: row["ts"])
        kinds = {"header_hash": pa.uint64(), "status": pa.int16(), "turn_hashes": pa.list_(pa.uint64())}
        columns = {
            name: pa.array([row[name] for row in rows], kinds.get(name, pa.string()))
            for name in rows[0]
            if name != "ts"
        }
        columns["ts"] = pa.array([row["ts"] for row in rows], pa.int64()).cast(TIMES)
        pq.write_table(pa.table(columns), folder / "exchanges.parquet")
        names = [name for name in self.accounts[0] if name not in ("ips", "stack", "zone")]
        side = {name: [account[name] for account in self.accounts] for name in names}
        table = {name: pa.array(side[name]) for name in names if name != "created_at"}
        table["created_at"] = pa.array(side["created_at"], pa.int64()).cast(TIMES)
        pq.write_table(pa.table(table), folder / "accounts.parquet")
        return folder
