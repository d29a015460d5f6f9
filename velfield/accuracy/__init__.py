"""How near predicted velocities are to true ones, as numbers and as lines of text."""
