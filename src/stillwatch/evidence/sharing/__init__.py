"""A confirmed campaign in the formats that partners read, without prompts, addresses, domains or account ids."""

from stillwatch.evidence.sharing.formats import FORMATS, Format, Shared, share, shared_event
from stillwatch.evidence.sharing.outgoing import Outgoing, Request, outgoing
from stillwatch.evidence.sharing.terms import TLP, Terms, moment, terms

__all__ = [
    "FORMATS",
    "TLP",
    "Format",
    "Outgoing",
    "Request",
    "Shared",
    "Terms",
    "moment",
    "outgoing",
    "share",
    "shared_event",
    "terms",
]
