"""Speak with a registry: manifests, blobs, tags; every byte that comes is verified by its digest while it streams.

See:
    OCI distribution-spec; https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from labkit.errors import LabError
from labkit.images.oci import INDEXES, LARGEST_DOCUMENT, MANIFESTS, Descriptor, digest_of, is_digest

_CHUNK = 2**18
_REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")  # distribution-spec, Pulling manifests
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_LOCAL = re.compile(r"(127(\.\d+){3}|localhost|\[::1\])(:\d+)?")


class UnreachableError(LabError):
    """Say that a registry does not answer at all, or will not now; another source may."""


class RegistryError(LabError):
    """Keep the status with which a registry refused.

    Args:
        status: of HTTP.
    """

    def __init__(self, message: str, status: int, **why: str | None) -> None:
        super().__init__(message, **why)
        self.status = status


class Registry:
    """One registry, asked anew each time.

    Args:
        host: `HOST:PORT` or `HOST`, as it stands in an image's name. One of this machine is asked over plain HTTP, unless a
            `ca_file` is given.
        user: of an account, with its `password`; anonymous without.
        ca_file: certificates by which its own is checked; None takes those of this machine.
        timeout: seconds of silence after which it counts as unreachable.
    """

    def __init__(self, host: str, *, user: str = "", password: str = "", ca_file: Path | None = None, timeout: float = 30) -> None:
        plain = ca_file is None and _LOCAL.fullmatch(host) is not None
        self.host = host
        self._url = f"{'http' if plain else 'https'}://{host}"
        self._user, self._password, self._timeout = user, password, timeout
        self._authorization: dict[str, str] = {}
        handlers: list[urllib.request.BaseHandler] = []
        if not plain:
            try:
                handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_file)))
            except OSError as error:
                raise LabError(f"{ca_file}: no certificates: {error.strerror or error}") from error
        if _LOCAL.fullmatch(host):
            handlers.append(urllib.request.ProxyHandler({}))  # a proxy has no business with this machine itself
        self._opener = urllib.request.build_opener(*handlers)

    def ping(self) -> None:
        """Ask whether a registry is there and lets us in.

        Shell:
            curl https://HOST/v2/

        Raises:
            UnreachableError: no answer.
            RegistryError: it answers, and refuses.
        """
        self._ask("GET", "/v2/").close()

    def catalog(self) -> list[str]:
        """Return the names of its repositories."""
        return list(self._pages("/v2/_catalog?n=1000", "repositories"))

    def tags(self, repository: str) -> list[str]:
        """Return the tags of a repository, sorted.

        Raises:
            RegistryError: 404, there is no such repository.
        """
        return sorted(self._pages(f"/v2/{_repository(repository)}/tags/list?n=1000", "tags"))

    def head(self, repository: str, reference: str) -> Descriptor | None:
        """Return what points to a manifest, without fetching it; None where there is none."""
        try:
            with self._ask("HEAD", _manifest_path(repository, reference), accept=(*MANIFESTS, *INDEXES)) as answer:
                headers = answer.headers
        except RegistryError as error:
            if error.status == 404:
                return None
            raise
        digest = headers.get("Docker-Content-Digest") or reference
        if not is_digest(digest):
            return self.manifest(repository, reference)[0]  # the header is optional
        return Descriptor(headers.get_content_type(), digest, int(headers.get("Content-Length") or 0))

    def manifest(self, repository: str, reference: str) -> tuple[Descriptor, bytes]:
        """Fetch a manifest or index by tag or digest, verified where it is asked for by digest.

        Raises:
            RegistryError: 404, there is none.
            LabError: its bytes are not those of the digest.
        """
        with self._ask("GET", _manifest_path(repository, reference), accept=(*MANIFESTS, *INDEXES)) as answer:
            data = _read(answer, LARGEST_DOCUMENT + 1)
            media_type, said = answer.headers.get_content_type(), answer.headers.get("Docker-Content-Digest")
        expected = reference if is_digest(reference) else said
        if expected and (found := digest_of(data)) != expected and expected.startswith("sha256:"):
            raise _other_bytes(f"{self.host}/{repository}", expected, found)
        return Descriptor(media_type, digest_of(data), len(data)), data

    def blob(self, repository: str, descriptor: Descriptor) -> Iterator[bytes]:
        """Fetch a blob, piece by piece; the last piece comes only when the whole is what its digest says.

        Raises:
            RegistryError: 404, there is none.
            LabError: other bytes, or more or less than its size.
        """
        where = f"{self.host}/{repository}"
        with self._ask("GET", f"/v2/{_repository(repository)}/blobs/{_digest(descriptor.digest)}") as answer:
            found, size, held = hashlib.sha256(), 0, b""
            while data := _read(answer, _CHUNK):
                found.update(data)
                size += len(data)
                if size > descriptor.size:
                    raise LabError(f"{where}: {descriptor.digest} has more than its {descriptor.size} bytes", cause="the registry lies")
                if held:
                    yield held
                held = data
        if size < descriptor.size:
            raise UnreachableError(f"{where}: {descriptor.digest} ended after {size} of {descriptor.size} bytes", remedy="run it again")
        if f"sha256:{found.hexdigest()}" != descriptor.digest:
            raise _other_bytes(where, descriptor.digest, f"sha256:{found.hexdigest()}")
        if held:
            yield held

    def read(self, repository: str, descriptor: Descriptor) -> bytes:
        """Fetch a small blob whole, verified.

        Raises:
            LabError: it is too large to be a document, or as for `blob`.
        """
        if descriptor.size > LARGEST_DOCUMENT:
            raise LabError(f"{descriptor.digest}: {descriptor.size} bytes are no document")
        return b"".join(self.blob(repository, descriptor))

    def has_blob(self, repository: str, digest: str) -> bool:
        """Tell whether a repository has a blob."""
        try:
            self._ask("HEAD", f"/v2/{_repository(repository)}/blobs/{_digest(digest)}").close()
        except RegistryError as error:
            if error.status == 404:
                return False
            raise
        return True

    def put_blob(self, repository: str, content: IO[bytes], descriptor: Descriptor, *, mount: str = "") -> None:
        """Push a blob unless it is there; the registry verifies it. `mount` is a repository of it that may have the blob already."""
        if self.has_blob(repository, descriptor.digest):
            return
        query = "?" + urllib.parse.urlencode({"mount": descriptor.digest, "from": mount}) if mount else ""
        with self._ask("POST", f"/v2/{_repository(repository)}/blobs/uploads/{query}", push=True) as answer:
            status, location = answer.status, answer.headers.get("Location") or ""
        if status == 201:
            return
        url = urllib.parse.urljoin(self._url, location)
        url += ("&" if "?" in url else "?") + urllib.parse.urlencode({"digest": descriptor.digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)}
        self._ask("PUT", url, data=content, headers=headers, push=True).close()

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> str:
        """Push a manifest or index under a tag or its digest; return its digest.

        Raises:
            RegistryError: 400 or 404, the registry lacks a blob that it names.
        """
        self._ask("PUT", _manifest_path(repository, reference), data=data, headers={"Content-Type": media_type}, push=True).close()
        return digest_of(data)

    def delete(self, repository: str, digest: str) -> None:
        """Delete a manifest or index, and with it every tag that points to it; the blobs stay until the registry collects them.

        Shell:
            curl -X DELETE https://HOST/v2/REPOSITORY/manifests/DIGEST

        Raises:
            RegistryError: 404, there is none; 405, the registry deletes nothing.
        """
        self._ask("DELETE", _manifest_path(repository, _digest(digest)), push=True).close()

    def _pages(self, path: str, name: str) -> Iterator[str]:
        while path:
            with self._ask("GET", path) as answer:
                yield from json.loads(_read(answer, LARGEST_DOCUMENT)).get(name) or ()
                link = re.match(r'\s*<([^>]+)>;\s*rel="?next"?', answer.headers.get("Link") or "")
            path = link[1] if link else ""

    def _ask(
        self,
        method: str,
        path: str,
        *,
        data: bytes | IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        accept: tuple[str, ...] = (),
        push: bool = False,
    ) -> http.client.HTTPResponse:
        url = urllib.parse.urljoin(self._url, path)
        if urllib.parse.urlsplit(url)[:2] != urllib.parse.urlsplit(self._url)[:2]:
            raise LabError(f"{self.host} sends us to {url}", cause="an upload goes to the registry that was named, and nowhere else")
        scope = f"repository:{'/'.join(path.split('/v2/')[-1].split('/')[:-2])}:{'pull,push' if push else 'pull'}"
        for attempt in (1, 2):
            if data is not None and not isinstance(data, bytes):
                data.seek(0)
            request = urllib.request.Request(url, data=data, method=method, headers=dict(headers or {}))  # noqa: S310 - http and https only
            for media_type in (", ".join(accept),) if accept else ():
                request.add_header("Accept", media_type)
            if scope in self._authorization:
                request.add_unredirected_header("Authorization", self._authorization[scope])  # not for whom a blob is fetched from
            try:
                return cast(http.client.HTTPResponse, self._opener.open(request, timeout=self._timeout))
            except urllib.error.HTTPError as error:
                with error:
                    if attempt == 1 and error.code == 401 and self._authorize(error.headers.get("WWW-Authenticate") or "", scope):
                        continue
                    raise self._refusal(method, url, error) from error
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from error
        raise AssertionError("the second attempt returns or raises")

    def _authorize(self, challenge: str, scope: str) -> bool:
        """Answer a challenge: with the account, or with a token fetched from where it says; False where we have no answer."""
        kind, _, rest = challenge.partition(" ")
        given = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        account = base64.b64encode(f"{self._user}:{self._password}".encode()).decode() if self._user else ""
        if kind.lower() == "basic" and account:
            self._authorization[scope] = f"Basic {account}"
            return True
        if kind.lower() != "bearer" or not given.get("realm", "").startswith("https://"):
            return False
        query = urllib.parse.urlencode({"service": given.get("service", ""), "scope": given.get("scope", scope)})
        request = urllib.request.Request(f"{given['realm']}?{query}")  # noqa: S310 - https only
        if account:
            request.add_unredirected_header("Authorization", f"Basic {account}")
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                token = json.loads(answer.read(LARGEST_DOCUMENT))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal("GET", given["realm"], error) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        self._authorization[scope] = f"Bearer {token.get('token') or token.get('access_token')}"
        return True

    def _refusal(self, method: str, url: str, error: urllib.error.HTTPError) -> LabError:
        what = f"{self.host}: {method} {urllib.parse.urlsplit(url).path}: {error.code} {error.reason}"
        cause = _said(error)
        if error.code in (429, 502, 503, 504):
            return UnreachableError(what, cause=cause, remedy="try again later")
        if error.code == 401:
            cause = f"the account {self._user!r} or its password is not accepted" if self._user else "it wants an account"
            return RegistryError(what, 401, cause=cause, remedy=f"docker login {self.host}")
        return RegistryError(what, error.code, cause=cause)

    def _unreachable(self, error: BaseException) -> LabError:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return LabError(f"{self.host}: its certificate is not accepted", cause=reason.verify_message, remedy="name the CA file")
        why = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        remedy = "`labkit status` says whether it is up" if _LOCAL.fullmatch(self.host) else None
        return UnreachableError(f"registry {self.host} cannot be reached", cause=str(why).lower(), remedy=remedy)


def _read(answer: http.client.HTTPResponse, size: int) -> bytes:
    try:
        return answer.read(size)
    except (OSError, http.client.HTTPException) as error:
        cause = str(error) or type(error).__name__
        raise UnreachableError("the registry's answer broke off", cause=cause, remedy="run it again") from error


def _said(error: urllib.error.HTTPError) -> str | None:
    """Return what the registry itself gave as the reason."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        said: dict[str, Any] = json.loads(error.read(LARGEST_DOCUMENT))["errors"][0]
        detail = said.get("detail")
        return f"{said.get('message')}" + (f" ({json.dumps(detail)[:200]})" if detail else "")
    return None


def _repository(name: str) -> str:
    if _REPOSITORY.fullmatch(name) is None:
        raise LabError(f"{name!r} is no name of a repository", cause="it is made of a-z, 0-9 and separators")
    return name


def _digest(text: str) -> str:
    if not is_digest(text):
        raise LabError(f"{text!r} is no digest")
    return text


def _manifest_path(repository: str, reference: str) -> str:
    if not is_digest(reference) and _TAG.fullmatch(reference) is None:
        raise LabError(f"{reference!r} is neither a tag nor a digest")
    return f"/v2/{_repository(repository)}/manifests/{reference}"


def _other_bytes(where: str, expected: str, found: str) -> LabError:
    return LabError(f"{where}: {expected} refused", cause=f"what came has the digest {found}", remedy="do not trust this registry")
