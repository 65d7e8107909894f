"""Composes the stages: `scan()` is the public call."""

from stillwatch.scan.run import Options, Scanned, scan

__all__ = ["Options", "Scanned", "scan"]
