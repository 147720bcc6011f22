# The agent's image. `./cli.py build` makes the context: this file, and ca.crt, which is empty but for CLAUDE_BOTTLE_BUILD_CA.
# For BuildKit and the classic builder alike, so without `# syntax`, --mount, here-documents and COPY --chmod.

# Debian 12.15, the last point release of bookworm; the digest is that of the list for all platforms.
ARG BASE_IMAGE=debian:bookworm-slim@sha256:7b140f374b289a7c2befc338f42ebe6441b7ea838a042bbd5acbfca6ec875818
# Unless a manifest's `claude:` or CLAUDE_BOTTLE_CLAUDE_VERSION names another.
ARG CLAUDE_CODE_VERSION=2.1.331

FROM $BASE_IMAGE AS base
COPY ca.crt /usr/local/share/ca-certificates/claude-bottle-build.crt
# The slim image has no CA certificates, so the first update goes over whatever its sources say. All after it use https,
# which is also the only way out of a bottle. Debian has two formats of sources, and an image has one or the other.
RUN find /usr/local/share/ca-certificates -size 0 -delete \
 && apt-get update --error-on=any \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates \
 && update-ca-certificates \
 && apt-get clean && rm -rf /var/lib/apt/lists/* \
 && find /etc/apt -type f '(' -name '*.list' -o -name '*.sources' ')' -exec sed -i 's|http://|https://|g' {} +
# Node and npm look only at their own list of authorities unless told otherwise.
# The image has no other locale, and the user's is not passed on. With LC_CTYPE, characters stay UTF-8 if a manifest sets LANG.
ENV LANG=C.UTF-8 \
    LC_CTYPE=C.UTF-8 \
    NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt

# npm is here for its integrity check; nothing of this stage but the binary gets any further.
FROM base AS claude
RUN apt-get update --error-on=any && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends npm
ARG CLAUDE_CODE_VERSION
# The platform's own package: the main one would fetch the glibc and the musl binary, 400 MB each.
RUN case "$(dpkg --print-architecture)" in \
      amd64) package=@anthropic-ai/claude-code-linux-x64 ;; \
      arm64) package=@anthropic-ai/claude-code-linux-arm64 ;; \
      *) echo "Claude Code has no build for $(dpkg --print-architecture)" >&2; exit 1 ;; \
    esac \
 && npm install --prefix /opt --ignore-scripts --no-audit --no-fund "$package@$CLAUDE_CODE_VERSION" \
 && mv "/opt/node_modules/$package/claude" /opt/claude \
 && chmod 0755 /opt/claude

FROM base
# nginx, its modules and openssl are the credential proxy's, which runs from this image; no service is started.
# Setuid programs gain nothing under no-new-privileges; without the bit the image does not lean on that flag.
RUN apt-get update --error-on=any \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
      curl git jq kitty-terminfo less libnginx-mod-http-lua libnginx-mod-stream lua-cjson ncurses-term \
      netcat-openbsd nftables nginx openssh-client openssl procps python3 ripgrep tzdata \
 && apt-get clean && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 1000 agent \
 && useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash agent \
 && install -d -o agent -g agent /work \
 && install -d -o agent -g agent -m 0700 /run/ssh-agent \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
# Last, and with its mode from the stage above: a chmod here would store the binary a second time.
COPY --from=claude /opt/claude /usr/local/bin/claude
ARG CLAUDE_CODE_VERSION
LABEL claude-bottle.claude-code=$CLAUDE_CODE_VERSION
# As NODE_EXTRA_CA_CERTS above, for pip and requests.
ENV REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt \
    DISABLE_AUTOUPDATER=1 \
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 \
    CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL=1
USER agent
WORKDIR /work
CMD ["bash"]
