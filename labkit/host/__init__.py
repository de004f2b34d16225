"""The machine that the labs run on: what it can do, and the services that they use."""
