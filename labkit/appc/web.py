"""What rkt asks of the web: a page, or a file, over TLS unless it may do without; a proxy of the environment is used, and named.

See: appc spec discovery.md; RFC 9110, RFC 9111
"""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

from labkit.errors import LabError

LARGEST = 8 * 2**30
"""Bytes that a file from the web may have."""
LARGEST_PAGE = 2**20
"""Bytes that are read of a page, a key or a signature."""

_CHUNK = 2**18


class WebError(LabError):
    """Say that the web did not give what was asked for.

    Args:
        status: of HTTP; 0 where nobody answered.
    """

    def __init__(self, message: str, status: int = 0, **why: str | None) -> None:
        super().__init__(message, **why)
        self.status = status


@dataclass(frozen=True)
class Downloaded:
    """What came with a file.

    Attributes:
        size: its bytes; 0 where it was not sent, because we have it.
        etag: by which the server knows it.
        unchanged: whether it is the one of the ETag that was shown (304).
    """

    size: int
    etag: str
    unchanged: bool = False


class _Guarded(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from TLS to none unless that is allowed."""

    def __init__(self, schemes: tuple[str, ...]) -> None:
        self._schemes = schemes

    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl).scheme not in self._schemes:
            raise WebError(f"{req.full_url} sends us to {newurl}", cause="not over https", remedy="--insecure-options=http")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Web:
    """The web as one command of rkt sees it.

    Args:
        plain: whether http without TLS may be used.
        unverified: whether a certificate may be anybody's (`--insecure-options=tls`).
        say: told each line of progress.
        timeout: seconds of silence after which a server counts as gone.
    """

    def __init__(self, *, plain: bool = False, unverified: bool = False, say: Callable[[str], object] = str, timeout: float = 30) -> None:
        self.schemes = ("https", "http") if plain else ("https",)
        self._say, self._timeout = say, timeout
        self._told: set[str] = set()
        self._unverified = unverified

    @cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        """Loads the certificates, which takes a while: not for an image that the store has."""
        context = ssl.create_default_context()  # SSL_CERT_FILE of the environment counts
        if self._unverified:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _Guarded(self.schemes))

    def page(self, url: str) -> bytes:
        """Return a small document.

        Raises:
            WebError: no answer, another status than 200, more than LARGEST_PAGE.
        """
        with self._open(url) as answer:
            data = _read(answer, LARGEST_PAGE + 1, url)
        if len(data) > LARGEST_PAGE:
            raise WebError(f"{url}: more than {LARGEST_PAGE} bytes")
        return data

    def download(self, url: str, file: Path, *, etag: str = "", largest: int = LARGEST) -> Downloaded:
        """Write what a server sends into a file.

        Args:
            url: where it is.
            file: where it goes; it is not touched where the server has the one of the `etag` still.
            etag: of the one that we have.
            largest: bytes at the most.

        Raises:
            WebError: no answer, another status than 200, too much, or less than was announced.
        """
        try:
            answer = self._open(url, {"If-None-Match": etag} if etag else {})
        except WebError as error:
            if error.status == 304 and etag:
                return Downloaded(0, etag, unchanged=True)
            raise
        with answer, file.open("wb") as kept:
            announced, size = answer.headers.get("Content-Length"), 0
            while data := _read(answer, _CHUNK, url):
                size += len(data)
                if size > largest:
                    raise WebError(f"{url}: more than {largest} bytes")
                kept.write(data)
        if announced is not None and announced.isdecimal() and size < int(announced):
            raise WebError(f"{url} broke off after {size} of {announced} bytes", remedy="run it again")
        return Downloaded(size, answer.headers.get("ETag") or "")

    def _open(self, url: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
        parts = split(url)
        if parts.scheme not in self.schemes:
            raise WebError(f"{url}: {parts.scheme or 'no'} scheme is not used", cause=f"only {' and '.join(self.schemes)}")
        self._tell(parts)
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "rkt", **(headers or {})})  # noqa: S310 - checked above
            return cast(http.client.HTTPResponse, self._opener.open(request, timeout=self._timeout))
        except urllib.error.HTTPError as error:
            with error:
                raise WebError(f"bad HTTP status code: {error.code}", error.code, cause=url) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise WebError(f"{parts.netloc} cannot be reached", cause=_why(error)) from error

    def _tell(self, parts: urllib.parse.SplitResult) -> None:
        """Say once for each host that a proxy stands between it and us."""
        proxy = urllib.request.getproxies().get(parts.scheme)
        if proxy and parts.netloc not in self._told and not urllib.request.proxy_bypass(parts.netloc):
            self._told.add(parts.netloc)
            self._say(f"image: {parts.netloc} is asked through the proxy {re.sub(r'//.*@', '//', proxy)}")


def split(url: str) -> urllib.parse.SplitResult:
    """Return the parts of a URL.

    Raises:
        WebError: it is none.
    """
    try:
        return urllib.parse.urlsplit(url)
    except ValueError as error:
        raise WebError(f"{url!r} is no URL", cause=str(error).lower()) from error


def _read(answer: http.client.HTTPResponse, size: int, url: str) -> bytes:
    try:
        return answer.read(size)
    except (OSError, http.client.HTTPException) as error:
        raise WebError(f"{url} broke off", cause=_why(error), remedy="run it again") from error


def _why(error: BaseException) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {reason.verify_message}"
    return str(getattr(reason, "strerror", None) or reason or type(reason).__name__).lower()
