"""The version of velfield, read by the build and written into every store and bundle."""

__version__ = "0.1.0"
