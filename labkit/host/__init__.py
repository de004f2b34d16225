"""This machine: what it can do, and the services of the lab."""
