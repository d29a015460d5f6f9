"""Catalogues of halos and particles, in GenericIO and the other formats of tables."""
