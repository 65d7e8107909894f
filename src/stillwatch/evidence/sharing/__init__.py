"""A confirmed campaign in the formats that partners read, without prompts, addresses, domains or account ids."""

from stillwatch.evidence.sharing.formats import FORMATS, Format, share
from stillwatch.evidence.sharing.outgoing import Outgoing, Request, outgoing
from stillwatch.evidence.sharing.terms import TLP, Terms, moment, terms

__all__ = [
    "FORMATS",
    "TLP",
    "Format",
    "Outgoing",
    "Request",
    "Terms",
    "moment",
    "outgoing",
    "share",
    "terms",
]
