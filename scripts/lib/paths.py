"""Where things lie: the checkout, its cache of installed clients, and the folders of our own client programs."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "scripts" / "compat.d"
# RINGLOG_COMPAT_CACHE lets several checkouts share one set of installed clients.
CACHE = Path(os.environ.get("RINGLOG_COMPAT_CACHE") or ROOT / ".compat").resolve()
