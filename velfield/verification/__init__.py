"""Whether what lies at a URL is whole."""
