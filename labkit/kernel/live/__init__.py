"""The kernel's state while it changes: one process collects it for all views, and ends when nobody looks any more.

A `Feed` is all that a view needs. The collector (`python -m labkit.kernel.live`) is started by the first who looks, and serves
every notebook and terminal that has the same state directory.
"""

from labkit.kernel.live.feed import Feed
from labkit.kernel.live.frame import Contained, Frame, LayerFile, Layers, Member, Meter, Network, Pressure, Traffic, changed

__all__ = ["Contained", "Feed", "Frame", "LayerFile", "Layers", "Member", "Meter", "Network", "Pressure", "Traffic", "changed"]
