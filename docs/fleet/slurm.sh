#!/bin/bash
# Run one packed start as a job of Slurm; everything after the folder goes to srun:
#
#   docs/fleet/slurm.sh reviewer task.tar results --time=30 --job-name=review
#
# It waits for the job, prints the agent's answer, and exits with its code. The values of the agent's secrets go from here
# to the node over srun's stdin: they are not in Slurm's spool, and the token is in no environment. Private ssh keys are files
# below the node's TMPDIR while the job runs. The folder for the work is on a file system that this machine and the nodes
# share. To end a job in order, its work included:
#
#   scancel --signal=TERM JOB
set -euo pipefail
agent=$1 task=$2 out=$(realpath "$3")
shift 3
cli=$(realpath "$(dirname "$0")/../../cli.py")

# $1: the program on the node, $2: the folder. The secrets come first, after a line with their length.
# shellcheck disable=SC2016  # it runs on the node
on_the_node='
read -r size
exec 3< <(exec head --bytes "$size")
exec "$1" fleet run --secrets-fd 3 --out "$2"
'
# Not the token, which this machine's environment may have.
passed_on=PATH,HOME,LANG,TMPDIR,DOCKER_HOST,DOCKER_CONTEXT,CLAUDE_BOTTLE_EGRESS_NETWORK,CLAUDE_BOTTLE_SUBNET
values=$("$cli" fleet secrets "$agent" | base64 --wrap=0)
{
    printf %s "$values" | base64 --decode | wc --bytes
    printf %s "$values" | base64 --decode
    cat "$task"
} | srun --ntasks=1 --quit-on-interrupt --export="$passed_on" "$@" /bin/bash -c "$on_the_node" bash "${CLAUDE_BOTTLE_ON_NODES:-$cli}" "$out"
