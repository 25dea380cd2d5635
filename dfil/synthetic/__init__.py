"""The built-in benchmark: procedural talking heads, real and forged, written as a FaceForensics++ tree. Everything here is synthetic."""

from dfil.synthetic.ffpp_tree import write_ffpp
from dfil.synthetic.render import Clip, render_target
from dfil.synthetic.settings import METHODS, SETTINGS, Setting

__all__ = ["METHODS", "SETTINGS", "Clip", "Setting", "render_target", "write_ffpp"]
