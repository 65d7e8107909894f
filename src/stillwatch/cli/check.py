"""A preview as text: what `stillwatch check` prints."""

from __future__ import annotations

import textwrap

from stillwatch.scan.preview import Preview

WIDTH = 100
ORDER = {"on": 0, "weak": 1, "blind": 2}


def check_text(found: Preview) -> str:
    """The whole text; ends without a newline. No account ids, addresses or prompts are in a preview."""
    parts = [
        _head(found),
        _sight(found),
        _references(found),
        _refusals(found),
        _columns(found),
        _tables(found),
        _remarks(found),
    ]
    return "\n\n".join(part for part in parts if part)


def _wrapped(text: str, indent: str = "  ", first: str | None = None) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _head(found: Preview) -> str:
    lines = [
        f"{_count(found.rows, 'row')} of {_count(found.accounts, 'account')} in {_count(found.files, 'file')}, "
        f"read as {found.format}; {found.refused:,} refused"
        + (f"; {found.passed:,} passed over: no exchanges" if found.passed else "")
    ]
    if found.first_ts and found.last_ts:
        days = _count(found.days, "day")
        lines.append(
            f"{found.first_ts[:16].replace('T', ' ')} to {found.last_ts[:16].replace('T', ' ')} UTC, {days}"
        )
    if found.side_tables:
        listed = ", ".join(f"{name} ({rows:,})" for name, rows in found.side_tables.items())
        lines.append(f"Side tables: {listed}")
    if found.skipped:
        lines.append(f"{_count(len(found.skipped), 'file')} in these folders left alone: no logs")
    return "\n".join(lines)


def _sight(found: Preview) -> str:
    lines = ["What a scan can see"]
    shown = [s for s in found.sight if not s.detector.startswith("table ")]  # they have a part of their own
    width = max(len(s.detector) for s in shown)
    for sight in sorted(shown, key=lambda s: ORDER[s.state]):
        start = f"  {sight.state:5}  {sight.detector:{width}}  "
        lines.append(_wrapped(sight.reason, " " * len(start), start))
    return "\n".join(lines)


def _references(found: Preview) -> str:
    groups = found.references
    lines = [
        "References: groups known to be honest, with which suspects are compared",
        f"  {_count(groups.verified_owners, 'verified owner')} of {groups.size} accounts or more, "
        f"{_count(groups.listed_groups, 'listed group')}: {groups.total} at most",
    ]
    lines += [_wrapped(text) for text in found.verdicts.text]
    if groups.nameable:
        cases = ", ".join(f"{k} of {m}" for k, m in groups.nameable)
        lines.append(_wrapped(f"With {groups.total}, k of at most m tested groups can be named: {cases}."))
    lines.append(
        _wrapped(
            "To supply more: set entity_id and verified in the accounts table for customers that you know, or pass "
            "--references with account_id and group_id of honest groups (classes, benchmark runs, teams)."
        )
    )
    return "\n".join(lines)


def _refusals(found: Preview) -> str:
    if not found.refusals:
        return ""
    lines = ["Refused rows, by reason"]
    width = max(len(f"{r.rows:,}") for r in found.refusals)
    for refused in found.refusals:
        name = "" if refused.column is None or refused.column in refused.reason else f"{refused.column}: "
        start = f"  {refused.rows:>{width},}  "
        lines.append(_wrapped(name + refused.reason, " " * len(start), start))
        by_file: dict[str, list[str]] = {}
        for place in refused.first:
            by_file.setdefault(place.file, []).append(str(place.row))
        more = ", ..." if refused.rows > len(refused.first) else ""
        places = "; ".join(
            f"{file}, row{'s' if len(rows) > 1 else ''} {', '.join(rows)}" for file, rows in by_file.items()
        )
        lines.append(" " * len(start) + places + more)
    lines.append("  `stillwatch ingest --keep-refused` writes them out, with their bytes, to be repaired.")
    return "\n".join(lines)


def _columns(found: Preview) -> str:
    if found.rows == 0:
        return ""
    lines = ["Columns, percent of rows with a value"]
    lines += _grid({name: share for name, share in found.columns.items() if share > 0})
    empty = [name for name, share in found.columns.items() if share == 0]
    if empty:
        lines.append(_wrapped("empty: " + ", ".join(empty), "    ", "  "))
    if found.account_columns:
        lines.append("Accounts table, percent of the log's accounts with a value")
        lines += _grid({name: share for name, share in found.account_columns.items() if share > 0})
        empty = [name for name, share in found.account_columns.items() if share == 0]
        if empty:
            lines.append(_wrapped("empty: " + ", ".join(empty), "    ", "  "))
    return "\n".join(lines)


def _grid(shares: dict[str, float]) -> list[str]:
    cells = [f"{name:17}{_percent(share):>4}" for name, share in shares.items()]
    return ["  " + "    ".join(cells[i : i + 4]).rstrip() for i in range(0, len(cells), 4)]


def _percent(share: float) -> str:
    return "<1" if share < 1 else ">99" if 99 < share < 100 else f"{share:.0f}"


def _tables(found: Preview) -> str:
    lines = ["Lookup tables"]
    width = max(len(t.name) for t in found.tables)
    for table in found.tables:
        start = f"  {table.name:{width}}  "
        if table.present:
            text = f"{table.rows:,} entries"
        else:
            text = f"{'damaged' if table.damaged else 'missing'}: {table.without_it}"
        lines.append(_wrapped(text, " " * len(start), start))
    return "\n".join(lines)


def _remarks(found: Preview) -> str:
    if not found.remarks:
        return ""
    return "\n".join(["To look at", *(_wrapped(text, "    ", "  - ") for text in found.remarks)])
