#!/usr/bin/env bash
# Kill the agent's processes, with bash's builtins alone: a bottle at its process limit can start nothing else. Stop them
# first, so that they cannot fork. The processes that hold the bottle are another user's.

kill -STOP -1
kill -KILL -1
exit 0
