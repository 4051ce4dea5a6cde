"""Property tests here are judged by what they find, not by how fast a busy machine runs one example."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
