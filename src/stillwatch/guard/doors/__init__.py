"""Doors: how a gateway asks the guard. Each turns what it sees into a `Subject`, and a `Decision` into its answer."""
