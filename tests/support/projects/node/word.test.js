import assert from "node:assert";
import test from "node:test";
import { word } from "./dist/word.js";

test("the built file has the word", () => assert.equal(word, "built"));
