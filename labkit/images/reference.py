"""The name of an image as it is typed, and the registry that answers to it: docker.io is the lab's own here.

See:
    https://github.com/distribution/reference; docker-image-pull(1)
"""

from __future__ import annotations

from dataclasses import dataclass

from labkit.errors import LabError
from labkit.host.services import accounts
from labkit.host.services.places import places
from labkit.images.oci import is_digest
from labkit.images.registry import Registry

DOCKER = "docker.io"


@dataclass(frozen=True)
class Reference:
    """What a name says.

    Attributes:
        host: of the registry; `docker.io` where the name has none.
        repository: in it; of docker.io with `library/`, where the name has no other.
        tag: or digest; `latest` where the name has none.
    """

    host: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, name: str) -> Reference:
        """Read a name: `alpine`, `localhost:5001/lfstudent/alpine:training`, `alpine@sha256:...`.

        Raises:
            LabError: there is no repository in it.
        """
        path, _, digest = name.partition("@")
        host, slash, rest = path.partition("/")
        if not slash or not (host == "localhost" or "." in host or ":" in host):
            host, rest = DOCKER, path
        repository, colon, tag = rest.rpartition(":")
        if not colon:
            repository, tag = rest, "latest"
        if not repository or (digest and not is_digest(digest)):
            raise LabError(f"{name!r} is no name of an image", remedy="HOST:PORT/REPOSITORY:TAG, or only REPOSITORY")
        library = "library/" if host == DOCKER and "/" not in repository else ""
        return cls(host, library + repository, digest or tag)

    def registry(self) -> Registry:
        """Return the registry: of docker.io the mirror, of the registry with accounts as the student.

        Raises:
            LabError: the registry with accounts was never set up.
        """
        here = places()
        if self.host == DOCKER:
            return Registry(here.registry_address)
        if self.host == here.accounts_address:
            return with_accounts()
        return Registry(self.host)

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}{'@' if is_digest(self.tag) else ':'}{self.tag}"


def with_accounts() -> Registry:
    """Return the registry with accounts, asked as the student.

    Raises:
        LabError: it was never set up.
    """
    here = places()
    try:
        password = (here.accounts_directory / "password").read_text().strip()
    except OSError as error:
        raise LabError(f"{error.filename}: {error.strerror}", remedy="labkit up accounts") from error
    return Registry(here.accounts_address, user=accounts.USER, password=password, ca_file=here.accounts_directory / "ca.crt")
