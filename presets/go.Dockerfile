# Go, as the toolchain module that the go command itself downloads. Debian's go, of the first stage, gets no further.
ARG BASE_IMAGE
FROM $BASE_IMAGE AS fetch
USER root
WORKDIR /opt/fetch
RUN apt-get update --error-on=any \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends golang-go
RUN module=golang.org/toolchain version=v0.0.1-go1.27.4.linux \
 && printf '%s\n' \
      "$module $version-amd64 h1:8Tl0rBb7KdISSdPkZBjlpZxsUBb+004GI/SM2XbmSqI=" \
      "$module $version-amd64/go.mod h1:8wlg68NqwW7eMnI1aABk/C2pDYXj8mrMY4TyRfiLeS0=" \
      "$module $version-arm64 h1:vCmfNA8b+T0RfElhx3mNdgu1UrIuyzZCgTrRiUWLnOI=" \
      "$module $version-arm64/go.mod h1:8wlg68NqwW7eMnI1aABk/C2pDYXj8mrMY4TyRfiLeS0=" > go.sum \
 && version=$version-$(dpkg --print-architecture) \
 && printf 'module fetch\nrequire %s %s\n' "$module" "$version" > go.mod \
 && GOMODCACHE=/opt/fetch/cache go mod download "$module@$version" \
 && mv "cache/$module@$version" go \
 && chmod -R u=rwX,go=rX go && chmod 0755 go/bin/* go/pkg/tool/*/* \
 && rm -rf cache

FROM $BASE_IMAGE
COPY --from=fetch /opt/fetch/go /usr/local/go/
# `go install` puts its programs where the other presets do.
ENV GOBIN=/home/agent/.local/bin \
    PATH=$PATH:/usr/local/go/bin:/home/agent/.local/bin
USER root
# The hosts of Go's module proxy and of its sums, as go knows them: they are written nowhere else. Without a home, go keeps
# no telemetry there.
RUN mkdir -p /usr/local/share/claude-bottle \
 && env -u HOME go env GOPROXY GOSUMDB > /tmp/urls \
 && tr ',|' '\n\n' < /tmp/urls | sed -n 's/^[a-z]*[.:]/go &/p' >> /usr/local/share/claude-bottle/registries \
 && rm /tmp/urls
USER agent
