"""Bundles of evidence: what is claimed of one campaign, with all that a stranger needs to check it offline."""
