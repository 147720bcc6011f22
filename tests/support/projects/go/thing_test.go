package main

import "testing"

func TestWord(t *testing.T) {
	if len(word()) != 36 {
		t.Fatal(word())
	}
}
