"""Checkpoints of lab 8.1."""
TITLE = "Networks of Docker"
AIMS = ()
NEEDS = ("root", "namespaces", "ip", "nft", "dockerd", "registry")
CLAIMS = (("docker machine", "server"),)
CHECKPOINTS = ()
