"""The chain of custody: from a row of the log to a claim, and who can check which step of it."""

from __future__ import annotations

from typing import Any

ALONE, TOLD = "anybody, with verify.py", "nobody outside"
THERE = "where the log is, with `stillwatch evidence replay`"
AGAIN = "where the log and the key ring are, by building the bundle again"


def custody(rows: int, eligible: int, inputs: int) -> list[dict[str, Any]]:
    """Steps in their order: what is linked to what, how, and who can check it."""
    return [
        {
            "from": "a row of the log", "to": "its commitment in rows.jsonl (`raw`)", "who": AGAIN,
            "how": "SHA-256 over a salt that only the key ring can make again, and the whole row. `stillwatch "
            "evidence reveal` shows a single row with its salt, to a court; the others stay closed.",
        },
        {
            "from": "the commitments", "to": "the signed statement", "who": ALONE,
            "how": f"{rows:,} rows, chosen by a keyed hash from the {eligible:,} that the claims rest on, are leaves "
            "of a Merkle tree whose root is signed. Rows that were taken out later leave their hashes.",
        },
        {
            "from": "an input file", "to": "the log's entry of the scan", "who": THERE,
            "how": f"The entry covers the SHA-256 of {inputs:,} input file{'s' if inputs != 1 else ''}; whoever has "
            "them compares. That a row is row number N of a file follows from the file.",
        },
        {
            "from": "the inputs", "to": "the results", "who": THERE,
            "how": "The same inputs, version, configuration and seed give the same results, byte for byte; the entry "
            "of the scan holds their SHA-256.",
        },
        {
            "from": "the results", "to": "the finding", "who": ALONE,
            "how": "The log's entry of the finding names the results, and holds the SHA-256 of the finding as it "
            "stands in finding.json.",
        },
        {
            "from": "the log's entries", "to": "a signed checkpoint", "who": ALONE,
            "how": "Merkle proofs (RFC 9162). That the log was not made anew later, a checkpoint shows that somebody "
            "else noted at the time.",
        },
        {
            "from": "counts, null values, reference scores", "to": "bits, p and q", "who": ALONE,
            "how": "Computed again from the numbers in counts.json and vectors.json.",
        },
        {
            "from": "the log", "to": "counts, null values, reference scores, bits in TIME", "who": THERE,
            "how": "Draws are counter-based: SHA-256 of seed, candidate and number of the draw.",
        },
        {
            "from": "the finding", "to": "a claim", "who": ALONE,
            "how": "Each statement names the numbers that it rests on, and where they stand.",
        },
        {
            "from": "what happened", "to": "a row of the log", "who": TOLD,
            "how": "That the operator's servers wrote down what happened is the operator's word.",
        },
    ]  # fmt: skip
