"""The `esb` command."""
