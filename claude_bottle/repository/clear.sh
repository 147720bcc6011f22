#!/usr/bin/env bash
# With no program but bash itself, which a bottle without room for another process can still start: stop all that the
# agent runs, so that nothing new comes of it, and end it, but not what holds the bottle: that reads the input of its
# first process. What the agent has given that input too lives on.

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
