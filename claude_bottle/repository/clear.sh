#!/usr/bin/env bash
# Kill the agent's processes, with bash's builtins alone: a bottle at its process limit can start nothing else. Stop
# them first, so that they cannot fork. Spare the processes that hold the bottle: those whose stdin is that of its first
# process. A process to which the agent has given the same stdin survives.

holder=()
for each in /proc/[0-9]*; do
  each=${each#/proc/}
  [ "$each" = 1 ] || [ "$each" = $$ ] || ! [ "/proc/$each/fd/0" -ef /proc/1/fd/0 ] || holder+=("$each")
done
[ ${#holder[@]} != 0 ] || exit
kill -STOP -1
for each in /proc/[0-9]*; do
  each=${each#/proc/}
  [ "$each" = 1 ] || [ "$each" = $$ ] || [[ " ${holder[*]} " = *" $each "* ]] || kill -KILL "$each"
done 2> /dev/null
kill -CONT "${holder[@]}"
