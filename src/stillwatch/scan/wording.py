"""Which families a group is listed with, and `families.parquet`."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from stillwatch.scan.assign import Assignment
from stillwatch.scan.content import of_families
from stillwatch.scan.context import Context, Finding
from stillwatch.scan.skeletons import Held, telling
from stillwatch.schema.results import FAMILY_ROWS
from stillwatch.views.base import mix


def held_by(context: Context, finding: Finding, assignment: Assignment) -> list[Held]:
    """Families that tell the group from others, then those that its own requests were counted in.

    Of a cleared group only the latter: its wording is nobody's business.
    """
    members = assignment.accounts
    if len(members) == 0:
        return []
    if finding.verdict == "cleared":
        return [("prompt", f) for f in finding.families.tolist()] + [
            ("system", f) for f in finding.systems.tolist()
        ]
    index = context.template(finding)
    prompts = dict.fromkeys([*telling(context, index, members, "prompt"), *finding.families.tolist()])
    systems = dict.fromkeys([*telling(context, index, members, "system"), *finding.systems.tolist()])
    return [("prompt", f) for f in prompts] + [("system", f) for f in systems]


def family_id(context: Context, name: Held) -> str:
    """The family's key in FORM, as `profiles.parquet` and the evidence name it."""
    part, number = name
    families = context.reduced.prompt_families if part == "prompt" else context.reduced.systems.families
    return f"{int(mix(families.fingerprint[[number]], f'{part}_family')[0]):016x}"


def family_rows(context: Context, held: list[Held], single: set[Held], texts: Mapping[Held, str]) -> pa.Table:
    """The table. Accounts count from the second use of a family, of the families in `single` from the first."""
    reduced, df, first = context.reduced, context.form.df(), context.form_single.df()
    prompts, systems = reduced.prompt_families, reduced.systems.families
    rows = context.rows.rows_per_family()
    asked = of_families(reduced, held)
    out: list[dict[str, object]] = []
    for part, number in held:
        key = int(context.family_key[number] if part == "prompt" else context.system_key[number])
        out.append(
            {
                "family_id": family_id(context, (part, number)),
                "fingerprint": f"{int((prompts if part == 'prompt' else systems).fingerprint[number]):016x}",
                "part": part,
                "skeleton": texts.get((part, number)),
                "accounts": int(first[key] if (part, number) in single else df[key]),
                "exchanges": int(rows[number]) if part == "prompt" else None,
                "capability": asked[part, number],
                "public": bool(context.public[key]),
            }
        )
    return pa.Table.from_pylist(out, schema=FAMILY_ROWS)
