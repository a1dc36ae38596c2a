"""HTTP downloads with rate limits and retries, for slow, truncated, redirected, busy and dead URLs."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential
from tqdm import tqdm
from yarl import URL

from zerotag.files import write_aside

# "Retry later" responses allowed per allowed failure.
_PATIENCE = 10
_CHUNK = 2**18


@dataclass(frozen=True)
class WebSettings:
    """Attributes:
    connections: concurrent connections.
    per_host: concurrent connections per host.
    per_second: requests per second and host; 0 for no limit.
    attempts: per URL that fails or does not respond.
    first_wait: seconds before the second attempt; exponential backoff with jitter.
    longest_wait: maximum wait in seconds, also for Retry-After.
    connect_seconds: timeout for connecting.
    stall_seconds: timeout without data.
    total_seconds: timeout per photo.
    max_megabytes: maximum size of a photo.
    """

    connections: int = 64
    per_host: int = 16
    per_second: float = 50.0
    attempts: int = 5
    first_wait: float = 1.0
    longest_wait: float = 300.0
    connect_seconds: float = 20.0
    stall_seconds: float = 30.0
    total_seconds: float = 300.0
    max_megabytes: float = 50.0


class GoneError(Exception):
    """A permanent failure; a retry is pointless."""


class UnavailableError(Exception):
    """A temporary failure."""

    def __init__(self, reason: str, retry_after: float | None = None):
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass
class _Host:
    limiter: AsyncLimiter | None
    closed_until: float = 0.0


@dataclass
class Web:
    """An open session and the state of its hosts."""

    session: aiohttp.ClientSession
    settings: WebSettings
    hosts: dict[str, _Host] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)

    def host(self, url: str) -> _Host:
        """The host that serves the URL: the one that its host redirects to, if any."""
        name = URL(url).host or ""
        return self.hosts.setdefault(self.moved.get(name, name), _Host(_limiter(self.settings.per_second)))


def _limiter(per_second: float) -> AsyncLimiter | None:
    """A limiter with bursts of at most a tenth of a second's requests."""
    burst = max(1.0, per_second / 10)
    return AsyncLimiter(burst, burst / per_second) if per_second else None


@asynccontextmanager
async def open_web(settings: WebSettings) -> AsyncIterator[Web]:
    """Open a session whose requests share the limits."""
    connector = aiohttp.TCPConnector(limit=settings.connections, limit_per_host=settings.per_host)
    timeout = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=settings.connect_seconds,
                                    sock_read=settings.stall_seconds)  # fmt: skip
    # Photos are already compressed.
    headers = {"User-Agent": "zerotag (research dataset download)", "Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
        yield Web(session, settings)


async def get(web: Web, url: str, wrong: Callable[[bytes], str] = lambda data: "") -> bytes:
    """Download a small file, with retries.

    Args:
        web: an open session.
        url: its URL.
        wrong: describes what is wrong with the content; empty if valid.

    Raises:
        GoneError: the file does not exist, or is a placeholder.
        UnavailableError: every attempt failed.
    """
    async for attempt in _attempts(web.settings):
        with attempt:
            async with _answer(web, url) as response, asyncio.timeout(web.settings.total_seconds):
                data = bytearray()
                async for chunk in response.content.iter_chunked(_CHUNK):
                    data += chunk
                    if len(data) > web.settings.max_megabytes * 1e6:
                        raise GoneError(f"larger than {web.settings.max_megabytes:g} MB")
            if reason := wrong(bytes(data)):
                raise UnavailableError(reason)
            return bytes(data)
    raise AssertionError("tenacity returns or raises")


async def get_file(web: Web, url: str, file: Path) -> None:
    """Download a file of any size to `file`, written atomically.

    Raises:
        GoneError, UnavailableError: as `get`.
    """
    async for attempt in _attempts(web.settings):
        with attempt, write_aside(file) as draft:
            async with _answer(web, url) as response:
                with (
                    draft.open("wb") as out,
                    tqdm(desc=file.name, total=response.content_length, unit="B", unit_scale=True) as bar,
                ):
                    async for chunk in response.content.iter_chunked(_CHUNK):
                        out.write(chunk)
                        bar.update(len(chunk))


@asynccontextmanager
async def _answer(web: Web, url: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """A successful response; failures raise GoneError or UnavailableError."""
    host = web.host(url)
    while (wait := host.closed_until - time.monotonic()) > 0:
        await asyncio.sleep(wait)
    if host.limiter:
        await host.limiter.acquire()
    try:
        async with web.session.get(url) as response:
            if response.history:
                web.moved[response.history[0].url.host or ""] = response.url.host or ""
            if "unavailable" in response.url.name:
                raise GoneError(f"a placeholder, {response.url.name}")
            if response.status in (429, 503):
                later = _retry_after(response.headers.get("Retry-After", ""), web.settings.longest_wait)
                if later is not None:  # applies to all requests to this host
                    host = web.host(url)
                    host.closed_until = max(host.closed_until, time.monotonic() + later)
                raise UnavailableError(f"HTTP {response.status}", later)
            if response.status in (408, 425) or response.status >= 500:
                raise UnavailableError(f"HTTP {response.status}")
            if response.status != 200:
                raise GoneError(f"HTTP {response.status}")
            yield response
    except TimeoutError as error:
        raise UnavailableError("timed out") from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, aiohttp.TooManyRedirects) as error:
        raise GoneError(f"{type(error).__name__}: {error}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise UnavailableError(f"{type(error).__name__}: {error}") from error


def _retry_after(header: str, longest: float) -> float | None:
    """Seconds of a Retry-After header, given in seconds or as a date."""
    try:
        seconds = float(header) if header.isdigit() else parsedate_to_datetime(header).timestamp() - time.time()
    except ValueError:
        return None
    return min(max(seconds, 0.0), longest)


def _attempts(settings: WebSettings) -> AsyncRetrying:
    chance = wait_random_exponential(multiplier=settings.first_wait, max=settings.longest_wait)

    def later(state: RetryCallState) -> float | None:
        error = state.outcome.exception() if state.outcome else None
        return error.retry_after if isinstance(error, UnavailableError) else None

    def wait(state: RetryCallState) -> float:
        # `_answer` honours Retry-After.
        return chance(state) if later(state) is None else 0.0

    def stop(state: RetryCallState) -> bool:
        return state.attempt_number >= settings.attempts * (1 if later(state) is None else _PATIENCE)

    return AsyncRetrying(retry=retry_if_exception_type(UnavailableError), wait=wait, stop=stop, reraise=True)
