"""What a user would write instead of the bus."""
