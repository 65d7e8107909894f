"""Circumstances of the groups that are listed, from the reduced log. They decide nothing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from stillwatch.campaign.circumstances import circumstance_text
from stillwatch.detect import circumstance as ci
from stillwatch.detect.population import seeded
from stillwatch.scan.context import Context
from stillwatch.schema.results import Evidence
from stillwatch.views.base import I64


class Circumstances:
    """What groups are compared with: every account's hours, first days and models, computed once."""

    def __init__(self, context: Context, releases: pa.Table | None) -> None:
        self._context = context
        reduced = context.reduced
        n, activity = reduced.accounts, reduced.activity
        owner = np.repeat(np.arange(n), np.diff(activity.offsets))
        by_hour = np.zeros((n, 24), np.int64)
        np.add.at(
            by_hour, (owner, (activity.hour.astype(np.int64) + reduced.first_hour) % 24), activity.count
        )
        self._quiet = ci.quiet_shares(by_hour)
        self._new, self._first_day = _beginnings(context)
        self._pivot = _asked_after_release(context, releases)

    def of(self, members: I64, own: I64) -> tuple[list[Evidence], list[Evidence]]:
        """(what stands out, what does not) for a group: its members, and the requests of its own families."""
        reduced = self._context.reduced
        members = members[reduced.first_us[members] > 0]
        told = [
            ci.probing(reduced.rows.ts[own], reduced.rows.declined[own]),
            None if self._pivot is None else ci.pivot(*self._pivot, members),
            ci.flat_hours(self._quiet, reduced.volume, members),
            ci.full_throttle(self._first_day, self._new, members),
            ci.moving_load(self._series(members), self._context.seed),
        ]
        unusual: list[Evidence] = []
        usual: list[Evidence] = []
        for found in told:
            if found is None:
                continue
            text = circumstance_text(found.name, found.observed, found.expected, unusual=found.stands_out)
            if found.stands_out:
                unusual.append(Evidence(kind="CONTEXT", signal=found.name, bits=0.0, text=text))
            else:
                usual.append(Evidence(kind="COUNTER", signal=found.name, bits=0.0, text=text))
        return unusual, usual

    def _series(self, members: I64) -> ci.Floats:
        """Requests of members in bins of six hours over the log's whole days; of many members, some at random."""
        reduced = self._context.reduced
        if len(members) > ci.MOST_MEMBERS:
            rng = np.random.default_rng(seeded(self._context.seed, "series", members))
            members = np.sort(rng.choice(members, ci.MOST_MEMBERS, replace=False))
        activity = reduced.activity
        first = -(-reduced.first_hour // 24) * 24 - reduced.first_hour
        days = max(0, (activity.hours - first) // 24)
        out = np.zeros((len(members), days * 24 // ci.BIN_HOURS))
        for place, member in enumerate(members.tolist()):
            part = slice(activity.offsets[member], activity.offsets[member + 1])
            bins = (activity.hour[part].astype(np.int64) - first) // ci.BIN_HOURS
            there = (bins >= 0) & (bins < out.shape[1])
            np.add.at(out[place], bins[there], activity.count[part][there])
        return out


def _beginnings(context: Context) -> tuple[ci.Bools, ci.Bools]:
    """(signed up inside the log, at its later daily mean within a day of that), each by account."""
    reduced, created = context.reduced, context.units.created_us
    rows = reduced.rows
    start, end = int(rows.ts.min()), int(rows.ts.max())
    new = (created >= start) & (created < end - 3 * ci.DAY_US) & (reduced.volume > 0)
    within = rows.ts < (created + ci.DAY_US)[rows.account]
    first = np.bincount(rows.account[within], minlength=reduced.accounts)
    later_days = np.maximum(1.0, (reduced.last_us - created - ci.DAY_US) / ci.DAY_US)
    rate = (reduced.volume - first) / later_days
    return new, new & (first >= np.maximum(rate, 1.0))


def _asked_after_release(context: Context, releases: pa.Table | None) -> tuple[I64, I64] | None:
    """Requests to the new model, and all, on the day after the latest own release inside the log; each by account."""
    if releases is None:
        return None
    reduced = context.reduced
    rows = reduced.rows
    start, end = int(rows.ts.min()), int(rows.ts.max())
    inside = [
        (us, row["model"])
        for us, row in zip(releases["ts"].cast(pa.int64()).to_pylist(), releases.to_pylist(), strict=True)
        if start < us <= end and row.get("origin") in (None, "own") and row["model"] in reduced.models
    ]
    if not inside:
        return None
    at, model = max(inside)
    day = (rows.ts >= at) & (rows.ts < at + ci.DAY_US)
    asked_new = day & (rows.model == reduced.models.index(model))
    new, every = (np.bincount(rows.account[of], minlength=reduced.accounts) for of in (asked_new, day))
    return new, every
