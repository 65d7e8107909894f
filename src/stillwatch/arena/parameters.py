"""The parameters of operations: drawn per seed, recorded in the truth, overridable by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from stillwatch.schema.errors import UsageError

P = TypeVar("P")
SHARES = {
    "cover", "obfuscate", "clean", "duty", "disposable", "virtual", "probers", "probe_refused", "abroad", "recased",
}  # fmt: skip


@dataclass(frozen=True)
class FirstParameters:
    """What can be set for the operations of the scenario `mixed`; see `Parameters` for the meanings."""

    size: int
    cover: float
    requests_per_account: float
    variants: int
    templates: int
    obfuscate: float
    clean: float


@dataclass(frozen=True)
class Parameters:
    """Size, intensity, cover, rotation and infrastructure of one operation."""

    size: int
    """Accounts."""
    requests_per_account: float
    """Mean over the whole log, harvest and cover together."""
    cover: float
    """Share of an account's requests that are ordinary use, as an unrelated person's."""
    templates: int
    """Prompt templates in use side by side; 0 where the operation has none."""
    variants: int
    """Wordings of each template."""
    obfuscate: float
    """Share of harvest requests with disguised spelling."""
    rotation_hours: float
    """Mean life of an account before the next one takes its seat; 0: accounts live the whole log."""
    clean: float
    """From 0 to 1: above one half no address of a hosting provider is used."""
    blocks_per_account: float
    """Address blocks (/24) bought per account; several accounts share one below 1."""
    payments_per_account: float
    """Payment instruments bought per account."""
    own_payment: float
    """Share of paying accounts with an instrument of their own."""
    disposable: float
    """Share of accounts with a disposable mail domain."""
    virtual: float
    """Share of paying accounts whose instrument is a virtual card."""
    batch: int
    """Accounts signed up in one run of a script."""
    duty: float
    """Share of an account's requests that follow the director's hours; the rest follow a daily curve."""


def recorded(parameters: Any) -> dict[str, Any]:
    """The parameters as plain values for the truth tables, numbers rounded to 4 digits."""
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(parameters).items()}


def override(parameters: P, values: Mapping[str, str]) -> P:
    """A copy of a parameter dataclass with the named values replaced.

    Raises UsageError for a name that the operation does not have and for text that is no number.
    """
    kinds = {f.name: type(getattr(parameters, f.name)) for f in fields(parameters)}  # type: ignore[arg-type]
    changed: dict[str, Any] = {}
    for name, text in values.items():
        if name not in kinds:
            raise UsageError(
                f"the operation has no parameter {name!r}", hint=f"it has {', '.join(sorted(kinds))}"
            )
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < 0 or (name == "size" and number < 2):
            raise UsageError(f"{text!r} is not a possible value of the parameter {name}")
        if name in SHARES and number > 1:
            raise UsageError(f"the parameter {name} is a share between 0 and 1")
        changed[name] = kinds[name](number)
    return replace(parameters, **changed)  # type: ignore[type-var]


def parse_settings(settings: Sequence[str]) -> dict[str, str]:
    """`["cover=0.75 size=120"]` as a mapping. Raises UsageError for a part without an equals sign."""
    found: dict[str, str] = {}
    for part in " ".join(settings).replace(",", " ").split():
        name, equals, value = part.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"{part!r} is not of the form NAME=VALUE")
        found[name] = value
    return found
