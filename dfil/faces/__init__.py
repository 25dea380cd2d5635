"""From video files to face crops: decoding, detection, boxes over time, and their store."""
