"""What was observed, in words without numbers: exact counts stay with the operator."""

from __future__ import annotations

from collections.abc import Sequence

OBSERVED = {
    "exchanges": "Accounts of the group sent requests to the model's interface.",
    "fan_out": "Accounts have more users behind them than one has.",
    "replay": "Reasoning blocks were sent back under other accounts than they were given to.",
    "handover": "Accounts continued each other's conversations.",
    "takeover": "Accounts began when others ended or were banned.",
    "work_split": "Items of one template are shared out among accounts without overlap.",
    "signup_batch": "Accounts were made in runs that chance does not explain.",
    "mail_domain": "Most accounts have a mail domain from one small stock.",
    "address_block": "Most accounts connect from one small stock of address blocks.",
    "prompt_family": "Accounts share a prompt template that hardly anybody else uses.",
    "system_family": "Accounts share the wording of a system prompt that hardly anybody else uses.",
    "system_prompt": "Accounts share a system prompt that hardly anybody else uses.",
    "output_format": "Accounts ask for an output format that hardly anybody else asks for.",
    "elicit_reasoning": "Requests ask for the reasoning itself, written out.",
    "grade_answers": "Requests have answers graded or compared, as a reward model does.",
    "clean_traces": "Requests have reasoning traces or solutions cleaned or rewritten.",
    "make_training_data": "Requests make instructions, problems or pairs of question and answer in bulk.",
    "harvest_like": "Requests are what a harvest of the model's outputs looks like.",
    "capabilities": "Requests ask for particular abilities of the model.",
    "one_director": "One hand directs accounts that were made to look unrelated.",
    "coordinated": "Accounts act together more than accounts that are alike do by chance.",
}
"""By the signals of `campaign.techniques`, and the claims."""

LIMITS = (
    "No prompt, address, mail domain or account is in here. Numbers are rounded down. A fingerprint is one kind of "
    "evidence and never enough alone: honest people use the same wording. Who is behind the campaign is not said."
)
"""What every consumer must know."""


def observed(signals: Sequence[str]) -> str:
    """Sentences for `signals`, in their order."""
    return " ".join(OBSERVED[signal] for signal in signals)


def at_least(count: int, what: str, least: int = 1) -> str:
    """`at least 50 accounts`; below `least` the number is not told: `fewer than 5 accounts`."""
    return f"at least {count:,} {what}" if count >= least else f"fewer than {least:,} {what}"
