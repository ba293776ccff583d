"""A miniature of the host: its import names and observable rules, written from scratch for tests."""
