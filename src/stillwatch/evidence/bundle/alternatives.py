"""Other explanations than harvesting, each with whether it was tested and what came out.

What clears a group, and from where on, is fixed in `scan.verdict` and `detect.explain`: a group that one of these
explains has another verdict than `campaign`. Where the results hold the measured value, it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stillwatch.detect.explain import BENCHMARK_SHARE, CLASSROOM_SITE, WEB_SHARE
from stillwatch.scan.verdict import ENTITY_SHARE, HIDDEN_SHARE

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
        name: str, outcome: str, text: str, numbers: Sequence[Mapping[str, Any]] = (), tag: str = "observed"
    ) -> None:
        side = "for" if outcome == "does not explain it" else "against"
        out.append({"name": name, "outcome": outcome, **said(tag, text, numbers, side)})

    at, claim = claims["coordinated"]
    p = [number(n, f"finding.json#/group/claims/{at}/{n}") for n in ("p", "q") if claim[n] is not None]
    add(
        "Chance, or habits that many share", "does not explain it",
        "Random groups of real accounts, alike in age, volume and hours where the test says so, were put in the "
        "group's place. Something that many hold (a great mail provider, a carrier, a popular prompt) weighs next to nothing.",
        p, "inferred",
    )  # fmt: skip
    owners = number("owners", "finding.json#/group/entities")
    add(
        "One verified organisation", "does not explain it",
        "Accounts of one verified organisation count as one before anything is tested: what colleagues share is no "
        f"evidence. Among the accounts {_owners(group['entities'])}.",
        [owners],
    )  # fmt: skip
    add("Permitted by contract", "does not explain it",
        "The operator lists no contract that permits it for all of the accounts; such a group is cleared.")  # fmt: skip
    add("A registered gateway that resells access", "does not explain it",
        "Behind a registered gateway each verified end user is judged apart, and the gateway by none of its users' doings.")  # fmt: skip
    at, claim = claims["one_director"]
    share = 1 - claim["statistic"] if claim["statistic"] is not None else None
    if share is not None and "does not say enough" not in claim["text"]:
        add(
            "Openly one customer", "in part" if "openness" in against else "does not explain it",
            f"At most {100 * share:.0f} % of the accounts stand behind one payer, address block or mail domain; from "
            f"{100 * HIDDEN_SHARE:.0f} % on the group would be openly one customer, and no campaign.",
            [number("share that hides it", f"finding.json#/group/claims/{at}/statistic")],
        )  # fmt: skip
        add(
            "A class or a course", "does not explain it",
            f"A class has at least {100 * CLASSROOM_SITE:.0f} % behind one site; here it is at most {100 * share:.0f} %.",
            [number("share that hides it", f"finding.json#/group/claims/{at}/statistic")],
        )  # fmt: skip
    else:
        add("Openly one customer", "not tested", "The log does not say enough about payers, sites and mail.")
        add("A class or a course", "not tested", "The log does not say enough about sites.")
    declared = against.get("declared_owner")
    add(
        "One declared owner", "in part" if declared else "does not explain it",
        f"{declared[1]} With nothing bought or registered behind it, it is neither evidence nor excuse." if declared
        else f"Fewer than {100 * ENTITY_SHARE:.0f} % of the accounts declare one owner.",
    )  # fmt: skip
    items = against.get("public_items")
    add(
        "A benchmark, or public items", "in part" if items else "does not explain it",
        (items[1] if items else f"Less than {100 * SHOWN_ITEMS:.0f} % of its requests are items that unrelated accounts run too.")
        + f" A benchmark has at least {100 * BENCHMARK_SHARE:.0f} %, and stops when the items are used up.",
        [number("bits", f"finding.json#/group/counter_evidence/{items[0]}/bits")] if items else [],
    )  # fmt: skip
    came = against.get("came_together")
    add(
        "People who came together, for an event", "in part" if came else "does not explain it",
        came[1] if came else "Sign-ups are not all that points at one director, or at least "
        f"{100 * WEB_SHARE:.0f} % of the accounts hang together by one stock of addresses, cards, devices or mail.",
    )  # fmt: skip
    prompts = [table["name"] for table in run["tables"] if "prompt" in table["name"]]
    add(
        "Published prompts that anybody may copy", "does not explain it" if prompts else "not tested",
        "Wording of published prompts weighs nothing; the run had a table of them." if prompts
        else "The run had no table of published prompts. A wording that many unrelated accounts use weighs little all the same.",
    )  # fmt: skip
    if "withheld" in against:
        add("Accounts that stand on one kind of evidence", "in part", against["withheld"][1])
    for view in ("FORM", "LINK", "TIME"):
        if view in against:
            add(f"A kind of evidence that does not confirm it ({view})", "in part", against[view][1])
    return out


def _owners(count: int) -> str:
    if count == 0:
        return "none names an owner"
    return f"{count} different owner{'s are' if count > 1 else ' is'} declared or verified"
