"""Cosmology, linear theory, redshift space and spectra: arrays in, arrays out."""
