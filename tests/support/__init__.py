"""What acceptance tests and drills share: a real bus in processes of its own, and a real receiver."""
