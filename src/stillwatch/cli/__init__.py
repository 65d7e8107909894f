"""`stillwatch ...`: the door for people at a terminal."""

from stillwatch.cli.main import main

__all__ = ["main"]
