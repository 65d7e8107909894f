"""What is publicly known about networks, mail domains and prompts: tables that a scan may look things up in.

They are optional. `stillwatch data update` fetches them, or takes them from a folder; a scan without them says what
it could not see.
"""

from stillwatch.ingest.lookup.cache import default_folder, read_lookups, write_tables
from stillwatch.ingest.lookup.packages import PACKAGES, fetch_tables
from stillwatch.ingest.lookup.shapes import COSTS, NAMES, read_supplied
from stillwatch.ingest.lookup.use import NO_LOOKUPS, Lookups

__all__ = [
    "COSTS",
    "NAMES",
    "NO_LOOKUPS",
    "PACKAGES",
    "Lookups",
    "default_folder",
    "fetch_tables",
    "read_lookups",
    "read_supplied",
    "write_tables",
]
