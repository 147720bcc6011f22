#!/bin/bash
# Install, build and test; a file whose checksum is not the repository's fails the build.
set -ex
mvn --batch-mode --no-transfer-progress --strict-checksums package
ls target/thing-1.0.0.jar
