// Draws every sprite named in subjects.json into one RGBA sheet, sprites.png, in the order of the file: subjects, then scenery.
// Only needed when subjects.json changes. Needs two packages beside it or above: @iconify-json/noto and @resvg/resvg-js.
//   npm install --no-save @iconify-json/noto @resvg/resvg-js && node rasterise.mjs
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.env.SPRITE_PACKAGES ?? import.meta.url);
const { Resvg } = require("@resvg/resvg-js");
const { icons } = require("@iconify-json/noto/icons.json");

const world = JSON.parse(readFileSync(new URL("subjects.json", import.meta.url), "utf8"));
const names = [...world.subjects.map((subject) => subject.icon), ...world.scenery];
const { pixels, columns } = world;
const tiles = names.map((name, i) => {
  if (!icons[name]) throw new Error(`no icon "${name}" in @iconify-json/noto`);
  const x = (i % columns) * pixels;
  const y = Math.floor(i / columns) * pixels;
  return `<svg x="${x}" y="${y}" width="${pixels}" height="${pixels}" viewBox="0 0 128 128">${icons[name].body}</svg>`;
});
const width = columns * pixels;
const height = Math.ceil(names.length / columns) * pixels;
const sheet = `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="${width}" height="${height}">${tiles.join("")}</svg>`;
writeFileSync(new URL("sprites.png", import.meta.url), new Resvg(sheet).render().asPng());
console.log(`sprites.png: ${names.length} sprites, ${width}x${height}`);
