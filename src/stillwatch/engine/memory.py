"""What a process has held."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_memory_mib() -> int:
    """Most memory that this process has held. `ru_maxrss` survives exec, and so may be the parent's."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) // 1024
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
