"""Measuring alignments with a judge outside of the search: `evaluate`, `compare`, `audit-judge`, `study`."""
