"""Deliveries: prepare, call, record."""
