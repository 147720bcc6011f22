#!/usr/bin/env bash
# The first process of the credential proxy's container. stdin: $1 bytes of nft's rules, $2 bytes of a tar, then the
# lifeline; $3 is empty, or how many seconds may pass between its lines. As root it loads the rules and drops all
# privileges, then runs itself again. nginx prints the first line. Whatever ends, nginx or the lifeline, ends all.

set -eu -o pipefail
ulimit -c 0
if [ "$EUID" = 0 ]; then
    /usr/bin/head --bytes "$1" | /usr/sbin/nft --file -
    exec /usr/bin/setpriv --reuid 65533 --regid 65533 --clear-groups --no-new-privs \
        --inh-caps=-all --ambient-caps=-all --bounding-set=-all /bin/bash -c "$BASH_EXECUTION_STRING" bash "$@"
fi

umask 077
cd /run/proxy
openssl() { /usr/bin/openssl "$@" 2> "error.$BASHPID" || { /usr/bin/cat "error.$BASHPID" >&2; exit 1; }; }
request() { openssl req -config openssl.cnf -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc "$@"; }
sign() { openssl ca -config openssl.cnf -batch -notext -startdate "$first" -enddate "$last" "$@"; }

/usr/bin/head --bytes "$2" | /usr/bin/tar --extract
TZ=UTC printf -v first '%(%Y%m%d%H%M%SZ)T' "$((EPOCHSECONDS - 86400))"
TZ=UTC printf -v last '%(%Y%m%d%H%M%SZ)T' "$((EPOCHSECONDS + 30 * 86400))"
: > index.txt
request -subj "/CN=claude-bottle credential proxy" -keyout leaf.key -out leaf.csr &
request -subj "/CN=claude-bottle session" -keyout authority.key -out authority.csr
sign -extensions authority -selfsign -keyfile authority.key -in authority.csr -out authority.pem
wait "$!"
sign -extensions leaf -cert authority.pem -keyfile authority.key -in leaf.csr -out leaf.pem
/usr/bin/rm -- authority.key ./*.csr index.txt* error.* openssl.cnf ./[0-9A-F]*.pem

/usr/sbin/nginx -e stderr -p /run/proxy -c /run/proxy/nginx.conf < /dev/null &
exec 3<&0
limit=(${3:+-t "$3"})
while read -r "${limit[@]}" _; do :; done <&3 &
wait -n
