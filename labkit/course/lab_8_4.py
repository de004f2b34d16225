"""Checkpoints of lab 8.4."""
TITLE = "The drivers of Docker's networks"
AIMS = ("x",)
NEEDS = ("root", "namespaces", "ip", "ping", "dockerd", "registry")
CLAIMS = (("docker engine", "east"), ("docker engine", "west"), ("link", "lan0"), ("netns", "lan"))
CHECKPOINTS = ()
