"""Inbound webhooks: what other systems post to `/ingress/{name}`, as messages of the bus.

`verification`, `reading` and `mapping` are pure: the request as received, the secrets and the clock in, a message
or a refusal out. The signature is checked first, over the bytes as they came; nothing of a request is looked at
before that. `book` keeps the definitions in memory for the revision they were read at, `registry` changes them.
"""
