"""Queues and exchanges of other brokers, as destinations and as sources."""
