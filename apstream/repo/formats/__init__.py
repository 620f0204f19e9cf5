"""File formats of the repository: the only place that knows FITS pixels count from one."""
