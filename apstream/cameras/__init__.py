"""Camera descriptions: one YAML file per camera and one loader."""
