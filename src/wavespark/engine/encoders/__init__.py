"""Encoders in and out of the package: loading, exporting, importing foreign weights, initialising a
run."""
