"""Listeners: queues of other brokers that are consumed into the bus."""
