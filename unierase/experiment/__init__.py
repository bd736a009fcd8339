"""An experiment: scenario, rounds, record."""
