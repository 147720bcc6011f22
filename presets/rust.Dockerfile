# Rust as Debian builds it for its browsers, which need a newer one than the release has.
ARG BASE_IMAGE
FROM $BASE_IMAGE
USER root
RUN apt-get update --error-on=any \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
      cargo-web gcc libc6-dev pkg-config rust-web-clippy rustc-web rustfmt-web \
 && apt-get clean && rm -rf /var/lib/apt/lists/* \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
# `cargo install` puts its programs where the other presets do.
ENV CARGO_INSTALL_ROOT=/home/agent/.local \
    PATH=$PATH:/home/agent/.local/bin
# The hosts of the registry of crates, as cargo knows them: they are written nowhere else. A lock file has cargo ask for
# the index, whose folder has the host's name.
RUN mkdir -p /usr/local/share/claude-bottle /tmp/ask/src && cd /tmp/ask && touch src/lib.rs \
 && printf '[package]\nname = "ask"\nversion = "0.0.0"\n[dependencies]\nitoa = "1"\n' > Cargo.toml \
 && CARGO_HOME=/tmp/ask/home cargo generate-lockfile \
 && cd home/registry/index/* \
 && { basename "$PWD" | sed 's/-[0-9a-f]*$//' && jq --raw-output '.dl, .api' config.json; } > /tmp/ask/urls \
 && sed 's/^/crates /' /tmp/ask/urls >> /usr/local/share/claude-bottle/registries \
 && rm -rf /tmp/*
USER agent
