"""What every pool shares: a resident engine in each worker process, and the ringer that wakes it.

Why it is safe. An engine finds its work by claiming rows; the broker only shortens the wait. It polls its own pool
every `ESB_SWEEP_SECONDS`, so that with the broker hung, empty or gone work is late by one poll and never lost. It
claims only what a free slot starts now, holds it under the lease of its own heartbeat, and records by presenting
the fence of the claim: whatever it does after it was declared dead is refused.
"""
