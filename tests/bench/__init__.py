"""`make bench`: how long a session takes to start and to end, what it weighs, and how many fit on this machine."""
