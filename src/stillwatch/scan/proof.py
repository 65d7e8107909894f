"""The numbers that the claims of campaigns follow from, as tables (`schema.proof`).

Null statistics are not kept while candidates are tested: draws are seeded, so that those of the few candidates that
became campaigns are made again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from stillwatch.detect import confirm as cf
from stillwatch.detect.population import F64, LEVELS, candidate_digest
from stillwatch.detect.score import LEVEL
from stillwatch.engine.threads import each
from stillwatch.scan.judge import CONFIRM_LEVEL, Finding, Judged
from stillwatch.schema.proof import PROOF, nothing_proved

Rows = list[tuple[Any, ...]]


def proof_tables(judged: Judged, campaigns: Sequence[tuple[str, Finding]]) -> dict[str, pa.Table]:
    """The tables for campaigns: name and finding each, as they are listed."""
    if not campaigns:
        return nothing_proved()
    asked = {name: np.sort(p) for name, p in judged.asked.items()}
    asked["harvest_like"] = np.sort(judged.conformal.p)
    views: Rows = []
    nulls = [PROOF["proof_nulls"].empty_table()]
    for (name, finding), drawn in zip(
        campaigns, each(lambda c: _drawn(judged, c[1]), campaigns), strict=True
    ):
        views += _views(name, finding, drawn)
        nulls += [_null(name, test.view, test.null) for test in drawn if test.null is not None]
    return {
        "proof_tests": _lists(asked),
        "proof_claims": _table(
            "proof_claims", (row for c in campaigns for row in _claims(judged, asked, *c))
        ),
        "proof_views": _table("proof_views", views),
        "proof_nulls": pa.concat_tables(nulls).combine_chunks(),
        "proof_direct": _table("proof_direct", (row for c in campaigns for row in _direct(judged, *c))),
        "proof_scores": _table("proof_scores", _scores(judged, campaigns)),
    }


def _table(name: str, rows: Iterable[tuple[Any, ...]]) -> pa.Table:
    """Rows of plain values, in the order of the table's columns."""
    schema = PROOF[name]
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)


def _lists(asked: dict[str, F64]) -> pa.Table:
    """Every p with its q, smallest first: the order says nothing of who was tested."""
    schema = PROOF["proof_tests"]
    parts = [schema.empty_table()]
    for name, p in asked.items():
        q = cf.benjamini_hochberg(p) if len(p) else p
        columns = [pa.array([name] * len(p), pa.string()), np.arange(len(p), dtype=np.int32), p, q]
        parts.append(pa.table([pa.array(column) for column in columns], schema=schema))
    return pa.concat_tables(parts).combine_chunks()


def _claims(judged: Judged, asked: dict[str, F64], name: str, finding: Finding) -> Rows:
    """The p that a campaign's claims rest on. Of equal ones, which have one q, the first."""
    test = "coordinated" if finding.together is None else "tied"
    rows: Rows = [(name, "coordinated", test, _place(asked[test], finding.p), CONFIRM_LEVEL)]
    if finding.compared and judged.conformal.references:
        place = _place(asked["harvest_like"], finding.conformal_p)
        rows.append((name, "harvest_like", "harvest_like", place, LEVEL))
    return rows


def _place(ranked: F64, p: float) -> int:
    return int(np.searchsorted(ranked, p))


def _drawn(judged: Judged, finding: Finding) -> list[cf.Tested]:
    """The finding's tests with their null values, drawn again. Ties have no draws."""
    if finding.together is not None:
        return finding.tested
    context = judged.context
    return cf.confirm(
        finding.claimed,
        finding.view_found,
        context.tested_on,
        context.rhythm,
        context.strata,
        context.seed,
        whole=True,
        keep=True,
    )


def _views(name: str, finding: Finding, drawn: Sequence[cf.Tested]) -> Rows:
    digest = candidate_digest(finding.claimed).hex()
    views = 1 if finding.together is not None else cf.other_views(finding.view_found)
    rows: Rows = []
    for number, test in enumerate(drawn):
        counted = test.view != "TIME" or not cf.settled(drawn[:number])
        matched = LEVELS[test.level] if test.draws else ""
        rows.append(
            (
                name, test.view, test.method, test.statistic, test.expected, test.parts, test.above, test.draws,
                test.p, counted, views, finding.candidate, digest, matched,
            )
        )  # fmt: skip
    return rows


def _null(name: str, view: str, values: F64) -> pa.Table:
    n = len(values)
    draw = pa.array(np.arange(n, dtype=np.int32))
    names = [pa.array([text] * n, pa.string()) for text in (name, view)]
    return pa.table([*names, draw, pa.array(values)], schema=PROOF["proof_nulls"])


def _direct(judged: Judged, name: str, finding: Finding) -> Rows:
    tests = sum(len(f.direct) for f in judged.findings)
    return [
        (
            name, d.name, d.view, d.p, d.observed, d.expected, d.mean, "binomial" if d.trials else "poisson", d.tail,
            d.trials, d.least, d.times, d.reach, d.alone, judged.direct_level, tests, list(d.counts),
        )
        for d in finding.direct
    ]  # fmt: skip


def _scores(judged: Judged, campaigns: Sequence[tuple[str, Finding]]) -> Rows:
    """References in the order of their scores, then the campaigns."""
    known = sorted((f.score, f.openness.evasion, f.space, f.size) for f in judged.against)
    rows: Rows = [("reference", None, e, s, n, score, None, None) for score, e, s, n in known]
    return rows + [
        ("campaign", name, f.openness.evasion, f.space, f.size, f.score, f.items, f.coincidences)
        for name, f in campaigns
    ]
