// Package main is something to build.
package main

import (
	"fmt"

	"github.com/google/uuid"
)

func word() string {
	return uuid.NewSHA1(uuid.NameSpaceDNS, []byte("built")).String()
}

func main() {
	fmt.Println(word())
}
