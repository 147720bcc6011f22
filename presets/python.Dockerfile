# Debian's Python with pip and venv, and uv from PyPI.
ARG BASE_IMAGE
FROM $BASE_IMAGE
USER root
RUN apt-get update --error-on=any \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python-is-python3 python3-pip python3-venv \
 && apt-get clean && rm -rf /var/lib/apt/lists/* \
 && printf '%s ' uv==0.13.9 \
      --hash=sha256:d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19 \
      --hash=sha256:5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe > /tmp/uv \
 && pip install --break-system-packages --no-cache-dir --no-deps --only-binary :all: --require-hashes --requirement /tmp/uv \
 && rm /tmp/uv \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
# `pip install` outside of a virtual environment goes to the agent's home. uv's own Pythons come from no registry.
ENV PIP_BREAK_SYSTEM_PACKAGES=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    UV_PYTHON_DOWNLOADS=never \
    PATH=$PATH:/home/agent/.local/bin
# The hosts of PyPI, as pip knows them: they are written nowhere else.
RUN mkdir -p /usr/local/share/claude-bottle \
 && python3 -c 'from pip._internal.models.index import PyPI; print("pypi", PyPI.simple_url); print("pypi", PyPI.file_storage_domain)' \
      >> /usr/local/share/claude-bottle/registries
USER agent
