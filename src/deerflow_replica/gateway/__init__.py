"""The LangGraph API over HTTP, on any replica (extra `gateway`)."""

from __future__ import annotations

from .._extras import extra

with extra("gateway"):
    from .app import create_app, deep_stream
    from .auth import Authenticate
    from .sse import StreamCutError

__all__ = ["Authenticate", "StreamCutError", "create_app", "deep_stream"]
