"""The methods that the paper compares with, one file each.

What all of them take: `frames` is T, the consecutive frames of a snippet or clip; a method whose
modules are not built for a T accepts and ignores it. U is free at run time unless a file says
otherwise. `depth`, `width` and `stem` are ResNet's; where there is no ResNet, the file says what
they do. A method samples frames by its own protocol, but at most as many as DIL sees, 16 of a
training and 32 of a test video, so that all cost alike; DeepRhythm, which needs time, sees 32 of
either.
"""
