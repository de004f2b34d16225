"""The kernel's mechanisms, one module a manual page."""
