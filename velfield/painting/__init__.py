"""From tracers to cells: counts, masses and momenta on a grid."""
