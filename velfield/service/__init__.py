"""The service: models and jobs over HTTP (docs/service.md). `velfield.service.app` puts it together."""
