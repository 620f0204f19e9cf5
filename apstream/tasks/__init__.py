"""PURE stages: model in, model out; one file is one config, one result, one verb."""
