import { mkdirSync, writeFileSync } from "node:fs";
import mustache from "mustache";

mkdirSync("dist", { recursive: true });
writeFileSync("dist/word.js", mustache.render('export const word = "{{word}}";\n', { word: "built" }));
