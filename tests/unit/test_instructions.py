"""The history of one Dockerfile, as each builder writes it, reads the same."""

import pytest

from labkit.images.instructions import instruction
from labkit.images.oci import History

KIT = "buildkit.dockerfile.v0"
PAIRS = [
    ("/bin/sh -c date > data", "RUN /bin/sh -c date > data # buildkit", "RUN date > data"),
    ("/bin/sh -c set -x     && true", "RUN /bin/sh -c set -x     && true # buildkit", "RUN set -x && true"),
    ("|1 NO=v2 /bin/sh -c echo $NO", "RUN |1 NO=v2 /bin/sh -c echo $NO # buildkit", "RUN echo $NO  # with NO=v2"),
    ("/bin/ash -ec true", "RUN /bin/ash -ec true # buildkit", "RUN /bin/ash -ec true"),
    ("/bin/sh -c #(nop)  EXPOSE 443 80", "EXPOSE map[443/tcp:{} 80/tcp:{}]", "EXPOSE 443/tcp 80/tcp"),
    ("/bin/sh -c #(nop)  EXPOSE 53/udp", "EXPOSE [53/udp]", "EXPOSE 53/udp"),
    (f"/bin/sh -c #(nop) COPY file:{'ab' * 32} in /code/ ", "COPY run.sh /code/ # buildkit", "COPY … /code/"),
    (f"/bin/sh -c #(nop) ADD dir:{'ab' * 32} in / ", "ADD . / # buildkit", "ADD … /"),
    ("/bin/ash -ec #(nop) WORKDIR /code", "WORKDIR /code", "WORKDIR /code"),
    ('/bin/sh -c #(nop)  CMD ["nginx" "-g" "daemon off;"]', 'CMD ["nginx" "-g" "daemon off;"]', 'CMD ["nginx" "-g" "daemon off;"]'),
    (
        '/bin/sh -c #(nop)  HEALTHCHECK &{["CMD-SHELL" "test -e /x"] "1s" "0s" "0s" \'\\x01\'}',
        'HEALTHCHECK &{["CMD-SHELL" "test -e /x"] "1s" "0s" "0s" "0s" \'\\x01\'}',
        'HEALTHCHECK ["CMD-SHELL" "test -e /x"]',
    ),
    ("/bin/sh -c #(nop)  VOLUME [/data]", "VOLUME [/data]", "VOLUME [/data]"),
]


@pytest.mark.parametrize(("classic", "buildkit", "expected"), PAIRS, ids=[expected for *_, expected in PAIRS])
def test_the_builders_agree(classic: str, buildkit: str, expected: str) -> None:
    assert instruction(History(classic)) == instruction(History(buildkit, comment=KIT)) == expected


def test_what_no_builder_wrote_stays_as_it_is() -> None:
    assert instruction(History("sh")) == "sh"
    assert instruction(History("labkit images seed  # busybox")) == "labkit images seed  # busybox"
    assert instruction(History("", comment="Imported from -")) == "(an imported archive)"
    assert instruction(History("")) == "(nothing is said)"
