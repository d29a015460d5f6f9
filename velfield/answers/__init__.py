"""A store's velocities at positions and in other forms."""
