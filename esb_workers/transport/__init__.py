"""The outside world: calls over HTTP, CloudEvents, signatures, and the guard on addresses."""
