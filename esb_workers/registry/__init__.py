"""Who may take part in the bus, and who does: services with their instances, clients with their keys and quotas."""
