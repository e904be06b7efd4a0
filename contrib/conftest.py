"""What lies here are distributions of their own: they are tested installed, not from the repository."""

from __future__ import annotations

collect_ignore = ["template"]
