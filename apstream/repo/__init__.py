"""The data repository: dataset types, data ids, formats and registry."""
