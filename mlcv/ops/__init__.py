"""Operators; they import with torch alone."""

from mlcv.ops.transport.interface import conditional_transport, transport_plans

__all__ = ["conditional_transport", "transport_plans"]
