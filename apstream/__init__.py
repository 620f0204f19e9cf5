"""Alert production anyone can pip install: exposures in, Avro alerts out."""

__version__ = "0.1.0"
