"""The JSON schema of `findings.json`, made from the records. Run as a module to write the file again."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from stillwatch.schema.results import SCHEMA_VERSION, Findings

NAME = "findings.schema.json"


def build() -> str:
    """The schema as text (JSON Schema 2020-12), ending in a newline."""
    schema: dict[str, Any] = msgspec.json.schema(Findings)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Stillwatch findings, version {SCHEMA_VERSION}",
        **schema,
    }
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def shipped() -> str:
    """The schema that the installed package carries."""
    return resources.files("stillwatch.schema").joinpath(NAME).read_text(encoding="utf-8")


if __name__ == "__main__":
    Path(__file__).with_name(NAME).write_text(build(), encoding="utf-8")
