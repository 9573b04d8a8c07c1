"""Health of the registered services: probe, judge, record."""
