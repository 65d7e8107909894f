"""What is claimed about a group, each claim with its statistic."""

from __future__ import annotations

from stillwatch.campaign.record import coordinated_text, director_text, harvest_text, together_text
from stillwatch.detect.population import LEVELS
from stillwatch.detect.score import LEVEL
from stillwatch.scan.judge import CONFIRM_LEVEL, Finding, Judged
from stillwatch.scan.verdict import one_stock, only_signups
from stillwatch.schema.results import Claim


def claims(judged: Judged, finding: Finding) -> list[Claim]:
    """Is it coordinated, is there one hidden director, is it harvest-like: always stated apart."""
    best = min(finding.tested, key=lambda t: t.p)
    level = "; ".join(sorted({LEVELS[t.level] for t in finding.tested}))
    confirmed = [t.view for t in finding.tested if t.p <= CONFIRM_LEVEL / 2 and t.view != finding.view_found]
    fired = finding.fired(judged.direct_level)
    strongest = min(finding.direct, key=lambda d: d.p) if finding.direct else None
    together = only_signups(finding, judged.direct_level)
    conformal = judged.conformal
    # A reference is not compared with its like.
    references = 0 if finding.reference >= 0 else conformal.references
    compared = finding.compared and conformal.references > 0
    as_high = round(finding.conformal_p * (conformal.references + 1)) - 1 if compared else None
    return [
        Claim(
            name="coordinated",
            holds=finding.q <= CONFIRM_LEVEL,
            text=_coordinated(finding, level),
            statistic=best.statistic,
            p=finding.p,
            q=finding.q,
            p_min=1e-15,
            view_found=finding.view_found,
            views_confirmed=confirmed,
            method=best.method,
        ),
        Claim(
            name="one_director",
            holds=bool(fired) and not together,
            text=director_text(
                [d.name for d in fired],
                finding.openness.share,
                finding.openness.kind,
                finding.openness.known,
                together,
                finding.web if one_stock(finding) else None,
            ),
            statistic=finding.openness.evasion,
            p=strongest.p if strongest else None,
            p_min=0.0,
            method="Poisson",
        ),
        Claim(
            name="harvest_like",
            holds="direct" in finding.roads or "references" in finding.roads,
            text=harvest_text(
                finding.roads, references, as_high, finding.items, finding.space, finding.relayed
            ),
            statistic=finding.score,
            p=finding.conformal_p if compared else None,
            q=finding.conformal_q if compared else None,
            p_min=conformal.p_min,
            references=conformal.references,
            method=f"conformal, Benjamini-Hochberg at {LEVEL:.2f}",
        ),
    ]


def _coordinated(finding: Finding, level: str) -> str:
    both = finding.together
    if both is not None:
        return together_text(both.wordings, both.holders, both.ties, both.expected)
    return coordinated_text(finding.view_found, [t.view for t in finding.tested], level, finding.candidate)
