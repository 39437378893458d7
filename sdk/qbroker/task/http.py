"""Tasks that are requests over HTTP: whatever answers them, in whatever language, does the work.

    URL("http://example.com/multiply").get_async(x=10, y=10)

The answer is JSON: {"status": "success", "retval": 100}, or {"status": "failure", "reason": "Invalid moon alignment."}.
A worker runs such tasks when it imports this module (`-I qbroker.task.http`, or the setting `imports`); it needs httpx
(`pip install httpx`).

A queue must not be a way into the network its workers stand in: what is not a public address is refused unless the
setting `http_allowed_hosts` names it, and the address that was checked is the one that is spoken to.
"""

import ipaddress
import json
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from qbroker import _state
from qbroker._version import __version__
from qbroker.exceptions import ImproperlyConfigured
from qbroker.masking import masked
from qbroker.serialization import Value
from qbroker.task import Task

if TYPE_CHECKING:
    import httpx

__all__ = [
    "GET_METHODS",
    "URL",
    "HostRefused",
    "HttpDispatch",
    "HttpDispatchTask",
    "HttpUnreachable",
    "InvalidResponseError",
    "MutableURL",
    "RemoteExecuteError",
    "UnknownStatusError",
    "extract_response",
]

GET_METHODS: Final = frozenset(["GET", "HEAD"])
"""Methods whose arguments are in the URL, and which may be tried again without asking."""

RESPONSE_BYTES_MAX: Final = 4 * 1024 * 1024
"""How large an answer may be."""

Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a host, as text."""


class InvalidResponseError(Exception):
    """What was asked did not answer as such a task does."""


class UnknownStatusError(InvalidResponseError):
    """The answer is neither a success nor a failure."""


class RemoteExecuteError(Exception):
    """The task failed where it ran; the text is the reason it gave."""


class HostRefused(Exception):
    """The host may not be spoken to from a worker."""


class HttpUnreachable(Exception):
    """No answer, or not in time. `was_sent` says whether the request may have arrived."""

    def __init__(self, sentence: str = "", was_sent: bool = True) -> None:  # noqa: FBT001, FBT002 - rebuilt from its arguments
        super().__init__(sentence)
        self.was_sent = was_sent


def extract_response(raw: bytes | str) -> Value:
    """The value of an answer; RemoteExecuteError, InvalidResponseError."""
    if not raw:
        raise InvalidResponseError("Empty response")
    try:
        payload = json.loads(raw)
    except ValueError as exc:
        raise InvalidResponseError(f"the answer is not valid JSON: {exc}") from exc
    if not isinstance(payload, dict) or "status" not in payload:
        raise InvalidResponseError(
            "the answer must be an object with a status: {'status': 'success', 'retval': …} or "
            "{'status': 'failure', 'reason': …}"
        )
    status = payload["status"]
    if status == "success":
        return payload.get("retval")
    if status == "failure":
        raise RemoteExecuteError(payload.get("reason"))
    raise UnknownStatusError(str(status))


class MutableURL:
    """A URL whose query is a dict: `url.query["page"] = 2`."""

    def __init__(self, url: str) -> None:
        self.parts = urlsplit(url)
        self.query: dict[str, Value] = dict(parse_qsl(self.parts.query, keep_blank_values=True))

    def __str__(self) -> str:
        scheme, netloc, path, _, fragment = self.parts
        return urlunsplit((scheme, netloc, path, urlencode(self.query, doseq=True), fragment))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {masked(str(self))}>"


class HttpDispatch:
    """One request: a URL, a method, the task's arguments, and how it may be made."""

    timeout = 60.0

    def __init__(
        self,
        url: str,
        method: str,
        task_kwargs: Mapping[str, Value],
        *,
        allowed_hosts: Iterable[str] = (),
        timeout: float | None = None,
        redirects_max: int = 5,
        ca_file: str | None = None,
        headers: Mapping[str, str] | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self.url = url
        self.method = method.upper()
        self.task_kwargs = task_kwargs
        self._allowed_hosts = tuple(allowed_hosts)
        self._timeout_s = self.timeout if timeout is None else timeout
        self._redirects_max = redirects_max
        self._ca_file = ca_file
        self._headers = dict(headers or {})
        self._resolve = resolve or addresses_of

    def dispatch(self) -> Value:
        """Ask, and answer the value that was answered."""
        return extract_response(self.make_request())

    def make_request(self) -> bytes:
        """Send the request, follow redirects within the bound, and return the body of the answer."""
        httpx = _httpx()
        method, url, form = self.method, self.url, dict(self.task_kwargs)
        if method in GET_METHODS:
            target = MutableURL(url)
            target.query.update(form)
            url, form = str(target), {}
        headers = self._headers
        verify = ssl.create_default_context(cafile=self._ca_file)
        client = self._client(verify)
        try:
            for _ in range(self._redirects_max + 1):
                status, location, body = self._ask(client, method, url, form, headers)
                if not location:
                    if status >= 400:
                        raise InvalidResponseError(
                            f"{masked(url)} answered with the status {status}"
                        )
                    return body
                if status in (301, 302, 303) and method not in GET_METHODS:
                    method, form = "GET", {}
                try:
                    target_url = str(httpx.URL(url).join(location))
                    is_trusted = keeps_credentials(url, target_url)
                except (httpx.InvalidURL, ValueError) as exc:
                    raise InvalidResponseError(
                        f"{masked(url)} redirects to {masked(location)!r}, which is not a valid URL: {exc}"
                    ) from exc
                if not is_trusted:
                    if form:
                        raise InvalidResponseError(
                            f"{masked(url)} redirects the form of a {method} with the status {status} to another "
                            f"origin, {masked(target_url)}; the form is not sent there: call that URL itself"
                        )
                    headers = {}
                    # Cookies, and connections whose certificate was checked for another name, go as well.
                    client.close()
                    client = self._client(verify)
                url = target_url
        finally:
            client.close()
        raise InvalidResponseError(
            f"{masked(self.url)} redirects more than {self._redirects_max} times (http_redirects_max)"
        )

    def _client(self, verify: ssl.SSLContext) -> "httpx.Client":
        # Proxies of the environment would make the check of addresses void.
        client: httpx.Client = _httpx().Client(
            timeout=self._timeout_s, verify=verify, trust_env=False
        )
        return client

    def _ask(
        self,
        client: "httpx.Client",
        method: str,
        url: str,
        form: Mapping[str, Value],
        own_headers: Mapping[str, str],
    ) -> tuple[int, str, bytes]:
        """Send one request to a checked address; return status, redirect target and body."""
        httpx = _httpx()
        host, port, address = self._checked(url)
        shown = f"[{host}]" if ":" in host else host
        is_usual = port == (443 if url.lower().startswith("https:") else 80)
        headers = httpx.Headers(
            {"User-Agent": f"qbroker/{__version__}", "Accept": "application/json"}
        )
        headers.update(own_headers)
        headers["Host"] = shown if is_usual else f"{shown}:{port}"
        encoded = urlencode(form, doseq=True).encode()
        if encoded:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            request = client.build_request(
                method,
                httpx.URL(url).copy_with(host=address),
                headers=headers,
                content=encoded or None,
                # Certificates are the name's, not the address's.
                extensions={"sni_hostname": host},
            )
            answer = client.send(request, stream=True)
            try:
                body = b"".join(self._pieces(answer.iter_bytes(), url))
            finally:
                answer.close()
        except httpx.TransportError as exc:
            was_sent = not isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout)
            raise HttpUnreachable(f"{masked(url)}: {type(exc).__name__}: {exc}", was_sent) from exc
        redirects_to = answer.headers.get("Location", "") if answer.is_redirect else ""
        return answer.status_code, redirects_to, body

    @staticmethod
    def _pieces(pieces: Iterable[bytes], url: str) -> Iterable[bytes]:
        size = 0
        for piece in pieces:
            size += len(piece)
            if size > RESPONSE_BYTES_MAX:
                raise InvalidResponseError(
                    f"{masked(url)} answers more than {RESPONSE_BYTES_MAX} bytes"
                )
            yield piece

    def _checked(self, url: str) -> tuple[str, int, str]:
        """Host, port, and the address to speak to; HostRefused."""
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            # The cause would show a piece of a password that holds a slash.
            raise HostRefused(f"the URL {masked(url)!r} has no valid port") from None
        host = parts.hostname
        if parts.scheme not in ("http", "https") or not host:
            raise HostRefused(f"{masked(url)!r} is not an http or https URL")
        try:
            addresses = self._resolve(host, port)
        except OSError as exc:
            sentence = f"{masked(url)}: the host {host!r} is not known: {exc}"
            raise HttpUnreachable(sentence, was_sent=False) from exc
        for address in addresses:
            if self._may_reach(host, port, address):
                return host, port, address
        advice = (
            "name it in the setting http_allowed_hosts if workers may send requests to it"
            if not self._allowed_hosts
            else f"the setting http_allowed_hosts names only {', '.join(self._allowed_hosts)}"
        )
        raise HostRefused(
            f"{host}:{port} ({', '.join(addresses) or 'no address'}) is not allowed for workers; {advice}"
        )

    def _may_reach(self, host: str, port: int, address: str) -> bool:
        if not self._allowed_hosts:
            return is_public(address)
        return any(_fits(pattern, host, port, address) for pattern in self._allowed_hosts)


def keeps_credentials(url: str, target_url: str) -> bool:
    """Whether a redirect from one URL to the other may carry headers, cookies and form of the first.

    It may within one origin (scheme, host, port), and from http to https on one host with the default ports,
    as in httpx and requests. Raises ValueError for a port that is not a number.
    """
    before, after = _origin(url), _origin(target_url)
    if before == after:
        return True
    return before[1] == after[1] and before[::2] == ("http", 80) and after[::2] == ("https", 443)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname or "", port


def is_public(address: str) -> bool:
    """Whether the address is one of the internet's, not of a machine's or a network's own."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


def _fits(pattern: str, host: str, port: int, address: str) -> bool:
    """Whether an entry of http_allowed_hosts means it: a name, *.name, an address, a network, `public`; :port may follow."""
    if pattern == "public":
        return is_public(address)
    try:
        return ipaddress.ip_address(address.partition("%")[0]) in ipaddress.ip_network(pattern)
    except ValueError:
        name, colon, number = pattern.rpartition(":")
    if not colon or not number.isdecimal():
        name, number = pattern, str(port)
    if int(number) != port:
        return False
    name = name.strip("[]").lower()
    return host == name or (name.startswith("*.") and host.endswith(name[1:]))


def addresses_of(host: str, port: int) -> list[str]:
    """What the system's resolver knows of the host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def _httpx() -> Value:
    try:
        import httpx  # noqa: PLC0415 - an extra, needed where such tasks run
    except ImportError as exc:
        raise ImproperlyConfigured(
            "the worker that runs HTTP tasks needs httpx: pip install httpx"
        ) from exc
    return httpx


class _OnClass:
    """A method that is the instance's in the current app when it is asked of the class: `HttpDispatchTask.delay(…)`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, task: Value, owner: Value) -> Value:
        if task is None:
            app = _state.get_current_app()
            task = next(
                (one for one in app.tasks.values() if type(one) is owner), None
            ) or app.register_task(owner)
        return getattr(super(HttpDispatchTask, task), self._name)


class HttpDispatchTask(Task[..., Value]):
    """A request as a task: `HttpDispatchTask.delay(url="http://example.com/multiply", method="GET", x=10, y=10)`.

    Subclasses may have `url` and `method` of their own; then only the arguments are given. A request that reached nobody
    is tried again, up to `max_retries`; a POST only if no connection came about.
    """

    name = "qbroker.http"
    url: Value = None
    method: Value = "GET"
    max_retries: int | None = 3
    default_retry_delay: float = 5
    headers: ClassVar[Mapping[str, str]] = {}
    resolve: Resolve | None = None

    # Celery's users call the class itself.
    apply: Value = _OnClass("apply")
    apply_async: Value = _OnClass("apply_async")
    delay: Value = _OnClass("delay")
    s: Value = _OnClass("s")
    si: Value = _OnClass("si")
    signature: Value = _OnClass("signature")
    subtask: Value = _OnClass("subtask")

    def __init_subclass__(cls, **kwargs: Value) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = f"{cls.__module__}.{cls.__name__}"

    def run(self, url: str | None = None, method: str | None = None, **kwargs: Value) -> Value:
        """Ask the URL, and answer the value it answers."""
        url, method = url or self.url, method or self.method or "GET"
        if not url:
            raise TypeError(f"the task {self.name} has no url; give it one: delay(url='http://…')")
        conf = self.app.conf
        request = HttpDispatch(
            url,
            method,
            kwargs,
            allowed_hosts=conf.http_allowed_hosts,
            timeout=conf.http_timeout,
            redirects_max=conf.http_redirects_max,
            ca_file=conf.http_ca_file,
            headers=self.headers,
            resolve=self.resolve,
        )
        try:
            return request.dispatch()
        except HttpUnreachable as exc:
            if method.upper() in GET_METHODS or not exc.was_sent:
                raise self.retry(exc=exc) from exc
            raise


class URL(MutableURL):
    """A URL that can be called: `URL("http://example.com/multiply").get_async(x=10, y=10)`."""

    dispatcher: Value = HttpDispatchTask

    def __init__(self, url: str, dispatcher: Value = None, app: Value = None) -> None:
        super().__init__(url)
        self._app = app
        self.dispatcher = dispatcher or self.dispatcher

    def _task(self) -> Value:
        if self._app is None:
            return self.dispatcher
        return self._app.tasks[self.dispatcher.name]

    def get_async(self, **kwargs: Value) -> Value:
        """Have it asked by GET, the arguments in the URL."""
        return self._task().delay(str(self), method="GET", **kwargs)

    def post_async(self, **kwargs: Value) -> Value:
        """Have it asked by POST, the arguments as a form."""
        return self._task().delay(str(self), method="POST", **kwargs)


def _register(app: Value) -> None:
    app.register_task(HttpDispatchTask())


_state.connect_on_app_finalize(_register)
for _app in _state.all_apps():
    if _app.finalized:
        _register(_app)
