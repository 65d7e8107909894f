"""Methods that others would use on the same logs. Each sees the log and never the truth.

A baseline writes the same result files as a scan, so that one code scores both. Its settings were chosen by what its
source or common practice says, before any score was seen.
"""

from __future__ import annotations

from stillwatch.arena.baselines import distribution, infrastructure, notebook, packages, rules
from stillwatch.arena.board.method import Method
from stillwatch.schema.errors import UsageError

BASELINES: dict[str, Method] = {
    method.name: method
    for method in (
        Method("notebook", notebook.ABOUT, notebook.run),
        Method("key_rules", rules.ABOUT, rules.run),
        Method("rings", infrastructure.ABOUT, infrastructure.run),
        Method("mmd", distribution.ABOUT_MMD, distribution.run_mmd),
        Method("prada", distribution.ABOUT_PRADA, distribution.run_prada),
        Method("honeypotllm", packages.ABOUT_HONEYPOT, packages.run_honeypotllm),
        Method("coordination_network", packages.ABOUT_NETWORK, packages.run_coordination_network),
    )
}


def baselines(names: str | None) -> list[Method]:
    """Baselines by name (`rings,mmd`), or `all`. UsageError for an unknown name."""
    if not names:
        return []
    asked = list(BASELINES) if names == "all" else [name.strip() for name in names.split(",")]
    for name in asked:
        if name not in BASELINES:
            raise UsageError(
                f"there is no baseline {name!r}", hint=f"choose from {', '.join(BASELINES)}, or all"
            )
    return [BASELINES[name] for name in asked]
