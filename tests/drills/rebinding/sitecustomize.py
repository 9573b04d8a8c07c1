"""On a drill's PYTHONPATH: a resolver for `rebind.drill.test`, whose address is another at every look."""

import itertools
import socket

_ADDRESSES = itertools.cycle(["127.0.0.1", "127.0.0.3"])
_getaddrinfo = socket.getaddrinfo


def getaddrinfo(host, *args, **kwargs):
    return _getaddrinfo(next(_ADDRESSES) if host == "rebind.drill.test" else host, *args, **kwargs)


socket.getaddrinfo = getaddrinfo
