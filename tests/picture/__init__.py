"""`make picture`: a session of the real program in the test world, recorded on a terminal and written as an SVG."""
