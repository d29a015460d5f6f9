"""A client of the service (docs/service.md)."""
