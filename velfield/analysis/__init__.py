"""Evaluations: models against the truth, figures and reports."""
