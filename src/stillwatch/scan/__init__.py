"""Composes the stages: `scan()` is the public call."""

from stillwatch.scan.run import How, Options, Scanned, scan, scan_each

__all__ = ["How", "Options", "Scanned", "scan", "scan_each"]
