"""One machine: embedded PostgreSQL and Valkey, and the processes of `esb up`, started and kept alive."""
