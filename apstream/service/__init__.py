"""The imperative shell: processes, loop, lifecycle, health."""
