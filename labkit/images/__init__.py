"""OCI images: read, written, verified, fetched from a registry and put into one; and the ones that the course needs."""
