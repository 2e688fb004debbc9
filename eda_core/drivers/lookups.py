"""Looks up host names without keeping anything waiting: a resolver may take minutes, or never return.

It decides how many threads there are. It does no I/O: an adapter gives it the function that looks up, threads and
futures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


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

    def wait(self, host: str, port: int, timeout: float) -> Any:
        """Look up a host name within ``timeout`` seconds, and return what ``getaddrinfo`` returns.

        Raises:
            OSError, UnicodeError: see :meth:`begin`; ``TimeoutError`` if the resolver does not answer in time.
        """
        try:
            return self.begin(host, port).result(timeout)
        except TimeoutError:
            raise TimeoutError(f"the name {host} was not resolved within {timeout:g} s") from None

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
