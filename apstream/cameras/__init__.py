"""Camera descriptions: one YAML file per camera and one loader."""

from apstream.cameras.camera import Camera, HduChoice
from apstream.cameras.curation import CuratedCalib
from apstream.cameras.load import camera_names, load_camera

__all__ = ["Camera", "CuratedCalib", "HduChoice", "camera_names", "load_camera"]
