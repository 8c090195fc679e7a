"""Benchmarks: ``python -m benchmarks NAME`` runs one of the tables; ``--help`` lists them."""
