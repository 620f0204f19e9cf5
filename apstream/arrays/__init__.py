"""PURE array functions: numpy in, numpy out; no files, units, logs or clock."""
