// What Mol* and NGL read of each file named, a line of JSON each: atoms, and residues of polymers.
// Parsers alone; nothing is drawn, so no browser is needed. Run with NODE_PATH=<node_modules>.
const fs = require("fs");
globalThis.self = globalThis;

const base = "molstar/lib/commonjs/";
const { CIF } = require(base + "mol-io/reader/cif");
const { parsePDB } = require(base + "mol-io/reader/pdb/parser");
const { trajectoryFromMmCIF } = require(base + "mol-model-formats/structure/mmcif");
const { trajectoryFromPDB } = require(base + "mol-model-formats/structure/pdb");
const { Structure, StructureElement, StructureProperties } = require(base + "mol-model/structure");
const NGL = require("ngl");

async function molstar(path, text) {
  const isCif = path.endsWith(".cif");
  const parsed = await (isCif ? CIF.parseText(text) : parsePDB(text, path)).run();
  if (parsed.isError) throw new Error(parsed.message);
  const trajectory = isCif
    ? trajectoryFromMmCIF(parsed.result.blocks[0], parsed.result)
    : trajectoryFromPDB(parsed.result);
  const structure = Structure.ofModel((await trajectory.run()).representative);
  const at = StructureElement.Location.create(structure);
  let residues = 0;
  for (const unit of structure.units) {
    at.unit = unit;
    at.element = unit.elements[0];
    if (StructureProperties.entity.type(at) === "polymer") residues += unit.polymerElements.length;
  }
  return { atoms: structure.elementCount, residues };
}

async function ngl(path, text) {
  const lines = text.split("\n");
  const streamer = {
    data: text, read: async () => text, asText: () => text, isBinary: () => false,
    peekLines: (n) => lines.slice(0, n), chunkCount: () => 1,
    eachChunkOfLines: (use) => use(lines, 0, 1),
  };
  const Parser = NGL.ParserRegistry.get(path.endsWith(".cif") ? "cif" : "pdb");
  const structure = await new Parser(streamer, {}).parse();
  let residues = 0;
  structure.eachPolymer((polymer) => { residues += polymer.residueCount; });
  return { atoms: structure.atomCount, residues };
}

(async () => {
  for (const path of process.argv.slice(2)) {
    const text = fs.readFileSync(path, "utf8");
    const read = { molstar: await molstar(path, text), ngl: await ngl(path, text) };
    console.log(JSON.stringify(read));
  }
})().catch((error) => { console.error(error); process.exit(1); });
