"""Other explanations than harvesting, each with whether it was tested and what came out.

What clears a group, and from where on, is fixed in `scan.verdict` and `detect.explain`: a group that one of these
explains has another verdict than `campaign`. Where the results hold the measured value, it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stillwatch.detect.explain import BENCHMARK_SHARE, CLASSROOM_SITE, WEB_SHARE
from stillwatch.scan.verdict import ENTITY_SHARE, HIDDEN_SHARE

RULES = "follows from the rules for verdicts; computed again by replay, where the log is"
WORD = "stated by the operator"
NO, PART, OPEN = "does not explain it", "in part", "not tested"
Number = Callable[..., dict[str, Any]]
Said = Callable[..., dict[str, Any]]
SHOWN_ITEMS = 0.2
"""Share of public items from which the results say it."""


def alternatives(number: Number, docs: Mapping[str, Any], said: Said) -> list[dict[str, Any]]:
    """Statements, each with a `name` and an `outcome`: `does not explain it`, `in part`, `not tested`."""
    finding = docs["finding.json"]
    group, run = finding["group"], finding["run"]
    against = {part["signal"]: (at, part["text"]) for at, part in enumerate(group["counter_evidence"])}
    claims = {claim["name"]: (at, claim) for at, claim in enumerate(group["claims"])}
    out: list[dict[str, Any]] = []

    def add(
        name: str,
        outcome: str,
        text: str,
        numbers: Sequence[Mapping[str, Any]] = (),
        tag: str = "observed",
        signal: str | None = None,
        rests_on: str = RULES,
    ) -> None:
        side = "for" if outcome == NO else "against"
        quotes = (
            [f"finding.json#/group/counter_evidence/{against[signal][0]}/text"] if signal in against else []
        )
        out.append({"name": name, "outcome": outcome, **said(tag, text, numbers, side, quotes, rests_on)})

    at, claim = claims["coordinated"]
    p = [number(n, f"finding.json#/group/claims/{at}/{n}") for n in ("p", "q") if claim[n] is not None]
    add(
        "Chance, or habits that many share", NO,
        "Random groups of real accounts, alike in age, volume and hours where the test says so, were put in the "
        "group's place. Something that many hold (a great mail provider, a carrier, a popular prompt) weighs next to "
        "nothing.",
        p, "inferred",
    )  # fmt: skip
    owners = number("owners", "finding.json#/group/entities")
    add(
        "One verified organisation", NO,
        "Accounts of one verified organisation count as one before anything is tested: what colleagues share is no "
        f"evidence. Among the accounts {_owners(group['entities'])}.",
        [owners],
    )  # fmt: skip
    text = "The operator lists no contract that permits it for all of the accounts; such a group is cleared."
    add("Permitted by contract", NO, text, rests_on=WORD)
    text = "Behind a registered gateway each verified end user is judged apart, and the gateway for none of them."
    add("A registered gateway that resells access", NO, text, rests_on=WORD)
    at, claim = claims["one_director"]
    share = 1 - claim["statistic"] if claim["statistic"] is not None else None
    if share is not None and "does not say enough" not in claim["text"]:
        add(
            "Openly one customer", PART if "openness" in against else NO,
            f"At most {100 * share:.0f} % of the accounts stand behind one payer, address block or mail domain; from "
            f"{100 * HIDDEN_SHARE:.0f} % on the group would be openly one customer, and no campaign.",
            [number("share that hides it", f"finding.json#/group/claims/{at}/statistic")],
        )  # fmt: skip
        add(
            "A class or a course", NO,
            f"A class has at least {100 * CLASSROOM_SITE:.0f} % behind one site; here it is at most "
            f"{100 * share:.0f} %.",
            [number("share that hides it", f"finding.json#/group/claims/{at}/statistic")],
        )  # fmt: skip
    else:
        add("Openly one customer", OPEN, "The log does not say enough about payers, sites and mail.")
        add("A class or a course", OPEN, "The log does not say enough about sites.")
    declared, items, came = (
        against.get(name) for name in ("declared_owner", "public_items", "came_together")
    )
    add(
        "One declared owner", PART if declared else NO,
        f"{declared[1]} With nothing bought or registered behind it, it is neither evidence nor excuse." if declared
        else f"Fewer than {100 * ENTITY_SHARE:.0f} % of the accounts declare one owner.",
        signal="declared_owner",
    )  # fmt: skip
    add(
        "A benchmark, or public items", PART if items else NO,
        (items[1] if items
         else f"Less than {100 * SHOWN_ITEMS:.0f} % of its requests are items that unrelated accounts run too.")
        + f" A benchmark has at least {100 * BENCHMARK_SHARE:.0f} %, and stops when the items are used up.",
        signal="public_items",
    )  # fmt: skip
    add(
        "People who came together, for an event", PART if came else NO,
        came[1] if came else "Sign-ups are not all that points at one director, or at least "
        f"{100 * WEB_SHARE:.0f} % of the accounts hang together by one stock of addresses, cards, devices or mail.",
        signal="came_together",
    )  # fmt: skip
    prompts = [table["name"] for table in run["tables"] if "prompt" in table["name"]]
    add(
        "Published prompts that anybody may copy", NO if prompts else OPEN,
        "Wording of published prompts weighs nothing; the run had a table of them." if prompts
        else "The run had no table of published prompts. A wording that many unrelated accounts use weighs little "
        "all the same.",
    )  # fmt: skip
    if "withheld" in against:
        add("Accounts that stand on one kind of evidence", PART, against["withheld"][1], signal="withheld")
    for view in ("FORM", "LINK", "TIME"):
        if view in against:
            name = f"A kind of evidence that does not confirm it ({view})"
            add(name, PART, against[view][1], signal=view)
    return out


def _owners(count: int) -> str:
    if count == 0:
        return "none names an owner"
    return f"{count} different owner{'s are' if count > 1 else ' is'} declared or verified"
