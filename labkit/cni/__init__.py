"""Networks by the Container Network Interface: read a configuration, call the plugins that it names, undo what they did.

A plugin is a program. It gets the operation in its environment and the network on its standard input, answers in JSON, and
keeps nothing: what is needed to take a container out again is kept by the caller. See: CNI specification 1.0.0
"""

from labkit.cni.attachment import Attachment
from labkit.cni.caller import Caller
from labkit.cni.configuration import ConfigurationError, Network
from labkit.cni.plugin import PLUGINS, CniError
from labkit.cni.result import Result

__all__ = ["PLUGINS", "Attachment", "Caller", "CniError", "ConfigurationError", "Network", "Result"]
