"""Rules on single keys, as operators of gateways set them."""

from __future__ import annotations

from pathlib import Path

from stillwatch.arena.baselines.log import query, write_groups

ABOUT = (
    "limits on single accounts: requests and tokens a day and first-day volume above the 99.5th percentile, active "
    "in 20 hours of a day, a third of 20 or more requests failed or refused"
)
HIGH = 0.995


def run(log: Path, out: Path) -> None:
    """See `ABOUT`. Every rule names a list of accounts."""
    days = (
        "select account_id, epoch_us(ts) // 86400000000 as day, count(*) as n, "
        "sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) as tokens, "
        "count(distinct epoch_us(ts) // 3600000000) as hours, "
        "sum((coalesce(status, 200) >= 400 or coalesce(refused, false))::int) as failed from $e group by 1, 2"
    )
    rules = {
        "requests": f"group by account_id having max(n) > (select quantile_cont(n, {HIGH}) from days)",
        "tokens": f"group by account_id having max(tokens) > (select quantile_cont(tokens, {HIGH}) from days)",
        "hours": "group by account_id having max(hours) >= 20",
        "failures": "group by account_id having sum(n) >= 20 and sum(failed) >= sum(n) / 3.0",
        "throttle": "join (select account_id, epoch_us(created_at) // 86400000000 as born from $a) "
        f"using (account_id) where day - born <= 1 and n > (select quantile_cont(n, {HIGH}) from days)",
    }
    named = {}
    for name, rule in rules.items():
        rows = query(log, f"with days as ({days}) select account_id from days {rule}").fetchall()
        named[name] = {account for (account,) in rows}
    write_groups(log, out, named)
