"""One likelihood pass and one generation pass that feed every metric."""
