"""The numbers that the claims of a scan's campaigns follow from, so that a stranger can compute them again.

A results folder holds these tables beside those for people. They hold numbers only: no account, no name of a group
that was compared, and the order of tests and of references says nothing. Floats are not rounded. Only groups with
the verdict `campaign` have rows of their own; the lists of p are of the whole run, because q follows from all of
them. All tables are empty where a scan names no campaign. docs/results.md has the formulas.
"""

from __future__ import annotations

import pyarrow as pa

PROOF: dict[str, pa.Schema] = {
    # Every p of the run from which Benjamini-Hochberg made a q, by `test`: `coordinated` (candidates),
    # `coordinated_reference` (candidates of groups known to be honest), `tied` (wordings whose holders are tied),
    # `harvest_like` (groups that the references were asked about). `number` counts from 0, smallest p first.
    "proof_tests": pa.schema(
        [
            pa.field("test", pa.string(), nullable=False),
            pa.field("number", pa.int32(), nullable=False),
            pa.field("p", pa.float64(), nullable=False),
            pa.field("q", pa.float64(), nullable=False),
        ]
    ),
    # Which of them the claims `coordinated` and `harvest_like` rest on. `level`: the q up to which the claim counts.
    # `one_director` has no row: its p is the smallest of `proof_direct`. Without references, or where they were not
    # asked, `harvest_like` has none either.
    "proof_claims": pa.schema(
        [
            pa.field("campaign_id", pa.string(), nullable=False),
            pa.field("claim", pa.string(), nullable=False),
            pa.field("test", pa.string(), nullable=False),
            pa.field("number", pa.int32(), nullable=False),
            pa.field("level", pa.float64(), nullable=False),
        ]
    ),
    # The tests of the candidate that a campaign grew from, one row a view.
    "proof_views": pa.schema(
        [
            pa.field("campaign_id", pa.string(), nullable=False),
            # FORM, LINK, TIME; "FORM AND LINK" of a group that wording and links found together.
            pa.field("view", pa.string(), nullable=False),
            # `permutation`: p = above / draws (Besag and Clifford). `permutation with fitted tail`: a generalised
            # Pareto tail of the largest null values. `none`: the view could not see the group, p = 1.
            # `Poisson, degrees given`: P(at least `statistic` ties where `expected` are).
            pa.field("method", pa.string(), nullable=False),
            pa.field("statistic", pa.float64(), nullable=False),
            # Mean of the null values; of ties: what the accounts' own numbers of ties explain.
            pa.field("expected", pa.float64(), nullable=False),
            # Parts that a large candidate was tested in; `statistic` is the median. Above 1, p is doubled.
            pa.field("parts", pa.int32(), nullable=False),
            # Null values that are at least `statistic`.
            pa.field("above", pa.int32(), nullable=False),
            pa.field("draws", pa.int32(), nullable=False),
            pa.field("p", pa.float64(), nullable=False),
            # Whether this p was drawn before q was computed. p of the claim is the smallest counted p of a view that
            # could see the group, times `views_tested`. Others were drawn for the reader.
            pa.field("counted", pa.bool_(), nullable=False),
            pa.field("views_tested", pa.int32(), nullable=False),
            # Accounts of the candidate, and the digest that seeds its draws (`detect.population.candidate_digest`).
            pa.field("candidate", pa.int32(), nullable=False),
            pa.field("candidate_sha256", pa.string(), nullable=False),
            # What the accounts that were drawn have in common with those that they stood in for, at least.
            pa.field("matched", pa.string(), nullable=False),
        ]
    ),
    # The null statistics of those views, draw by draw.
    "proof_nulls": pa.schema(
        [
            pa.field("campaign_id", pa.string(), nullable=False),
            pa.field("view", pa.string(), nullable=False),
            pa.field("draw", pa.int32(), nullable=False),
            pa.field("value", pa.float64(), nullable=False),
        ]
    ),
    # The direct tests of a campaign: work_split, handover, replay, signup_batch, takeover, fan_out.
    # p = min(1, `times` x P(X >= observed)) for the tail `upper`, P(X <= observed) for `lower`; X is Poisson with the
    # mean `mean`, or binomial with `trials` and the mean `mean`. Below `least` observed, p = 1.
    "proof_direct": pa.schema(
        [
            pa.field("campaign_id", pa.string(), nullable=False),
            pa.field("test", pa.string(), nullable=False),
            pa.field("view", pa.string(), nullable=False),
            pa.field("p", pa.float64(), nullable=False),
            pa.field("observed", pa.int64(), nullable=False),
            # As the findings say it. `mean` is this, but never below 0.001 in tests that count rare events.
            pa.field("expected", pa.float64(), nullable=False),
            pa.field("mean", pa.float64(), nullable=False),
            pa.field("law", pa.string(), nullable=False),
            pa.field("tail", pa.string(), nullable=False),
            # Of the binomial law; 0 for Poisson.
            pa.field("trials", pa.int64(), nullable=False),
            pa.field("least", pa.int32(), nullable=False),
            # Bonferroni factor inside the test.
            pa.field("times", pa.float64(), nullable=False),
            # Share of the group that the observed events can concern; at least 0.1 is asked for.
            pa.field("reach", pa.float64(), nullable=False),
            # Whether it can single a group out, or only counts beside a test that did.
            pa.field("alone", pa.bool_(), nullable=False),
            # What p is compared with: 0.01 over all `tests` of the run.
            pa.field("level", pa.float64(), nullable=False),
            pa.field("tests", pa.int32(), nullable=False),
            # What `expected` follows from: of work_split P, Pa, Pb (Pa Pb / P); of handover and replay pairs outside,
            # members looked at n, accounts N (pairs n (n - 1) / (N (N - 1))); of signup_batch n and chance of each
            # day and mail class in turn (sum of n (n - 1) / 2 x chance); of takeover the endings within 15 minutes of
            # each beginning (sum of min(1, endings x 120 / 1800)); of fan_out the share and the members judged.
            pa.field("counts", pa.list_(pa.float64()), nullable=False),
        ]
    ),
    # What the score follows from. `kind`: `reference` (no campaign) or `campaign`. References are in the order of
    # their scores.
    "proof_scores": pa.schema(
        [
            pa.field("kind", pa.string(), nullable=False),
            pa.field("campaign_id", pa.string()),
            pa.field("evasion", pa.float64(), nullable=False),
            # log10((m (m - 1) / 2 + 1) / (c + 3)) of m items with c coinciding pairs.
            pa.field("space", pa.float64(), nullable=False),
            # Accounts of the group when it was scored.
            pa.field("size", pa.int64(), nullable=False),
            pa.field("score", pa.float64(), nullable=False),
            # m and c of campaigns, null for references.
            pa.field("items", pa.int64()),
            pa.field("coincidences", pa.int64()),
        ]
    ),
}


def nothing_proved() -> dict[str, pa.Table]:
    """The tables of a scan that names no campaign."""
    return {name: schema.empty_table() for name, schema in PROOF.items()}
