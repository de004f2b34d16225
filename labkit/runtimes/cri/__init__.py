"""The Container Runtime Interface: how Kubernetes speaks to containerd and to CRI-O, and how the labs do."""

from __future__ import annotations

from labkit.runtimes.cri.client import CallError, Client

__all__ = ["CallError", "Client"]
