"""Operators; they import with torch alone."""

from mlcv.ops.transport.interface import conditional_transport

__all__ = ["conditional_transport"]
