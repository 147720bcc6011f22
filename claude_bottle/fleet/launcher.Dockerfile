# The launcher's image: the agent's base image, docker's client and this program. Nothing is fetched when it runs.
ARG BASE_IMAGE
FROM $BASE_IMAGE AS client
USER root
# From Debian 13 on docker's client is a package of its own.
RUN cd /tmp \
 && apt-get update --error-on=any \
 && { apt-get download docker-cli || apt-get download docker.io; } \
 && dpkg --extract docker*.deb /client

FROM $BASE_IMAGE
USER root
COPY --from=client /client/usr/bin/docker /usr/local/bin/docker
COPY launcher /opt/claude-bottle
RUN printf '%s\n' '#!/usr/bin/python3 -I' 'import sys' \
      'sys.path[:0] = ["/opt/claude-bottle", "/opt/claude-bottle/packages"]' \
      'from claude_bottle.cli import main' 'main(["fleet", *sys.argv[1:]], prog_name="claude-bottle-launcher")' \
      > /usr/local/bin/claude-bottle-launcher \
 && chmod 0755 /usr/local/bin/claude-bottle-launcher
