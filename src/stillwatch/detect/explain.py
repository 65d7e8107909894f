"""Stage 5, the other side: how open the common control is, and which causes explain coordination away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stillwatch.detect.keys import KeyIndex
from stillwatch.detect.population import I64

SEEN_SHARE = 0.5
LEAST_SEEN = 2
BENCHMARK_SHARE = 0.8
"""Share of the group's total that must be items which unrelated outsiders run too."""
BENCHMARK_OUTSIDERS = 5
BENCHMARK_FILL = 0.5
"""Share of the finite item set that the median member runs: whoever runs a benchmark runs most of it."""
CLASSROOM_SITE = 0.6
CLASSROOM_PAYERS = 0.8
CLASSROOM_TOTAL = 60
"""Exchanges per member that a course may cost in two weeks."""
CLASSROOM_COMMON = 0.1
CLASSROOM_CALENDAR = 1.5
"""Members meet in one hour of one day this many times as often as their hours of the day alone explain."""
WEB_CHANCE = 0.1
"""Keys, of all there are, that a random group of this size would be expected to hold as often as a key that ties."""
WEB_COMMON = 0.01
"""Share of all accounts above which a key is a provider's (webmail, a carrier) and ties nobody."""
WEB_SHARE = 0.5
"""Share of the members in one web of shared keys from which the group is more than people who came together."""


@dataclass(frozen=True, slots=True)
class Openness:
    """How visibly the members belong together: the largest share behind one payer, address block or mail domain."""

    share: float
    kind: str
    seen: tuple[str, ...] = ()
    """Kinds that the log gives for at least half of the members."""
    payer: float = 0.0
    """The largest share behind one payer, where payers are seen."""

    @property
    def known(self) -> bool:
        """Whether enough kinds are seen to say that common control was hidden: one alone may be a gap in the log."""
        return len(self.seen) >= LEAST_SEEN

    @property
    def evasion(self) -> float:
        """Evasion cost paid: 1 - share; 0 where the log does not say who is behind the accounts."""
        return 1.0 - self.share if self.known else 0.0


def distinct(first: I64, second: I64) -> tuple[I64, I64]:
    """Distinct pairs of parallel integers, sorted; `second` is not negative. One number a pair sorts fast."""
    width = int(second.max(initial=0)) + 1
    code = np.sort(first.astype(np.int64) * width + second)
    code = code[np.append(True, code[1:] != code[:-1])] if len(code) else code
    one = code // width
    return one, code - one * width


def largest_share(codes: I64) -> float:
    """Share of the most common code; negative codes mean "none" and count as different. Shape (members,)."""
    known = codes[codes >= 0]
    return float(np.bincount(known).max() / len(codes)) if len(known) else 0.0


def openness(payer: I64, block: I64, corporate_mail: I64, mail: I64) -> Openness:
    """From codes per member, -1 where unknown; `corporate_mail` is -1 for webmail too, which `mail` knows.

    Members whose payer or mail the log does not give say nothing about how hidden the others are, as long as it gives
    them for half. An account without a main address block moves about, which is not a gap in the log.
    """
    given = {"payment": payer, "address_block": block, "mail_domain": mail}
    seen = tuple(name for name, codes in given.items() if len(codes) and (codes >= 0).mean() >= SEEN_SHARE)
    shares = {
        "payment": largest_share(payer[payer >= 0] if "payment" in seen else payer),
        "address_block": largest_share(block),
        "mail_domain": largest_share(corporate_mail[mail >= 0] if "mail_domain" in seen else corporate_mail),
    }
    kind = max(shares, key=lambda name: shares[name])
    payers = shares["payment"] if "payment" in seen else 0.0
    return Openness(shares[kind], kind, seen, payers)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What was measured for the reason `benchmark`."""

    clears: bool
    share: float
    """Share of the group's exchanges that are items which at least BENCHMARK_OUTSIDERS outsiders run too."""
    fill: float
    """Median share of those items that a member runs."""
    stops: bool
    """Use ends when the items are exhausted: members repeat no item more than a few times."""


def benchmark(account: I64, item: I64, outsiders: I64, members: int) -> Benchmark:
    """A finite set of items that unrelated accounts outside the group run as well, and use that stops.

    `account`, `item` int64 (exchanges of the group,): dense codes; `outsiders` int64 (items,): unrelated accounts
    outside the group that run the item.
    """
    if len(item) == 0:
        return Benchmark(False, 0.0, 0.0, False)
    public = outsiders >= BENCHMARK_OUTSIDERS
    share = float(public[item].mean())
    who, what = distinct(account, item)
    who = who[public[what]]
    per_member = np.bincount(who, minlength=members)[:members]
    size = int(public.sum())
    fill = float(np.median(per_member) / size) if size else 0.0
    repeats = len(item) / max(1, len(who))
    stops = repeats <= 3.0
    return Benchmark(share >= BENCHMARK_SHARE and fill >= BENCHMARK_FILL and stops, share, fill, stops)


@dataclass(frozen=True, slots=True)
class Classroom:
    """What was measured for the reason `classroom`."""

    clears: bool
    site: float
    """Largest share of members behind one address block."""
    payers: float
    """Distinct known payers per member."""
    per_member: float
    """Exchanges per member."""
    calendar: float
    """Meetings of two members in one hour, over those expected if each kept its hours and drew its days."""
    common: float
    """Share of the group's requests that another member made too."""


def common_items(account: I64, item: I64) -> float:
    """Share of requests whose item another account has too. Parallel arrays of dense codes (requests,)."""
    if len(item) == 0:
        return 0.0
    holders = np.bincount(distinct(item, account)[0])
    return float((holders[item] >= 2).mean())


def classroom(block: I64, payer: I64, exchanges: I64, calendar: float, common: float) -> Classroom:
    """One site, shared calendar, distinct payers, small total, and the same assignments.

    Codes per member, -1 where unknown; `common` as `common_items` gives it. Repeated items alone clear nobody, but a
    course in which no two members ever ask the same thing is not one.
    """
    site = largest_share(block)
    known = payer[payer >= 0]
    payers = float(len(np.unique(known)) / len(known)) if len(known) else 0.0
    per_member = float(exchanges.mean()) if len(exchanges) else 0.0
    clears = (
        site >= CLASSROOM_SITE
        and payers >= CLASSROOM_PAYERS
        and per_member <= CLASSROOM_TOTAL
        and calendar >= CLASSROOM_CALENDAR
        and common >= CLASSROOM_COMMON
    )
    return Classroom(clears, site, payers, per_member, calendar, common)


def calendar(hour: I64, member: I64) -> float:
    """Meetings in one hour over those expected from the hours of the day. `hour` since 1970, `member`: parallel."""
    active, _ = distinct(hour, member)
    together = np.unique(active, return_counts=True)[1]
    of_day = np.unique(active % 24, return_counts=True)[1]
    expected = float((of_day * (of_day - 1)).sum()) / max(1, len(np.unique(active // 24)))
    return float((together * (together - 1)).sum()) / expected if expected > 0 else 0.0


def tying_keys(index: KeyIndex, members: I64) -> I64:
    """Keys that more members hold than chance explains, and that are no provider's, sorted."""
    key, count = index.held(members)
    df = index.key_offsets[key + 1] - index.key_offsets[key]
    several = (count >= 2) & (index.weight[key] > 0) & (df <= WEB_COMMON * index.accounts)
    key, count, df = key[several], count[several], df[several]
    chance = stats.poisson.sf(count - 1, df * (len(members) / index.accounts))
    return key[chance * index.shared <= WEB_CHANCE]


def webs(index: KeyIndex, members: I64) -> I64:
    """Number of the web that each member is in, shape (members,): members tied by keys that more of them hold than
    chance can explain, directly or through others. Who is tied to nobody is a web alone."""
    ties = np.zeros(index.n_keys, bool)
    ties[tying_keys(index, members)] = True
    lengths = index.account_offsets[members + 1] - index.account_offsets[members]
    first = np.repeat(index.account_offsets[members] - np.cumsum(lengths) + lengths, lengths)
    keys = index.keys[first + np.arange(lengths.sum())].astype(np.int64)
    owner = np.repeat(np.arange(len(members)), lengths)
    owner, keys = owner[ties[keys]], np.unique(keys[ties[keys]], return_inverse=True)[1]
    size = len(members) + int(keys.max(initial=-1)) + 1
    edges = coo_array((np.ones(len(owner), np.int8), (owner, len(members) + keys)), shape=(size, size))
    return connected_components(edges, directed=False)[1][: len(members)].astype(np.int64)


def web(index: KeyIndex, members: I64) -> float:
    """Share of the members in the largest web.

    Whoever runs many accounts draws on one stock of addresses, instruments and domains, and nearly all of them hang
    together by it. People who came together, for an event or a course, hang together in small teams, if at all.
    """
    return float(np.bincount(webs(index, members)).max() / len(members)) if len(members) else 0.0
