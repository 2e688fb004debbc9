"""Looks up host names without keeping anything waiting: a resolver may take minutes, or never return.

It decides how many threads there are, and in which order the addresses of a host are tried. It does no I/O: an adapter
gives it the function that looks up, threads and futures, and says how to connect to one address.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from eda_core.drivers.library import library_at_work

T = TypeVar("T")

#: Seconds that an attempt to connect has at least: a time-out of 0 means to many functions that they must not wait.
_INSTANT = 0.001


class LookUps:
    """The host names that are being looked up in this process.

    Each is looked up in a thread of its own, which does not keep the process alive. There is one thread for each name,
    even if attempts to connect give up and new ones begin: the new ones wait for the same thread.

    Args:
        socket: the module, or an object with its ``getaddrinfo`` and constants.
        thread: ``threading.Thread``.
        future: makes an object like ``concurrent.futures.Future``.
        process: returns the number of the process: a fork does not have the threads of its parent.
    """

    def __init__(
        self, socket: Any, thread: Callable[..., Any], future: Callable[[], Any], process: Callable[[], int]
    ) -> None:
        self._socket, self._thread, self._future, self._process = socket, thread, future, process
        self._running: dict[tuple[int, str, int], Any] = {}

    def begin(self, host: str, port: int) -> Any:
        """Begin to look up a host name, and return at once.

        Returns:
            A future. It cannot be cancelled, because several may wait for it. Its result is that of ``getaddrinfo``
            for TCP, or the exception of that: ``OSError``, or ``UnicodeError`` if it is no host name. For an address
            it is done already.
        """
        found = self._future()
        found.set_running_or_notify_cancel()
        key = self._process(), host, port
        try:
            found.set_result(self._find(host, port, self._socket.AI_NUMERICHOST))
        except self._socket.gaierror:  # it is a name
            running = self._running.setdefault(key, found)
            if running is not found:
                return running
            try:
                self._thread(target=self._look_up, args=(key, found), name="eda look-up", daemon=True).start()
            except BaseException:
                del self._running[key]
                raise
        except Exception as error:
            found.set_exception(error)
        return found

    async def connect(
        self,
        host: str,
        port: int,
        options: Mapping[str, int],
        connect: Callable[[Any, Any], Awaitable[object]],
        awaitable: Callable[[Any], Awaitable[Any]],
    ) -> Any:
        """Look up a host name, and connect to its addresses in turn until one of them can be connected to.

        Args:
            options: the options of the socket, as ``eda_core.drivers.Link.socket_options`` returns them.
            connect: connects a socket to an address, such as the ``sock_connect`` of an event loop.
            awaitable: makes an object to await of a future, such as ``asyncio.wrap_future``.

        Returns:
            The connected socket, which does not block.

        Raises:
            OSError: the name is not found, or no address can be connected to. The error is that of the first address.
            UnicodeError: ``host`` is no host name.
        """
        failure: OSError | None = None
        for address in await awaitable(self.begin(host, port)):
            try:
                return await self._connected(address, options, connect)
            except OSError as error:
                failure = failure or error
        raise failure or _no_address(host)

    async def _connected(
        self, address: Any, options: Mapping[str, int], connect: Callable[[Any, Any], Awaitable[object]]
    ) -> Any:
        made = self._socket.socket(*address[:3])  # family, type, protocol
        try:
            made.setblocking(False)
            for name, value in options.items():
                made.setsockopt(self._socket.IPPROTO_TCP, getattr(self._socket, name), value)
            await connect(made, address[4])
        except BaseException:
            made.close()
            raise
        return made

    def connect_within(
        self, timeout: float, host: str, port: int, connect: Callable[[Any, float], T], now: Callable[[], float]
    ) -> T:
        """Look up a host name, and try its addresses in turn, within ``timeout`` seconds. Wait for it.

        Args:
            connect: connects to one address. It is given a record of ``getaddrinfo``, and the seconds that are left.
            now: returns the time in monotonic seconds.

        Returns:
            What ``connect`` returns.

        Raises:
            OSError, UnicodeError: see :meth:`connect`; ``TimeoutError`` if the resolver does not answer in time.
        """
        due = now() + timeout
        try:
            found = self.begin(host, port).result(timeout)
        except TimeoutError:
            raise TimeoutError(f"the name {host} was not resolved within {timeout:g} s") from None
        failure: OSError | None = None
        for address in found:
            try:
                return connect(address, max(_INSTANT, due - now()))
            except OSError as error:
                failure = failure or error
        raise failure or _no_address(host)

    def _look_up(self, key: tuple[int, str, int], found: Any) -> None:
        _, host, port = key
        try:
            result = self._find(host, port, 0)
        except Exception as error:
            del self._running[key]
            found.set_exception(error)
        else:
            del self._running[key]
            found.set_result(result)

    def _find(self, host: str, port: int, flags: int) -> Any:
        socket = self._socket
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=flags)


class CallbackLookUp:
    """Tells a loop of callbacks what a look-up has found, unless it is cancelled before.

    Args:
        found: what :meth:`LookUps.begin` returns.
        in_loop: calls a function in the loop. Any thread may call it.
        on_done: what to call with the addresses, or with the exception.
    """

    def __init__(
        self, found: Any, in_loop: Callable[[Callable[[], None]], object], on_done: Callable[[Any], object]
    ) -> None:
        self._in_loop, self._on_done, self._waiting = in_loop, on_done, True
        found.add_done_callback(self._found)

    def _found(self, found: Any) -> None:
        with suppress(Exception), library_at_work():  # the loop may have been closed meanwhile
            self._in_loop(lambda: self._tell(found.exception() or found.result()))

    def _tell(self, result: Any) -> None:
        if self.cancel():
            self._on_done(result)

    def cancel(self) -> bool:
        """Tell nothing. Returns false if it was told or cancelled before."""
        waiting, self._waiting = self._waiting, False
        return waiting


def _no_address(host: str) -> OSError:
    return OSError(f"the host {host} has no address")
