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
USER agent
