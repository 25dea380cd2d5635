"""On PYTHONPATH, this lets no Python process below connect to another machine; .ci/run uses it.

Kernels talk to this machine itself (127.0.0.1), which is allowed.
"""

import ipaddress
import socket

_connect, _connect_ex, _look_up = (
    socket.socket.connect,
    socket.socket.connect_ex,
    socket.getaddrinfo,
)


def _check(host) -> None:
    if host in (None, "", "localhost", socket.gethostname()):
        return
    try:
        if ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host).is_loopback:
            return
    except ValueError:  # a name, which would have to be looked up
        pass
    raise PermissionError(f"a connection to {host} is not allowed here")


def _checked(function):
    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _check(address[0])
        return function(self, address)

    return connect


def _looked_up(host, *args, **kwargs):
    _check(host)
    return _look_up(host, *args, **kwargs)


socket.socket.connect = _checked(_connect)
socket.socket.connect_ex = _checked(_connect_ex)
socket.getaddrinfo = _looked_up
