"""The population view as a page and as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from importlib import resources

from stillwatch.campaign.risk import (
    ABILITY_WORDS,
    AFTER_BANS,
    BREADTH,
    COMPONENTS,
    CUTS,
    DAYS,
    EVASION,
    HARVESTED,
    LITTLE,
    OPERATION,
    STANDBY,
    TIERS,
    WORTH,
)
from stillwatch.campaign.techniques import CATALOGUE
from stillwatch.report import words
from stillwatch.report.html import style
from stillwatch.report.population import INTERVALS, METHOD, Month, Population
from stillwatch.report.population_charts import NAMES, row, shares
from stillwatch.schema.anonymity import K

HEAD = ("month", "accounts", *TIERS, "medium +", "95 % interval", "days read")


WHOLE = 0.9
"""Share of a month's days from which the month counts as read."""


def headline(found: Population) -> str:
    """The first and the last month that say a share; a month of which days are missing says so, or stands back."""
    told = [m for m in found.months if m.share is not None and m.share.value is not None]
    whole = [m for m in told if m.covered >= WHOLE]
    told = whole if len(whole) > 1 else told
    if not told:
        return "No month has enough accounts to say a share."
    first, last = told[0], told[-1]
    if first is last:
        return f"Of the accounts of {_month(first)}, {_share(first)} are of medium risk or higher."
    return (
        f"The share of accounts of medium risk or higher: {_share(first)} in {_month(first)}, {_share(last)} in "
        f"{_month(last)}."
    )


def _month(month: Month) -> str:
    year, _, number = month.name.partition("-")
    read = "" if month.covered >= WHOLE else f" (of {100 * month.covered:.0f} % of its days)"
    return f"{NAMES[int(number) - 1]} {year}{read}"


def _share(month: Month) -> str:
    share = month.share
    if share is None or share.value is None or share.interval is None:
        return "-"
    return f"{100 * share.value:.0f} % ({_interval(month)})"


def _interval(month: Month) -> str:
    if month.share is None or month.share.interval is None:
        return "-"
    return "{:.0f} to {:.0f} %".format(*(100 * value for value in month.share.interval))


def table(found: Population) -> list[tuple[str, ...]]:
    """Months under `HEAD`."""
    rows: list[tuple[str, ...]] = []
    for month in found.months:
        read = f"{100 * month.covered:.0f} %"
        if month.gap:
            rows.append((month.name, "no scan", *[""] * (len(HEAD) - 3), read))
            continue
        value = None if month.share is None else month.share.value
        rows.append(
            (
                month.name,
                _count(month.accounts),
                *(_count(month.tiers[name]) for name in TIERS),
                "-" if value is None else f"{100 * value:.1f} %",
                _interval(month).removesuffix(" %"),
                read,
            )
        )
    return rows


def _count(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def technique_head(found: Population) -> tuple[str, ...]:
    """Columns of `technique_rows`."""
    return ("technique", "name", *(month.name for month in found.months))


def technique_rows(found: Population) -> list[tuple[str, ...]]:
    """Accounts by technique and month; a technique that is left out is zero in every month that was read."""
    rows = []
    for id, entry in CATALOGUE.items():
        cells = [("" if month.gap else _count(month.techniques.get(id))) for month in found.months]
        if not any(cell not in ("", "0") for cell in cells):
            continue
        rows.append((id, entry.name, *cells))
    return rows


def notes(found: Population) -> list[str]:
    """What a reader has to know besides."""
    out = [METHOD[found.counting], INTERVALS]
    if found.internal:
        out.append("For inside use: counts of 1 to 4 accounts are shown.")
    else:
        out.append(f"Counts of 1 to {K - 1} accounts, and those that would tell them, are left out (-).")
    if any(m.upper is not None and m.tiers.get("medium") is None for m in found.months):
        out.append("Where the upper tiers may not be told apart, the picture has them in one colour.")
    gaps = [month.name for month in found.months if month.gap]
    if gaps:
        out.append(f"No scan read a day of {words.listed(gaps)}: that is a gap, not zero.")
    partly = [month.name for month in found.months if 0 < month.covered < 0.5]
    if partly:
        out.append(f"Less than half of {words.listed(partly)} was read.")
    if found.freed and (found.internal or found.freed >= K):
        out.append(f"{words.plural(found.freed, 'account')} that appeals freed {_are(found.freed)} left out.")
    if found.unknown:
        out.append(
            f"{words.plural(found.unknown, 'campaign')} with a decision {_are(found.unknown)} in none of "
            "these results."
        )
    return out


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


@cache
def _more_style() -> str:
    return resources.files("stillwatch.report").joinpath("population.css").read_text(encoding="utf-8")


def page(found: Population) -> str:
    """The whole page, self-contained."""
    what = "acted on" if found.counting == "actioned" else "active in campaigns"
    first, last = (found.months[0].name, found.months[-1].name) if found.months else ("", "")
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Population</title><style>{style()}{_more_style()}</style></head><body><main>"
        f"<h1>Accounts {what}</h1><p class='soft'>{first} to {last}, {words.plural(found.scans, 'scan')}"
        f"{', for inside use only' if found.internal else ''}</p>"
        f"<p><b>{escape(headline(found))}</b></p>"
        f"<section class='card'><h3 style='margin-top:0'>Risk tiers, as shares of each month</h3>"
        f"{shares(found.months)}{_table(HEAD, table(found), 1)}</section>"
        f"<section class='card'><h3 style='margin-top:0'>Techniques, accounts by "
        f"month</h3>{_techniques(found)}</section><section class='card'><h3 style='margin-top:0'>How the "
        f"tiers are made</h3>{_made(found)}</section><h2>What this is, and is "
        f"not</h2>{''.join(f'<p>{escape(note)}</p>' for note in notes(found))}<p>A tier ranks what is known "
        "about an account. It is no evidence that the account belongs to a campaign, and decides "
        "nothing.</p></main></body></html>\n"
    )


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], words_first: int, *, stacked: bool = False
) -> str:
    """Columns from `words_first` on are numbers. `stacked`: on a narrow screen a row is a block, not a line."""

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if place >= words_first else ''}{_named(head, place) if stacked else ''}>"
            f"{escape(value)}</{tag}>"
            for place, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', values)}</tr>" for values in rows)
    made = " made" if stacked else ""
    return f"<div class='scroll'><table class='plain{made}'><tr>{cells('th', head)}</tr>{body}</table></div>"


def _named(head: Sequence[str], place: int) -> str:
    return f" data-label='{escape(head[place])}'" if place else ""


def _techniques(found: Population) -> str:
    rows = []
    for id, name, *cells in technique_rows(found):
        entry = CATALOGUE[id]
        counts = "".join(f"<td class='n'>{escape(cell)}</td>" for cell in cells)
        rows.append(
            f"<tr><td><a href='{escape(entry.url)}'>{escape(id)}</a><br><span class='soft'>{escape(name)}</span></td>"
            f"<td>{row(found.months, id)}</td>{counts}</tr>"
        )
    head = "".join(f"<th class='n'>{escape(month.name)}</th>" for month in found.months)
    return (
        "<p class='soft small'>The bars are shares of the month's accounts; every account of a campaign has the "
        "techniques that its campaign's observations justify. Their number says little about risk.</p>"
        f"<div class='scroll'><table class='plain tech'><tr><th>technique</th><th>share</th>{head}</tr>"
        f"{''.join(rows)}</table></div>"
    )


def _made(found: Population) -> str:
    cuts = ", ".join(f"{name} from {CUTS[name]}" for name in TIERS)
    rows = [
        (title, f"0 to {most}", _steps(name), *_means(found, name))
        for name, (title, most) in COMPONENTS.items()
    ]
    head = ("component", "points", "how", *(m.name for m in found.months if m.points))
    return (
        f"<p class='soft small'>Points add up; tiers: {cuts} points. The cut-offs are fixed."
        f"{' The last columns: mean points by month.' if len(head) > 3 else ''}</p>"
        f"{_table(head, rows, 3, stacked=True)}"
    )


def _means(found: Population, name: str) -> list[str]:
    return [f"{month.points[name]:.1f}" for month in found.months if month.points]


def _steps(name: str) -> str:
    """How a component's points are given, in words."""
    if name in ("harvested", "operation"):
        steps = HARVESTED if name == "harvested" else OPERATION
        return ", ".join(f"{points} from {least:,} exchanges" for least, points in steps)
    if name == "taken":
        worth: dict[int, list[str]] = {}
        for tag, points in WORTH.items():
            worth.setdefault(points, []).append(ABILITY_WORDS.get(tag, tag.replace("_", " ")))
        each = "; ".join(
            f"{points} each for {', '.join(tags)}" for points, tags in sorted(worth.items(), reverse=True)
        )
        return f"{each}. At most {LITTLE[0][1]} below {LITTLE[1][0]} exchanges, {LITTLE[1][1]} below {LITTLE[2][0]}"
    if name == "evasion":
        return ", ".join(
            f"{points} where at most {100 * (1 - least):.0f} % have one payer, site or mail domain"
            for least, points in EVASION
        )
    if name == "standby":
        said = {
            "handover": "conversations handed over",
            "takeover": "take-over after an end or a ban",
            "replay": "replay",
        }
        return ", ".join(f"{points} for {said[test]}" for test, points in STANDBY.items())
    if name == "breadth":
        return ", ".join(f"{points} from {least} abilities" for least, points in BREADTH)
    days = ", ".join(f"{points} from {least} days" for least, points in DAYS)
    return f"{days}; {AFTER_BANS} more where the operation went on after bans"
