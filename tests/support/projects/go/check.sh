#!/bin/bash
# Install, build and test.
set -ex
go mod download
go mod verify
go build -o thing .
./thing
go vet .
go test -v .
