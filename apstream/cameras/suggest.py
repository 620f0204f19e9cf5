"""Which of the cameras that ship a frame is of, for those who named another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from apstream.cameras.camera import Camera
from apstream.cameras.headers import Header
from apstream.cameras.load import camera_names, load_camera
from apstream.errors import ApstreamError, BadHeader, UnknownEvent, WrongSize

__all__ = ["fitting_cameras", "suggesting_cameras"]

#: What takes any frame, and so says nothing.
_ANY = "generic"


def fitting_cameras(header: Header, where: str = "") -> list[str]:
    """Return the names of the cameras whose size and rules a frame's header fits; `where` is the frame's file."""
    return [name for name in camera_names() if name != _ANY and _fits(load_camera(name), header, where)]


@contextmanager
def suggesting_cameras(camera: Camera, header: Header, where: str) -> Iterator[None]:
    """Make an error about a frame that is not of `camera` name the cameras that it is of."""
    try:
        yield
    except (BadHeader, UnknownEvent, WrongSize) as error:
        others = [name for name in fitting_cameras(header, where) if name != camera.name]
        if not others:
            raise
        remedy = f"it fits the camera {' or '.join(others)}" + (f"; else {error.remedy}" if error.remedy else "")
        raise type(error)(error.message, where=error.where or where, remedy=remedy) from error


def _fits(camera: Camera, header: Header, where: str) -> bool:
    try:
        camera.detector(header, where)
        camera.exposure_info(header, where)
    except ApstreamError:
        return False
    return True
