"""`python -m stillwatch`, and what the command `stillwatch` starts.

Loading the compiled parts takes seconds, in which somebody may press Ctrl-C: that is no reason for a traceback.
"""

from __future__ import annotations

import sys


def run() -> None:
    """Load the commands and run one."""
    try:
        from stillwatch.cli import main
    except KeyboardInterrupt:
        print("stillwatch: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
    main()


if __name__ == "__main__":
    run()
