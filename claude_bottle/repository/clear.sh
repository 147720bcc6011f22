#!/usr/bin/env bash
# With no program but bash itself, which a bottle without room for another process can still start: stop all that the
# agent runs, so that nothing new comes of it, and end it. What holds the bottle is another user's.

kill -STOP -1
kill -KILL -1
exit 0
